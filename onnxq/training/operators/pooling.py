"""Poolings."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch.nn import functional

from onnxq.training.operators.call import (
    Call,
    Inputs,
    Operator,
    Outputs,
    UnsupportedFormError,
)
from onnxq.training.operators.windows import Windows, read_windows

_MAXIMA = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_SUMS = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


def _windows(call: Call, value: torch.Tensor, kernel: list[int]) -> tuple[Windows, list[int]]:
    """Windows, and what more has to be padded behind where the number of windows is rounded up."""
    windows = read_windows(call, value.shape[2:], kernel)
    extra = [0] * len(kernel)
    if call.integer("ceil_mode", 0):
        for axis, width in enumerate(kernel):
            reach = windows.dilations[axis] * (width - 1) + 1
            size = value.shape[2 + axis] + windows.before[axis] + windows.after[axis]
            count = math.ceil((size - reach) / windows.strides[axis]) + 1
            # A window that would start in the padding behind is left out.
            if (count - 1) * windows.strides[axis] >= value.shape[2 + axis] + windows.before[axis]:
                count -= 1
            extra[axis] = max(0, (count - 1) * windows.strides[axis] + reach - size)
    return windows, extra


def _pad(value: torch.Tensor, windows: Windows, extra: list[int], filler: float) -> torch.Tensor:
    after = [size + more for size, more in zip(windows.after, extra, strict=True)]
    flat = Windows(windows.strides, windows.dilations, windows.before, after).flat
    return functional.pad(value, flat, value=filler) if any(flat) else value


def _max_pool(call: Call, inputs: Inputs) -> Outputs:
    if call.outputs > 1:
        raise UnsupportedFormError("MaxPool with indices")
    (value,) = inputs
    kernel = call.integers("kernel_shape") or []
    windows, extra = _windows(call, value, kernel)
    lowest = -math.inf if value.is_floating_point() else 0
    padded = _pad(value, windows, extra, lowest)
    pool = _MAXIMA[len(kernel)]
    return (pool(padded, kernel, windows.strides, 0, windows.dilations),)


def _average_pool(call: Call, inputs: Inputs) -> Outputs:
    (value,) = inputs
    kernel = call.integers("kernel_shape") or []
    windows, extra = _windows(call, value, kernel)
    if any(dilation != 1 for dilation in windows.dilations):
        raise UnsupportedFormError("AveragePool with dilations")
    pool = _SUMS[len(kernel)]
    area = math.prod(kernel)
    sums = pool(_pad(value, windows, extra, 0.0), kernel, windows.strides) * area
    # What counts: the input, and its padding if asked for, but never what rounding up added.
    ones = torch.ones_like(value[:1, :1])
    if call.integer("count_include_pad", 0):
        ones = _pad(ones, windows, [0] * len(kernel), 1.0)
        counted = functional.pad(ones, [size for more in reversed(extra) for size in (0, more)])
    else:
        counted = _pad(ones, windows, extra, 0.0)
    counts = pool(counted, kernel, windows.strides) * area
    return (sums / counts,)


def _global_average(_call: Call, inputs: Inputs) -> Outputs:
    (value,) = inputs
    return (value.mean(tuple(range(2, value.dim())), keepdim=True),)


def _global_maximum(_call: Call, inputs: Inputs) -> Outputs:
    (value,) = inputs
    return (value.amax(tuple(range(2, value.dim())), keepdim=True),)


OPERATORS: Mapping[str, Operator] = {
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_maximum,
}
