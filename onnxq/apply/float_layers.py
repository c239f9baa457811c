"""Layers that stay float beside calibrated ones, and what the runtime would make of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxq.apply.rewriter import Rewriter
from onnxq.graph.constants import constant_tensor

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_PASSED = frozenset(
    {"Relu", "Clip", "Add", "Sub", "Mul", "Div", "BatchNormalization", "Identity", "Dropout"}
)
"""What the runtime folds into a layer, or looks through, before it quantizes weights."""


def find_layers_at_risk(dequantized: ir.Value) -> Iterator[ir.Node]:
    """Float layers that onnxruntime quantizes at load, per tensor, whatever the plan says.

    Its WeightBiasQuantization does so where a layer reads a DequantizeLinear of one scale and,
    maybe behind a Relu, Clip or bias, is read by a QuantizeLinear.
    """
    for reader, index in list(dequantized.uses()):
        if index != 0 or reader.domain or reader.op_type not in _LAYERS:
            continue
        weight = reader.inputs[1]
        if weight is None or _is_dequantized(weight):
            continue
        if _is_read_by_quantize(reader.outputs[0]):
            yield reader


def separate_bias(rewriter: Rewriter, product: ir.Node) -> None:
    """Write ``x W + b`` as ``x W - (-b)`` where the bias is added in float.

    onnxruntime makes one Gemm of MatMul and Add before it looks for integers, and then finds none
    that it could compute: half the speed of float.
    """
    value = product.outputs[0]
    for reader, index in list(value.uses()):
        if reader.op_type != "Add" or reader.domain:
            continue
        bias = reader.inputs[1 - index]
        tensor = constant_tensor(bias)
        if tensor is None or tensor.dtype != ir.DataType.FLOAT:
            continue
        scope = rewriter.scope_of(reader)
        negative = np.negative(tensor.numpy())
        constant = rewriter.add_array(scope, negative, name=f"{tensor.name or 'bias'}_negative")
        difference = rewriter.add_node(
            reader, "Sub", (value, constant), name=f"{reader.name or 'bias'}_difference"
        )
        rewriter.succeed(reader, difference)


def _is_dequantized(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type == "DequantizeLinear"


def _is_read_by_quantize(value: ir.Value) -> bool:
    for reader, _ in value.uses():
        if reader.op_type == "QuantizeLinear":
            return True
        if reader.op_type in _PASSED and _is_read_by_quantize(reader.outputs[0]):
            return True
    return False
