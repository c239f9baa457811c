"""The range of least mean squared error: what rounding gains from clipping against what it costs.

As in Banner et al. 2019 (arXiv:1810.05723), but on the values that were seen instead of a
distribution fitted to them, and on the real grid instead of a formula for its error.
"""

from __future__ import annotations

import numpy as np

from onnxq.numerics.affine import Parameters, choose_parameters
from onnxq.numerics.metrics import sum_of_products
from onnxq.ranges.grid import Grid
from onnxq.ranges.histogram import Float64Array
from onnxq.ranges.observation import Extent, Observation

ROUNDS = 3
CELLS = 4096
"""Bins narrower than this part of the widest range are merged: it is a 16th of a step of 8 bits."""

POINTS_PER_BIN = 4
"""A bin of the histogram is up to two steps wide at the ends of the range."""

FACTORS: tuple[float, ...] = (
    *(k / 64 for k in range(64, 24, -1)),
    *(24 / 64 * 0.86**k for k in range(24)),
)
"""Parts of the widest range that are tried on a side. Even steps down to 3/8, then even ratios down
to 1/80. Clipping less than 1/64 of an even distribution gains nothing: the steps are no finer."""


class ErrorMeasure:
    """Mean squared error of a tensor on a grid, as a function of the range.

    Args:
        extent: what the tensor holds; some number that is not 0 at least.
        grid: the integers.
    """

    def __init__(self, extent: Extent, grid: Grid) -> None:
        self._grid = grid
        points, weights = _sample_points(extent)
        self._points = points.astype(np.float32)
        self._weights = (weights / max(extent.bins.total, 1.0)).astype(np.float32)
        self._steps = np.empty_like(self._points)
        self._error = np.empty_like(self._points)

    def measure(self, low: Float64Array, high: Float64Array) -> Float64Array:
        """Mean squared errors of the ranges [low, high], in the shape [ranges] of both.

        The scale and the zero point are those that `choose_parameters` takes for the range.
        """
        parameters = choose_parameters(
            low,
            high,
            quantized_min=self._grid.quantized_min,
            quantized_max=self._grid.quantized_max,
            midpoint=self._grid.midpoint,
        )
        pairs = zip(parameters.scale, parameters.zero_point, strict=True)
        return np.array([self._measure_one(Parameters(*pair)) for pair in pairs])

    def _measure_one(self, parameters: Parameters) -> float:
        steps, error = self._steps, self._error
        zero_point = int(parameters.zero_point)
        np.divide(self._points, parameters.scale, out=steps)
        np.rint(steps, out=error)
        np.maximum(error, np.float32(self._grid.quantized_min - zero_point), out=error)
        np.minimum(error, np.float32(self._grid.quantized_max - zero_point), out=error)
        np.subtract(error, steps, out=error)
        np.multiply(error, error, out=error)
        return sum_of_products(error, self._weights) * float(parameters.scale) ** 2


def choose_range(observation: Observation, grid: Grid) -> tuple[float, float]:
    """Shrink each side of the range, in turns, as far as that lowers the mean squared error.

    Far outliers are left out. The result is never worse than all the rest without clipping.

    Args:
        observation: values of the tensor; without a histogram its extremes are the range.
        grid: the integers. A symmetric grid has one factor for both sides.

    Returns:
        (low, high) with low <= 0 <= high, never beyond the extremes of the tensor.
    """
    extent = observation.extent(keep_outliers=False)
    low, high = extent.low, extent.high
    if low == high or not np.any(extent.bins.outer):
        return low, high
    measure = ErrorMeasure(extent, grid)
    factors = np.array(FACTORS)
    if grid.symmetric:
        largest = max(-low, high)
        lows, highs = np.maximum(low, -largest * factors), np.minimum(high, largest * factors)
        best = _best_of(measure, lows, highs)
        return float(lows[best]), float(highs[best])
    return _descend(measure, extent, factors)


def _descend(measure: ErrorMeasure, extent: Extent, factors: Float64Array) -> tuple[float, float]:
    low, high = extent.low, extent.high
    for _ in range(ROUNDS):
        before = low, high
        if extent.high > 0:
            highs = extent.high * factors
            high = float(highs[_best_of(measure, np.full(highs.shape, low), highs)])
        if extent.low < 0:
            lows = extent.low * factors
            low = float(lows[_best_of(measure, lows, np.full(lows.shape, high))])
        if (low, high) == before or 0.0 in (extent.low, extent.high):
            break
    return low, high


def _best_of(measure: ErrorMeasure, low: Float64Array, high: Float64Array) -> int:
    """Index of the range of least error; of equals the first, which is the widest."""
    return int(np.argmin(measure.measure(low, high)))


def _sample_points(extent: Extent) -> tuple[Float64Array, Float64Array]:
    """Values that stand for the histogram, and how many each stands for; zeros have no error."""
    bins = extent.bins.select((extent.bins.lower > 0) | (extent.bins.upper < 0))
    width = (extent.high - extent.low) / CELLS
    cell = np.floor(bins.lower / width)
    alone = bins.upper - bins.lower >= width
    starts_group = np.ones(cell.size, np.bool_)
    starts_group[1:] = (np.diff(cell) != 0) | alone[1:] | alone[:-1]
    starts = np.flatnonzero(starts_group)
    lower = bins.lower[starts]
    upper = bins.upper[np.append(starts[1:], cell.size) - 1]
    counts = np.add.reduceat(bins.counts, starts)
    inside = (np.arange(POINTS_PER_BIN)[:, None] + 0.5) / POINTS_PER_BIN
    # The outermost bins reach beyond the exact extremes.
    points = np.clip(lower + inside * (upper - lower), extent.low, extent.high)
    weights = np.broadcast_to(counts / POINTS_PER_BIN, points.shape)
    return points.ravel(), weights.ravel()
