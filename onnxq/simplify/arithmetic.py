"""Mul, Add, Sub and Div by a constant after a layer: one value, or one for each channel."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from onnxq.graph.constants import constant_tensor, dimensions, require_constant
from onnxq.numerics.affine import Array
from onnxq.simplify.layers import (
    OUTPUT_CHANNEL_AXIS,
    Change,
    channel_count,
    refuse_change,
    refuse_layer,
)

ARITHMETIC = frozenset({"Add", "Div", "Mul", "Sub"})


def refuse_arithmetic(node: ir.Node) -> str | None:
    """Why an operation with a constant stays, or None if it can be folded."""
    index = operand_index(node)
    if index is None:
        return "neither operand is constant"
    source = node.inputs[index]
    refusal = refuse_layer(source, node)
    layer = None if source is None else source.producer()
    if refusal is not None or layer is None:
        return refusal
    if node.op_type == "Div" and index == 1:
        return "divides by the layer"
    if {"axis", "broadcast"} & node.attributes.keys():
        return "broadcasts as before operator set 7"
    constant, weight = require_constant(node.inputs[1 - index]), require_constant(layer.inputs[1])
    if constant.dtype != weight.dtype:
        return "its constant is of another type"
    if not _is_channelwise(dimensions(constant), channel_count(layer), len(weight.shape)):
        return "its constant is not one value for each channel"
    return refuse_change(layer, read_arithmetic(node))


def operand_index(node: ir.Node) -> int | None:
    """Which of the two inputs is the one that is not constant; None if that is unclear."""
    constant = [constant_tensor(value) is not None for value in node.inputs]
    return constant.index(False) if len(constant) == 2 and sum(constant) == 1 else None


def read_arithmetic(node: ir.Node) -> Change:
    """What it does to each channel."""
    index = operand_index(node)
    constant = require_constant(node.inputs[1 if index == 0 else 0])
    number: Array = constant.numpy().astype(np.float64).reshape(-1)
    one, nothing = np.ones(1), np.zeros(1)
    if node.op_type == "Mul":
        return Change(number, nothing)
    if node.op_type == "Add":
        return Change(one, number)
    if node.op_type == "Sub":
        return Change(one, -number) if index == 0 else Change(-one, number)
    with np.errstate(divide="ignore"):  # refused afterwards
        return Change(1 / number, nothing)


def _is_channelwise(shape: tuple[int, ...], channels: int, rank: int) -> bool:
    """Whether a constant of ``shape`` holds one value, or one for each channel.

    The output of a layer has as many axes as its weight; a constant with more would add some.
    """
    if len(shape) > rank:
        return False
    aligned = (1,) * (rank - len(shape)) + shape
    return aligned[OUTPUT_CHANNEL_AXIS] in (1, channels) and (
        prod(aligned) == aligned[OUTPUT_CHANNEL_AXIS]
    )
