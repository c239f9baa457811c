"""Conv and ConvTranspose of one to three spatial axes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional

from onnxq.training.operators.call import Call, Inputs, Operator, Outputs, optional
from onnxq.training.operators.windows import read_windows

_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


def convolve(
    call: Call, value: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """A Conv with the attributes of ``call``."""
    windows = read_windows(call, value.shape[2:], weight.shape[2:])
    padding = windows.before
    if not windows.is_symmetric:
        value, padding = functional.pad(value, windows.flat), [0] * len(padding)
    result: torch.Tensor = _CONVOLUTIONS[weight.dim() - 2](
        value,
        weight,
        bias,
        windows.strides,
        padding,
        windows.dilations,
        call.integer("group", 1),
    )
    return result


def _conv(call: Call, inputs: Inputs) -> Outputs:
    return (convolve(call, inputs[0], inputs[1], optional(inputs, 2)),)


def _conv_transpose(call: Call, inputs: Inputs) -> Outputs:
    value, weight, bias = inputs[0], inputs[1], optional(inputs, 2)
    rank = weight.dim() - 2
    strides = call.integers("strides") or [1] * rank
    dilations = call.integers("dilations") or [1] * rank
    extra = call.integers("output_padding") or [0] * rank
    full = _TRANSPOSED[rank](
        value, weight, bias, strides, [0] * rank, extra, call.integer("group", 1), dilations
    )
    # Without padding torch gives everything; what ONNX pads is cut off.
    before, after = _crops(call, list(full.shape[2:]), list(value.shape[2:]), strides)
    for axis in range(rank):
        size = full.shape[2 + axis]
        full = full.narrow(2 + axis, before[axis], size - before[axis] - after[axis])
    return (full,)


def _crops(
    call: Call, full: list[int], sizes: list[int], strides: list[int]
) -> tuple[list[int], list[int]]:
    rank = len(full)
    pads = call.integers("pads") or [0] * (2 * rank)
    automatic, wanted = call.text("auto_pad", "NOTSET"), call.integers("output_shape")
    if wanted is None and automatic in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [size * stride for size, stride in zip(sizes, strides, strict=True)]
    if wanted is None:
        return pads[:rank], pads[rank:]
    totals = [have - want for have, want in zip(full, wanted[-rank:], strict=True)]
    smaller = [total // 2 for total in totals]
    larger = [total - half for total, half in zip(totals, smaller, strict=True)]
    return (smaller, larger) if automatic == "SAME_UPPER" else (larger, smaller)


OPERATORS: Mapping[str, Operator] = {"Conv": _conv, "ConvTranspose": _conv_transpose}
