"""Quantized layers as the kernels of onnxruntime compute them on the CPU, integer by integer.

Such a kernel sums integers, which is exact, and rounds in float32 where it scales the sum. So does
a step made here: it gets real values, divides them by their scale, which gives back the integers
that they stand for, and computes with those. Everything is held in float64, where sums of integers
are exact up to 2^53.

The formulas are those of x86-64 processors with AVX2. Others differ in the one of Add.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import zip_longest

import torch

from onnxq.training.operators.call import Call, Inputs, Outputs, optional
from onnxq.training.operators.convolution import convolve
from onnxq.training.operators.quantization import spread
from onnxq.training.tensors import as_float


def _single(number: torch.Tensor) -> torch.Tensor:
    """In float32, as the file has it."""
    return as_float(number).to(torch.float32)


def _integers(value: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """What real values stand for, less the zero point."""
    return torch.round(value.double() / scale.double().reshape(()))


def _round(call: Call, steps: torch.Tensor, shift: float) -> torch.Tensor:
    """The nearest integers in the range of the result, less its zero point."""
    low, high = call.attributes["limits"]
    return torch.round(steps.double()).clamp(low - shift, high - shift)


def quantize(call: Call, inputs: Inputs) -> Outputs:
    """A QuantizeLinear that ends no layer."""
    value, scale, zero_point = _single(inputs[0]), _single(inputs[1]), optional(inputs, 2)
    steps = torch.round((value / spread(scale, call, value)).double())
    if zero_point is not None:
        steps = steps + spread(as_float(zero_point).double(), call, value)
    return (steps.clamp(*call.attributes["limits"]),)


def quantize_pair(call: Call, inputs: Inputs) -> Outputs:
    """The same and its DequantizeLinear."""
    value, scale, zero_point = inputs[0], inputs[1].reshape(()), optional(inputs, 2)
    shift = 0.0 if zero_point is None else float(zero_point)
    return (_round(call, _single(value) / _single(scale), shift) * scale.double(),)


def _requantize(call: Call, sums: torch.Tensor, factor: torch.Tensor, ending: Inputs) -> Outputs:
    """Sums of integers times a factor of float32, as real values; without ending not rounded."""
    scaled = sums.to(torch.float32) * factor
    if not ending:
        return (scaled.double(),)
    scale, zero_point = ending
    return (_round(call, scaled, float(zero_point)) * scale.double().reshape(()),)


def convolve_integers(call: Call, inputs: Inputs) -> Outputs:
    """QLinearConv; for the inputs see ``_multiply``."""

    def convolve_plainly(value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return convolve(call, value, weight, None)

    rank = inputs[0].dim()
    return _multiply(call, inputs, convolve_plainly, (0, rank), (1, rank))


def gemm_integers(call: Call, inputs: Inputs) -> Outputs:
    """QGemm; for the inputs see ``_multiply``."""
    left, right = bool(call.integer("transA", 0)), bool(call.integer("transB", 0))

    def multiply(value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return (value.t() if left else value) @ (weight.t() if right else weight)

    return _multiply(call, inputs, multiply, (0 if right else 1, 2), (1, 2))


def matmul_integers(call: Call, inputs: Inputs) -> Outputs:
    """QLinearMatMul or MatMulIntegerToFloat; for the inputs see ``_multiply``."""
    return _multiply(call, inputs, torch.matmul, (1, 2), (0, 1))


def _multiply(
    call: Call,
    inputs: Inputs,
    product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    channels: tuple[int, int],
    spread_over: tuple[int, int],
) -> Outputs:
    """A layer of one product.

    Args:
        call: with its attributes.
        inputs: real value and scale; weight, scale and zero point; bias; scale and zero point of
            the result, if it is rounded. A weight without zero point is a real value, too.
        product: of the integers.
        channels: axis of the weight that has the channels, and how many it has.
        spread_over: the same of the result, of which axes before may be left out.
    """
    value, scale, weight, weight_scale, weight_zero, bias = inputs[:6]
    if weight_zero is None:
        integers = _integers(weight, weight_scale)
    else:
        integers = as_float(weight).double() - _along(as_float(weight_zero).double(), channels)
    sums = product(_integers(value, scale), integers)
    factor = _single(scale).reshape(()) * _single(weight_scale)
    if bias is not None:
        if bias.is_floating_point():
            # The optimiser does that where a layer is quantized, but for its bias.
            bias = torch.round((_single(bias) / factor).double())
        sums = sums + _along(bias.double(), spread_over)
    ending = inputs[6:]
    if ending:
        factor = factor / _single(ending[0]).reshape(())
    return _requantize(call, sums, _along(factor, spread_over), ending)


def _along(numbers: torch.Tensor, axis: tuple[int, int]) -> torch.Tensor:
    """One number a channel in a shape that broadcasts; a single one for all."""
    if numbers.numel() == 1:
        return numbers.reshape(())
    return numbers.reshape([-1 if at == axis[0] else 1 for at in range(axis[1])])


def add_integers(call: Call, inputs: Inputs) -> Outputs:
    """QLinearAdd: fused products and additions of float32, each rounded once.

    Their exact values fit float64. The zero points are in what is rounded to an integer.

    Args:
        call: with the limits of the result.
        inputs: value, scale and zero point of both terms; scale and zero point of the result.
    """
    if _is_repeated(inputs[0].shape, inputs[3].shape):
        inputs = (*inputs[3:6], *inputs[:3], *inputs[6:])
    a, a_scale, a_zero, b, b_scale, b_zero, scale, zero_point = inputs
    end = _single(scale).reshape(())
    a_factor, b_factor = (_single(one).reshape(()) / end for one in (a_scale, b_scale))
    zeros = (as_float(one).double().reshape(()) for one in (a_zero, b_zero, zero_point))
    a_shift, b_shift, shift = zeros
    shifts = _fuse(a_shift, a_factor, b_shift.float() * b_factor)
    sums = _fuse(_integers(b, b_scale) + b_shift, b_factor, shift.float() - shifts)
    sums = _fuse(_integers(a, a_scale) + a_shift, a_factor, sums)
    integers = torch.round(sums.double()).clamp(*call.attributes["limits"])
    return ((integers - shift) * scale.double().reshape(()),)


def _is_repeated(first: Sequence[int], second: Sequence[int]) -> bool:
    """Whether one number of the first tensor meets a row of the second; they change places then."""
    for one, other in zip_longest(reversed(first), reversed(second), fillvalue=1):
        if max(one, other) > 1:
            return one == 1
    return False


def _fuse(integers: torch.Tensor, factor: torch.Tensor, term: torch.Tensor) -> torch.Tensor:
    return (integers * factor.double() + term.double()).to(torch.float32)


def multiply_integers(call: Call, inputs: Inputs) -> Outputs:
    """QLinearMul: as in a sum the zero point is in what is rounded, but nothing is fused.

    Args:
        call: with the limits of the result.
        inputs: value, scale and zero point of both factors; scale and zero point of the result.
    """
    a, a_scale, _, b, b_scale, _, scale, zero_point = inputs
    factor = _single(a_scale).reshape(()) * _single(b_scale).reshape(())
    product = (_integers(a, a_scale) * _integers(b, b_scale)).to(torch.float32)
    shift = _single(zero_point).reshape(())
    steps = product * (factor / _single(scale).reshape(())) + shift
    integers = torch.round(steps.double()).clamp(*call.attributes["limits"])
    return ((integers - shift.double()) * scale.double().reshape(()),)


def average_integers(call: Call, inputs: Inputs) -> Outputs:
    """QLinearGlobalAveragePool of a value and its scale."""
    value, scale = inputs[:2]
    axes = tuple(range(2, value.dim()))
    sums = _integers(value, scale).sum(axes, keepdim=True)
    count = _single(torch.tensor(math.prod(value.shape[2:])))
    end = _single(inputs[2]).reshape(())
    return _requantize(call, sums, _single(scale).reshape(()) / (end * count), inputs[2:])
