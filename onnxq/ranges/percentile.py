"""The range between two percentiles of the values."""

from __future__ import annotations

import numpy as np

from onnxq.errors import UsageError
from onnxq.ranges.grid import Grid
from onnxq.ranges.histogram import Bins
from onnxq.ranges.observation import Observation

DEFAULT_PERCENTILE = 99.99


def check_percentile(percentile: float) -> None:
    """Refuse what is no upper percentile.

    Raises:
        UsageError: the percentile is not in (50, 100].
    """
    if not 50 < percentile <= 100:
        raise UsageError(
            f"--percentile {percentile:g}: give a number above 50 and at most 100, as 99.99"
        )


def choose_range(
    observation: Observation,
    grid: Grid,  # noqa: ARG001
    *,
    percentile: float = DEFAULT_PERCENTILE,
) -> tuple[float, float]:
    """Cut both tails; far outliers do not count as part of them.

    Args:
        observation: values of the tensor; without a histogram its extremes are the range.
        grid: not used; the same call as for every other method.
        percentile: percent of the values below the upper end, and above the lower end. The side of
            a tensor without values of that sign ends at 0.

    Returns:
        (low, high) with low <= 0 <= high, never beyond the extremes of the tensor.

    Raises:
        UsageError: the percentile is not in (50, 100].

    >>> observation = Observation()
    >>> observation.add(np.arange(1, 65, dtype=np.float32))
    >>> grid = Grid(quantized_min=0, quantized_max=255, symmetric=False)
    >>> choose_range(observation, grid, percentile=75)
    (0.0, 48.25)
    """
    check_percentile(percentile)
    extent = observation.extent(keep_outliers=False)
    if not extent.bins.counts.size:
        return extent.low, extent.high
    low = _value_at(extent.bins, 1 - percentile / 100)
    high = _value_at(extent.bins, percentile / 100)
    return min(max(low, extent.low), 0.0), max(min(high, extent.high), 0.0)


def _value_at(bins: Bins, share: float) -> float:
    """The value with ``share`` of all values below it; linear inside a bin."""
    below = np.cumsum(bins.counts)
    wanted = share * below[-1]
    index = min(int(np.searchsorted(below, wanted)), below.size - 1)
    inside = 1 - (below[index] - wanted) / bins.counts[index]
    return float(bins.lower[index] + inside * (bins.upper[index] - bins.lower[index]))
