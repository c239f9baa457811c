"""Weights of fewer than 4 bits: fewer levels of the 4-bit type."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import torch

from onnxq.graph.constants import constant_tensor
from onnxq.training.masters import dequantize
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
        real = masters.get(use.elements.name or "")
        real = dequantize(use) if real is None else real
        if real is None:
            continue
        _narrow(use, bits, real)
        count += 1
    return count


def _narrow(use: WeightUse, bits: int, real: torch.Tensor) -> None:
    assert use.scale is not None
    axes = use.axes or (1,) * real.dim()
    others = tuple(axis for axis, size in enumerate(axes) if size == 1)
    scale, zero_point = choose_grid(real, bits, others, symmetric=use.is_symmetric)
    low, high = limits_of(bits)
    integers = (torch.round(real / scale) + zero_point).clamp(low, high)
    replace_constant(use.elements, integers)
    if use.zero_point is not None and not use.is_symmetric:
        replace_constant(use.zero_point, zero_point)
    replace_constant(use.scale, scale)


def choose_grid(
    real: torch.Tensor, bits: int, axes: tuple[int, ...], *, symmetric: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and zero points with the least squared error of rounding and clipping.

    Args:
        real: weights.
        bits: of an integer.
        axes: that share a scale; they have length 1 in the result.
        symmetric: whether zero points have to be 0.
    """
    low, high = limits_of(bits)
    above, below = (one.amax(axes, keepdim=True).clamp_min(0.0) for one in (real, -real))
    scale, zero_point = torch.ones_like(above), torch.zeros_like(above)
    least = torch.full_like(above, torch.inf)
    for middle in (0,) if symmetric else sorted(range(low, high + 1), key=abs):
        # Half a step beyond the last integer is rounded to it.
        whole = torch.maximum(above / (high - middle + 0.5), below / (middle - low + 0.5))
        whole = torch.where(whole > 0, whole, torch.ones_like(whole))
        for share in CLIPPING:
            tried = whole * share
            rounded = torch.round(real / tried).clamp(low - middle, high - middle) * tried
            error = (rounded - real).square().sum(axes, keepdim=True)
            better = error < least
            scale, least = torch.where(better, tried, scale), torch.where(better, error, least)
            zero_point = torch.where(better, float(middle), zero_point)
    return scale, zero_point
