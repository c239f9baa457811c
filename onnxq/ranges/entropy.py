"""The range that keeps the distribution of the values: the search of TensorRT.

Migacz 2017, "8-bit inference with TensorRT" (GTC, session S7310): of all thresholds T on |x|, take
the one where the distribution clipped at T (P, with all that is beyond T in its last bin) is
nearest to itself after quantization (Q), by the Kullback-Leibler divergence.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnxq.ranges.grid import Grid
from onnxq.ranges.histogram import Bins, Float64Array
from onnxq.ranges.observation import Extent, Observation

BINS = 2048
FEWEST_BINS = 128
"""Both as in the paper."""

CANDIDATES_AT_ONCE = 64
"""Few enough that the arrays of a step stay in the cache."""


def choose_range(observation: Observation, grid: Grid) -> tuple[float, float]:
    """Clip |x| where the clipped and quantized distribution diverges least from the clipped one.

    Zeros are left out, because every grid holds them exactly. So are far outliers.

    Args:
        observation: values of the tensor; without a histogram its extremes are the range.
        grid: the integers; half of them count where the values, or the grid, have two signs.

    Returns:
        (low, high) with low <= 0 <= high, never beyond the extremes of the tensor.
    """
    extent = observation.extent(keep_outliers=False)
    largest = max(-extent.low, extent.high)
    if np.count_nonzero(extent.bins.outer) < 2 or largest == 0:
        # A constant, with or without zeros, has no tail.
        return extent.low, extent.high
    one_sided = not grid.symmetric and 0.0 in (extent.low, extent.high)
    levels = grid.levels if one_sided else grid.levels // 2
    divergences = measure_divergences(rebin_magnitudes(extent, largest), levels)
    # Of equals the widest.
    kept_bins = BINS - int(np.argmin(divergences[::-1]))
    threshold = largest * (kept_bins / BINS)
    return max(extent.low, -threshold), min(extent.high, threshold)


def rebin_magnitudes(extent: Extent, largest: float) -> Float64Array:
    """Counts of |x|, zeros left out, in `BINS` equal bins from 0 to ``largest``.

    A bin of the histogram that reaches over several of them is spread evenly.
    """
    bins = extent.bins
    edges = np.linspace(0.0, largest, BINS + 1)
    positive = bins.select(bins.lower > 0)
    negative = bins.select(bins.upper < 0)
    mirrored = Bins(-negative.upper[::-1], -negative.lower[::-1], negative.counts[::-1])
    return np.diff(_count_up_to(edges, positive) + _count_up_to(edges, mirrored))


def measure_divergences(counts: Float64Array, levels: int) -> Float64Array:
    """KL(P || Q) for each number of bins kept.

    Args:
        counts: shape [bins].
        levels: number of integers that the kept bins are quantized to.

    Returns:
        Divergences in nats, shape [bins]: the one at index i - 1 is of keeping i bins. It is
        infinite below `FEWEST_BINS` and below ``levels`` bins, where quantizing would not merge
        any, and where Q has nothing in the last bin but P has.

    >>> counts = np.ones(256)
    >>> round(float(measure_divergences(counts, 128)[-1]), 12)
    0.0
    """
    bins = counts.size
    first = min(max(FEWEST_BINS, levels), bins)
    kept = np.arange(first, bins + 1)
    result = np.full(bins, np.inf)
    for start in range(0, kept.size, CANDIDATES_AT_ONCE):
        part = kept[start : start + CANDIDATES_AT_ONCE]
        result[part - 1] = _measure_some(counts, part, levels)
    return result


def _measure_some(counts: Float64Array, kept: npt.NDArray[np.int64], levels: int) -> Float64Array:
    """KL divergences of the candidates ``kept``, shape [candidates].

    Q is the mean of its level, so sum(P log Q) needs one logarithm a level and all else is a
    difference of cumulative sums.
    """
    mass = np.concatenate([[0.0], np.cumsum(counts)])
    filled = np.concatenate([[0], np.cumsum(counts > 0)])
    logs = np.concatenate([[0.0], np.cumsum(_times_log(counts))])
    edges = np.arange(levels + 1) * kept[:, None] // levels
    level_mass = np.diff(mass[edges], axis=1)
    level_filled = np.diff(filled[edges], axis=1)
    clipped = mass[-1] - mass[kept]
    last = counts[kept - 1]
    # P has the clipped values in its last bin, which may have been empty.
    level_filled[:, -1] += (last == 0) & (clipped > 0)
    reference_mass = level_mass.copy()
    reference_mass[:, -1] += clipped
    with np.errstate(divide="ignore", invalid="ignore"):
        log_mean = np.log(level_mass / np.maximum(level_filled, 1))
        crossed = np.where(reference_mass > 0, reference_mass * log_mean, 0.0).sum(axis=1)
        own = logs[kept] - _times_log(last) + _times_log(last + clipped)
        total = mass[-1]
        # Both are normalized: P by all values, Q by those that it keeps.
        divergence = (own - crossed) / total - np.log(total) + np.log(mass[kept])
    return np.where(mass[kept] > 0, divergence, np.inf)


def _count_up_to(edges: Float64Array, bins: Bins) -> Float64Array:
    if not bins.counts.size:
        return np.zeros(edges.size)
    # Clipped to the exact largest magnitude: the outermost bin reaches beyond it.
    positions = np.minimum(np.column_stack([bins.lower, bins.upper]).ravel(), edges[-1])
    after = np.cumsum(bins.counts)
    counts = np.column_stack([after - bins.counts, after]).ravel()
    return np.interp(edges, positions, counts)


def _times_log(counts: Float64Array) -> Float64Array:
    logs: Float64Array = counts * np.log(np.where(counts > 0, counts, 1.0))
    return logs
