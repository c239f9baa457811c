"""Operators of com.microsoft that ``onnxq static`` writes."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from onnxq.training.fake_quantization import round_through
from onnxq.training.operators.call import Call, Inputs, Operator, Outputs, optional
from onnxq.training.operators.quantization import dynamic_parameters
from onnxq.training.tensors import as_float


def _real(
    value: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None
) -> torch.Tensor:
    """Integers of a matrix as what they stand for; several scales are those of columns."""
    number = as_float(value)
    if zero_point is not None:
        number = number - as_float(zero_point)
    return number * scale


def _fake_quantize_dynamic(value: torch.Tensor) -> torch.Tensor:
    scale, zero_point = dynamic_parameters(value)
    shift = float(zero_point)
    return round_through((value / scale).clamp(0 - shift, 255 - shift)) * scale


def _matmul_integer_to_float(_call: Call, inputs: Inputs) -> Outputs:
    a, b, a_scale, b_scale = inputs[:4]
    product = _real(a, a_scale, optional(inputs, 4)) @ _real(b, b_scale, optional(inputs, 5))
    bias = optional(inputs, 6)
    return (product if bias is None else product + bias,)


def _dynamic_quantize_matmul(_call: Call, inputs: Inputs) -> Outputs:
    a, b, b_scale = inputs[:3]
    product = _fake_quantize_dynamic(a) @ _real(b, b_scale, optional(inputs, 3))
    bias = optional(inputs, 4)
    return (product if bias is None else product + bias,)


def _q_gemm(call: Call, inputs: Inputs) -> Outputs:
    a, a_scale, a_zero, b, b_scale, b_zero = inputs[:6]
    bias, y_scale, y_zero = (optional(inputs, at) for at in (6, 7, 8))
    left = _real(a, a_scale, a_zero)
    right = as_float(b)
    if call.integer("transA", 0):
        left = left.t()
    if call.integer("transB", 0):
        right = right.t()
    product = left @ _real(right, b_scale, b_zero)
    if bias is not None:
        product = product + as_float(bias) * (a_scale * b_scale)
    product = product * call.number("alpha", 1.0)
    if y_scale is None:
        return (product,)
    low, high = call.attributes["limits"]
    shift = float(y_zero)
    return (round_through((product / y_scale).clamp(low - shift, high - shift)) + shift,)


MICROSOFT_OPERATORS: Mapping[str, Operator] = {
    "MatMulIntegerToFloat": _matmul_integer_to_float,
    "DynamicQuantizeMatMul": _dynamic_quantize_matmul,
    "QGemm": _q_gemm,
}
