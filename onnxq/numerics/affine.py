"""The affine mapping between real numbers and integers that every mode rests on.

    real = scale * (quantized - zero_point)
    quantized = clip(round(real / scale) + zero_point, quantized_min, quantized_max)

as in Jacob et al. 2018 (arXiv:1712.05877, eq. 1) and the ONNX QuantizeLinear specification:
rounding is half to even, and the range is widened to contain 0 so that real 0 is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Parameters:
    """Scales (float32) and zero points (int32) of one tensor, in shapes that broadcast to it."""

    scale: FloatArray
    zero_point: npt.NDArray[np.int32]

    @property
    def has_zero_point(self) -> bool:
        """Whether any zero point differs from 0."""
        return bool(np.any(self.zero_point))


def choose_parameters(
    minimum: FloatArray,
    maximum: FloatArray,
    *,
    quantized_min: int,
    quantized_max: int,
    midpoint: int | None = None,
) -> Parameters:
    """Scales and zero points that cover [minimum, maximum].

    Args:
        minimum: smallest real values, any shape.
        maximum: largest real values, same shape.
        quantized_min: smallest integer in use.
        quantized_max: largest integer in use.
        midpoint: the zero point of a symmetric mapping; None for an asymmetric one.

    Returns:
        Parameters in the shape of ``minimum``. A range of width 0 gets scale 1.

    >>> p = choose_parameters(
    ...     np.float32([0]), np.float32([2.55]), quantized_min=0, quantized_max=255)
    >>> round(float(p.scale[0]), 4), int(p.zero_point[0])
    (0.01, 0)
    >>> p = choose_parameters(
    ...     np.float32([-1]), np.float32([0.5]), quantized_min=-127, quantized_max=127, midpoint=0)
    >>> round(float(p.scale[0]) * 127, 4), int(p.zero_point[0])
    (1.0, 0)
    """
    low = np.minimum(np.asarray(minimum, np.float64), 0.0)
    high = np.maximum(np.asarray(maximum, np.float64), 0.0)
    if midpoint is not None:
        steps_below, steps_above = midpoint - quantized_min, quantized_max - midpoint
        scale = np.maximum(-low / steps_below, high / steps_above)
    else:
        scale = (high - low) / (quantized_max - quantized_min)
    # A scale below the smallest normal float would flush to zero on hardware that does so.
    scale = np.where(scale < np.finfo(np.float32).tiny, 1.0, scale).astype(np.float32)
    # Rounded up, the scale of the largest floats would dequantize to infinity.
    largest = np.float64(np.finfo(np.float32).max) / (quantized_max - quantized_min)
    # In float64: numpy 1 would round a scalar to the type of the array first.
    scale = np.where(scale.astype(np.float64) > largest, np.nextafter(scale, np.float32(0)), scale)
    if midpoint is not None:
        zero_point = np.full(scale.shape, midpoint, np.int32)
    else:
        exact = quantized_min - low / scale.astype(np.float64)
        zero_point = np.clip(np.rint(exact), quantized_min, quantized_max).astype(np.int32)
    return Parameters(scale, zero_point)


def quantize(
    real: FloatArray, parameters: Parameters, *, quantized_min: int, quantized_max: int
) -> npt.NDArray[np.int32]:
    """Nearest integers of ``real``, ties to even, saturating, as QuantizeLinear does.

    >>> p = Parameters(np.float32(0.5), np.int32(0))
    >>> quantize(np.float32([0.25, 0.75, -9]), p, quantized_min=-8, quantized_max=7).tolist()
    [0, 2, -8]
    """
    steps = np.asarray(np.rint(real / parameters.scale))
    steps += parameters.zero_point
    return np.clip(steps, quantized_min, quantized_max, out=steps).astype(np.int32)


def dequantize(quantized: npt.NDArray[np.integer[Any]], parameters: Parameters) -> FloatArray:
    """Real values of integers: ``scale * (quantized - zero_point)``, in float32.

    >>> dequantize(np.int8([-2, 3]), Parameters(np.float32(0.5), np.int32(1))).tolist()
    [-1.5, 1.0]
    """
    shifted = (quantized.astype(np.int32) - parameters.zero_point).astype(np.float32)
    result: FloatArray = shifted * parameters.scale
    return result


def fit_inside(
    parameters: Parameters, low: float, high: float, *, quantized_min: int, quantized_max: int
) -> Parameters:
    """The largest scales, not above the given ones, with which no integer is outside [low, high].

    Runtimes leave out a Relu or Clip behind which every integer is inside its limits.

    Args:
        parameters: of any shape.
        low: at most 0; may be -infinity.
        high: at least 0; may be infinity.
        quantized_min: smallest integer in use.
        quantized_max: largest integer in use.

    >>> p = Parameters(np.float32(0.024), np.int32(0))
    >>> q = fit_inside(p, 0.0, 6.0, quantized_min=0, quantized_max=255)
    >>> bool(q.scale * np.float32(255) <= 6.0), round(float(q.scale), 5)
    (True, 0.02353)
    """
    best = parameters
    found = np.full(np.shape(parameters.scale), -1.0, np.float32)
    # A limit just beyond a zero point that was rounded up would cost most of the range: try the
    # neighbours, too, and take one that leaves a scale larger by half.
    for step in (0, -1, 1):
        zero_point = np.asarray(parameters.zero_point + np.int32(step), np.int32)
        zero_point = np.clip(zero_point, quantized_min, quantized_max)
        if low >= 0.0:
            zero_point = np.full(zero_point.shape, quantized_min, np.int32)
        if high <= 0.0:
            zero_point = np.full(zero_point.shape, quantized_max, np.int32)
        scale = np.asarray(parameters.scale, np.float32)
        scale = _shrink(scale, zero_point - quantized_min, low)
        scale = _shrink(scale, quantized_max - zero_point, high)
        better = scale > found * np.float32(1.5 if step else 1.0)
        found = np.where(better, scale, found).astype(np.float32)
        best = Parameters(found, np.where(better, zero_point, best.zero_point).astype(np.int32))
    return best


def _shrink(scale: Array, steps: Array, limit: float) -> Array:
    """The largest scale, not above the given one, with which so many steps stay within a limit."""
    if not np.isfinite(limit):
        return scale
    most = np.float32(abs(limit))
    count = np.maximum(steps, 1).astype(np.float32)
    largest = (most / count).astype(np.float32)
    # The product may round up past the limit.
    largest = np.where(largest * count > most, np.nextafter(largest, np.float32(0)), largest)
    result: Array = np.where((steps > 0) & (most > 0), np.minimum(scale, largest), scale)
    return np.maximum(result, np.finfo(np.float32).tiny).astype(np.float32)
