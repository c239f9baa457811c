"""What is in a tensor but is not part of its range: mask sentinels and single far outliers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnxq.ranges.histogram import Bins

SENTINEL = 2.0**99
"""Magnitude (6e29) from which a number stands for infinity: 1e30 and the largest float32 are
common masks. A power of two, so that it is the edge of a bin."""

FAR = 100.0
"""How many times larger than all the rest a value is that does not belong to it."""

SMALLEST_MASK = 1e3
"""Magnitude from which a constant is large enough to be added to scores as a mask."""

MASK_BINS = 16
"""A mask added to scores 100 times smaller is 2 % wide, which is 6 bins; there may be two masks."""

OUTLIER_SHARE = 1e-4
"""Share of the values from which a far cluster is not an accident: it is a mask, or it is data."""


def without_sentinels(bins: Bins) -> Bins:
    """The bins of magnitudes below `SENTINEL`."""
    return bins.select(bins.outer <= SENTINEL)


def without_masks(bins: Bins) -> Bins:
    """Without a finite attention mask, if there is one.

    A mask is a cluster on the negative side, at least `FAR` times the largest magnitude of the
    rest, at least `SMALLEST_MASK`, a few bins wide, and `OUTLIER_SHARE` of the values or more. A
    tensor of nothing but zeros and a mask is left alone: there it is the data.

    >>> bins = Bins(*np.float64([[-1e4, -1, 0, 3], [-9990, -1, 0, 3], [500, 100, 20, 100]]))
    >>> without_masks(bins).lower.tolist()
    [-1.0, 0.0, 3.0]
    """
    widest = min(MASK_BINS, bins.counts.size - 1)
    if widest < 1 or bins.upper[0] > -SMALLEST_MASK:
        return bins
    # Largest magnitude of what stays when the first 1, 2, ... bins go.
    rest = np.maximum.accumulate(bins.inner[::-1])[::-1][1 : widest + 1]
    negative_and_large = bins.upper[:widest] <= -SMALLEST_MASK
    far = (rest > 0) & (bins.inner[:widest] >= FAR * rest)
    common = np.cumsum(bins.counts[:widest]) >= OUTLIER_SHARE * bins.total
    found = np.flatnonzero(negative_and_large & far & common)
    return bins.select(slice(int(found[-1]) + 1, None)) if found.size else bins


def without_outliers(bins: Bins) -> Bins:
    """Without the values, of either sign, that are rare and far from all others.

    They are an isolated cluster of less than `OUTLIER_SHARE` of the values, at least `FAR` times
    the largest magnitude of the rest. Being far from 0 alone does not count.

    >>> bins = Bins(*np.float64([[-1, 0, 2, 500], [-1, 0, 2, 502], [9e4, 5e4, 9e4, 1]]))
    >>> without_outliers(bins).upper.tolist()
    [-1.0, 0.0, 2.0]
    """
    order = np.argsort(bins.inner, kind="stable")
    inner = bins.inner[order]
    count_from = np.cumsum(bins.counts[order][::-1])[::-1][1:]
    rare = count_from < OUTLIER_SHARE * bins.total
    far = (inner[:-1] > 0) & (inner[1:] >= FAR * inner[:-1])
    found = np.flatnonzero(rare & far)
    if not found.size:
        return bins
    stays: npt.NDArray[np.bool_] = bins.inner < inner[found[0] + 1]
    return bins.select(stays)
