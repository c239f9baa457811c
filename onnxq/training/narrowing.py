"""Weights of fewer than 4 bits: fewer levels of the 4-bit type."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import torch

from onnxq.graph.constants import constant_tensor
from onnxq.training.tensors import to_torch
from onnxq.training.weights import WeightUse, iterate_weights
from onnxq.training.writing import replace_constant

CLIPPING = tuple(np.linspace(0.2, 1.0, 33).tolist())
"""Shares of the largest weight that the largest integer may stand for."""


def limits_of(bits: int) -> tuple[int, int]:
    """Smallest and largest integer.

    >>> limits_of(3)
    (-4, 3)
    """
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def narrow_weights(model: ir.Model, bits: int, masters: Mapping[str, torch.Tensor]) -> int:
    """Round the 4-bit weights of a model to fewer bits, with new scales; returns how many.

    Args:
        model: quantized; its integers and scales are replaced.
        bits: 3 or 2.
        masters: real weights by the name of their integers; the others are those of the model.
    """
    count = 0
    for use in list(iterate_weights(model)):
        tensor = constant_tensor(use.elements)
        if tensor is None or tensor.dtype is not ir.DataType.INT4 or use.scale is None:
            continue
        scale = constant_tensor(use.scale)
        if scale is None:
            continue
        _narrow(use, bits, to_torch(scale.numpy()), masters.get(use.elements.name or ""))
        count += 1
    return count


def _narrow(use: WeightUse, bits: int, scale: torch.Tensor, master: torch.Tensor | None) -> None:
    tensor = constant_tensor(use.elements)
    assert tensor is not None and use.scale is not None
    axes = use.axes or (1,) * len(tensor.shape)
    real = master
    if real is None:
        real = to_torch(tensor.numpy()).to(torch.float32) * scale.reshape(axes)
    others = tuple(axis for axis, size in enumerate(axes) if size == 1)
    chosen = choose_scale(real, bits, others)
    low, high = limits_of(bits)
    integers = torch.round(real / chosen).clamp(low, high)
    replace_constant(use.elements, integers)
    replace_constant(use.scale, chosen.reshape(scale.shape))


def choose_scale(real: torch.Tensor, bits: int, axes: tuple[int, ...]) -> torch.Tensor:
    """Scales with the least squared error of rounding and clipping.

    Args:
        real: weights.
        bits: of an integer.
        axes: that share a scale; they have length 1 in the result.
    """
    low, high = limits_of(bits)
    largest = real.abs().amax(axes, keepdim=True)
    largest = torch.where(largest > 0, largest, torch.ones_like(largest))
    best = largest / -low
    least = torch.full_like(best, torch.inf)
    for share in CLIPPING:
        scale = largest * share / -low
        rounded = torch.round(real / scale).clamp(low, high) * scale
        error = (rounded - real).square().sum(axes, keepdim=True)
        better = error < least
        best, least = torch.where(better, scale, best), torch.where(better, error, least)
    return best
