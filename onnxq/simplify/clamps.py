"""Clip, Relu, Min and Max after each other, read as one interval."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import onnx_ir as ir

from onnxq.graph.attributes import float_attribute, has_reference
from onnxq.graph.constants import constant_tensor
from onnxq.simplify.arithmetic import operand_index


@dataclass(frozen=True)
class Clamp:
    """What nodes that limit a value do together.

    Attributes:
        source: what is limited.
        lowest: the lower limit, or minus infinity.
        highest: the upper limit, or infinity.
        nodes: those that limit, the last first.
        constants: the limits that are inputs.
    """

    source: ir.Value
    lowest: float
    highest: float
    nodes: tuple[ir.Node, ...]
    constants: tuple[ir.Value, ...]


def read_clamp(value: ir.Value) -> Clamp:
    """The nodes before ``value`` that only limit it; without any, the interval is the whole line.

    To limit to one interval after another is to limit to what they share, if they share anything:
    what has ``lowest`` below ``highest`` may be relied on.
    """
    clamp = Clamp(value, -inf, inf, (), ())
    while (further := _step(clamp)) is not None:
        clamp = further
    return clamp


def number(value: ir.Value | None) -> float | None:
    """The one element of a constant, of whatever shape; None for anything else."""
    tensor = constant_tensor(value)
    if tensor is None or tensor.size != 1 or not tensor.dtype.is_floating_point():
        return None
    return float(tensor.numpy().reshape(-1)[0])


def _step(clamp: Clamp) -> Clamp | None:
    node = clamp.source.producer()
    if node is None or node.domain or has_reference(node):
        return None
    index = operand_index(node) if node.op_type in ("Max", "Min") else 0
    source = None if index is None or not node.inputs else node.inputs[index]
    limits = _limits(node)
    if source is None or limits is None:
        return None
    return Clamp(
        source,
        max(clamp.lowest, limits[0]),
        min(clamp.highest, limits[1]),
        (*clamp.nodes, node),
        clamp.constants + tuple(one for one in node.inputs if one not in (None, source)),
    )


def _limits(node: ir.Node) -> tuple[float, float] | None:
    if node.op_type == "Relu":
        return 0.0, inf
    if node.op_type in ("Max", "Min"):
        index = operand_index(node)
        limit = None if index is None else number(node.inputs[1 - index])
        if limit is None:
            return None
        return (limit, inf) if node.op_type == "Max" else (-inf, limit)
    if node.op_type == "Clip":
        lowest, highest = _limit(node, 1, "min", -inf), _limit(node, 2, "max", inf)
        return None if lowest is None or highest is None else (lowest, highest)
    return None


def _limit(node: ir.Node, index: int, attribute: str, default: float) -> float | None:
    """A limit of Clip, which is an attribute before operator set 11."""
    value = node.inputs[index] if len(node.inputs) > index else None
    return float_attribute(node, attribute, default) if value is None else number(value)
