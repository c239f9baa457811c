"""QuantizeLinear, DequantizeLinear and products of integers, all with gradients.

Integers are held in floats here: they are exact up to 2^24, and a gradient can pass through them.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
import torch

from onnxq.graph.constants import constant_tensor
from onnxq.training.fake_quantization import round_through
from onnxq.training.operators.call import Call, Inputs, Operator, Outputs, optional
from onnxq.training.tensors import as_float

INTEGER_LIMITS = {
    torch.uint8: (0, 255),
    torch.int8: (-128, 127),
    torch.int16: (-(2**15), 2**15 - 1),
    torch.int32: (-(2**31), 2**31 - 1),
}
TYPE_LIMITS = {
    ir.DataType.UINT8: (0, 255),
    ir.DataType.INT8: (-128, 127),
    ir.DataType.UINT16: (0, 2**16 - 1),
    ir.DataType.INT16: (-(2**15), 2**15 - 1),
    ir.DataType.UINT4: (0, 15),
    ir.DataType.INT4: (-8, 7),
    ir.DataType.INT32: (-(2**31), 2**31 - 1),
}


def find_limits(node: ir.Node) -> tuple[int, int]:
    """Smallest and largest integer that a node quantizes to."""
    index = 8 if node.op_type == "QGemm" else 2
    zero_point = node.inputs[index] if index < len(node.inputs) else None
    tensor = constant_tensor(zero_point)
    dtype = ir.DataType.UINT8 if tensor is None else tensor.dtype
    wanted = node.attributes.get("output_dtype")
    if tensor is None and wanted is not None and wanted.as_int():
        dtype = ir.DataType(wanted.as_int())
    return TYPE_LIMITS.get(dtype, (0, 255))


def spread(numbers: torch.Tensor, call: Call, value: torch.Tensor) -> torch.Tensor:
    """Scales or zero points in a shape that broadcasts to ``value``."""
    if numbers.numel() == 1:
        return numbers.reshape(())
    axis = call.integer("axis", 1) % value.dim()
    block = call.integer("block_size", 0)
    if block:
        return numbers.repeat_interleave(block, dim=axis).narrow(axis, 0, value.shape[axis])
    return numbers.reshape([-1 if at == axis else 1 for at in range(value.dim())])


def _quantize(call: Call, inputs: Inputs) -> Outputs:
    value, scale, zero_point = inputs[0], inputs[1], optional(inputs, 2)
    low, high = call.attributes["limits"]
    steps = value / spread(scale, call, value)
    if zero_point is None:
        return (round_through(steps.clamp(low, high)),)
    offset = spread(as_float(zero_point), call, value)
    if offset.dim() == 0:
        shift = float(offset)
        return (round_through(steps.clamp(low - shift, high - shift)) + shift,)
    clamped = torch.minimum(torch.maximum(steps, low - offset), high - offset)
    return (round_through(clamped) + offset,)


def _dequantize(call: Call, inputs: Inputs) -> Outputs:
    scale, zero_point = inputs[1], optional(inputs, 2)
    value = as_float(inputs[0]).to(torch.promote_types(torch.float32, scale.dtype))
    if zero_point is not None and (zero_point.requires_grad or bool(torch.any(zero_point))):
        value = value - spread(as_float(zero_point), call, value)
    return (value * spread(scale, call, value),)


def dynamic_parameters(value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero point of uint8 that DynamicQuantizeLinear chooses; no gradient passes."""
    with torch.no_grad():
        low = torch.clamp(value.min(), max=0.0)
        high = torch.clamp(value.max(), min=0.0)
        scale = (high - low) / 255
        scale = torch.where(scale == 0, torch.ones_like(scale), scale)
        zero_point = torch.round(torch.clamp(0.0 - low / scale, 0, 255))
    return scale, zero_point


def _dynamic_quantize(_call: Call, inputs: Inputs) -> Outputs:
    (value,) = inputs
    scale, zero_point = dynamic_parameters(value)
    shift = float(zero_point)
    steps = (value / scale).clamp(0 - shift, 255 - shift)
    return round_through(steps) + shift, scale, zero_point


def _matmul_integer(call: Call, inputs: Inputs) -> Outputs:
    a, b = (as_float(one).to(call.real) for one in inputs[:2] if one is not None)
    a_zero, b_zero = optional(inputs, 2), optional(inputs, 3)
    if a_zero is not None:
        a = a - _column(as_float(a_zero), a)
    if b_zero is not None:
        b = b - as_float(b_zero)
    return (a @ b,)


def _column(numbers: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """Zero points of the rows of the left matrix."""
    return numbers.reshape(()) if numbers.numel() == 1 else numbers.reshape(*a.shape[:-1], 1)


OPERATORS: Mapping[str, Operator] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic_quantize,
    "MatMulInteger": _matmul_integer,
}
