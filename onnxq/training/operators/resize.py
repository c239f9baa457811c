"""Resize: one axis after the other, by gathering neighbours and weighing them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from onnxq.training.operators.call import (
    Call,
    Inputs,
    Operator,
    Outputs,
    UnsupportedFormError,
    optional,
)
from onnxq.training.tensors import to_integers


def _resize(call: Call, inputs: Inputs) -> Outputs:
    value = inputs[0]
    _refuse(call)
    sizes, scales = _targets(call, inputs, value.shape)
    for axis, (size, scale) in enumerate(zip(sizes, scales, strict=True)):
        if size != value.shape[axis] or scale != 1.0:
            value = _resize_axis(call, value, axis, size, scale)
    return (value,)


def _refuse(call: Call) -> None:
    if call.integer("antialias", 0):
        raise UnsupportedFormError("Resize with antialias")
    if call.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise UnsupportedFormError("Resize with tf_crop_and_resize")
    if call.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnsupportedFormError("Resize that keeps the aspect ratio")


def _targets(call: Call, inputs: Inputs, shape: Sequence[int]) -> tuple[list[int], list[float]]:
    """The size of each axis, and the factor by which coordinates grow."""
    given_scales = optional(inputs, 1 if call.opset < 11 or call.operator == "Upsample" else 2)
    given_sizes = optional(inputs, 3)
    axes = call.integers("axes") or list(range(len(shape)))
    sizes, scales = list(shape), [1.0] * len(shape)
    if given_sizes is not None and given_sizes.numel():
        for axis, size in zip(axes, to_integers(given_sizes), strict=True):
            sizes[axis], scales[axis] = size, size / shape[axis]
    else:
        for axis, scale in zip(axes, given_scales.tolist(), strict=True):
            sizes[axis], scales[axis] = int(shape[axis] * scale), scale
    return sizes, scales


def _resize_axis(
    call: Call, value: torch.Tensor, axis: int, size: int, scale: float
) -> torch.Tensor:
    length = value.shape[axis]
    places = _coordinates(call, size, scale, length)
    mode = call.text("mode", "nearest")
    if mode == "nearest":
        chosen = _round(call, places).clamp(0, length - 1)
        return value.index_select(axis, chosen.to(torch.int64).to(value.device))
    first, weights = _weigh(call, places, length, cubic=mode == "cubic")
    result = torch.zeros(())
    sizes = [1] * value.dim()
    sizes[axis] = size
    for offset, weight in enumerate(weights):
        chosen = (first + offset).clamp(0, length - 1).to(value.device)
        share = weight.to(value.dtype).reshape(sizes).to(value.device)
        part = value.index_select(axis, chosen) * share
        result = part if offset == 0 else result + part
    return result


def _coordinates(call: Call, size: int, scale: float, length: int) -> torch.Tensor:
    """Where each output lies in the input, in its units; in float32, as onnxruntime does."""
    default = "asymmetric" if call.opset < 11 else "half_pixel"
    mode = call.text("coordinate_transformation_mode", default)
    x = torch.arange(size, dtype=torch.float32)
    if mode == "asymmetric":
        return x / scale
    if mode == "align_corners":
        return x * (length - 1) / (size - 1) if size > 1 else torch.zeros_like(x)
    if mode == "pytorch_half_pixel" and size == 1:
        return torch.zeros_like(x)
    if mode == "half_pixel_symmetric":
        adjustment = size / (scale * length)
        return length / 2 * (1 - adjustment) + (x + 0.5) / scale - 0.5
    return (x + 0.5) / scale - 0.5


def _round(call: Call, places: torch.Tensor) -> torch.Tensor:
    mode = call.text("nearest_mode", "floor" if call.opset < 11 else "round_prefer_floor")
    if mode == "floor":
        return places.floor()
    if mode == "ceil":
        return places.ceil()
    if mode == "round_prefer_ceil":
        return (places + 0.5).floor()
    return (places - 0.5).ceil()


def _weigh(
    call: Call, places: torch.Tensor, length: int, *, cubic: bool
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The first neighbour of each output, and the share of it and of those that follow."""
    if not cubic:
        places = places.clamp(0, length - 1)
        lower = places.floor()
        part = places - lower
        return lower.to(torch.int64), [1 - part, part]
    lower = places.floor()
    part = places - lower
    a = call.number("cubic_coeff_a", -0.75)

    def near(t: torch.Tensor) -> torch.Tensor:
        return ((a + 2) * t - (a + 3)) * t * t + 1

    def far(t: torch.Tensor) -> torch.Tensor:
        return ((a * t - 5 * a) * t + 8 * a) * t - 4 * a

    first = lower.to(torch.int64) - 1
    weights = [far(1 + part), near(part), near(1 - part), far(2 - part)]
    if call.integer("exclude_outside", 0):
        inside = [
            ((first + offset >= 0) & (first + offset < length)).to(part.dtype)
            for offset in range(4)
        ]
        weights = [weight * mask for weight, mask in zip(weights, inside, strict=True)]
        total = torch.stack(weights).sum(0)
        weights = [weight / total for weight in weights]
    return first, weights


OPERATORS: Mapping[str, Operator] = {"Resize": _resize, "Upsample": _resize}
