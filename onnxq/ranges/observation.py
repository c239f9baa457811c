"""What is known of the values of one tensor after some samples."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from onnxq.numerics.affine import Array
from onnxq.ranges.histogram import Bins, Histogram
from onnxq.ranges.trimming import (
    FAR,
    SENTINEL,
    without_masks,
    without_outliers,
    without_sentinels,
)


@dataclass(frozen=True)
class Extent:
    """The part of an observation that a range is chosen from.

    Attributes:
        low: smallest value, or 0 if that is smaller.
        high: largest value, or 0 if that is larger.
        bins: the values; those of a subsample, or none.
    """

    low: float
    high: float
    bins: Bins


@dataclass
class Observation:
    """Extremes and distribution of a tensor; constant memory, mergeable, order does not matter.

    The histogram may be of a subsample, or empty if only extremes are known. Then nothing can be
    trimmed but infinities and what stands for them.

    Attributes:
        minimum: exact smallest value, infinities included; +inf if unknown.
        maximum: exact largest value, infinities included; -inf if unknown.
        histogram: distribution of the values.

    >>> observation = Observation()
    >>> observation.add(np.float32([0.5, 2.0, -np.inf, np.nan]))
    >>> observation.minimum, observation.maximum, observation.is_masked
    (-inf, 2.0, True)
    >>> extent = observation.extent()
    >>> extent.low, extent.high
    (0.0, 2.0)
    """

    minimum: float = math.inf
    maximum: float = -math.inf
    histogram: Histogram = field(default_factory=Histogram)

    def add(self, values: Array, *, stride: int = 1) -> None:
        """Add one sample.

        Args:
            values: float array of any shape; NaN is counted, and not part of the extremes.
            stride: count every stride-th element, in memory order of C. One that has a factor in
                common with the number of channels would see some of them only: a prime is best.
        """
        flat = np.asarray(values).reshape(-1)
        if not flat.size:
            return
        with np.errstate(invalid="ignore"):
            self.add_extremes(float(np.fmin.reduce(flat)), float(np.fmax.reduce(flat)))
        self.histogram.add(flat[::stride])

    def add_extremes(self, minimum: float, maximum: float) -> None:
        """Widen the exact extremes to one more sample's; NaN is ignored."""
        # In this order, because no comparison with NaN is true.
        self.minimum = min(self.minimum, minimum)
        self.maximum = max(self.maximum, maximum)

    def merge(self, other: Observation) -> None:
        """Add all that ``other`` has seen."""
        self.add_extremes(other.minimum, other.maximum)
        self.histogram.merge(other.histogram)

    @property
    def is_empty(self) -> bool:
        """Whether no number was seen (NaN is none)."""
        return self.minimum > self.maximum and self.histogram.total == self.histogram.nan_count

    @property
    def is_masked(self) -> bool:
        """Whether there is a mask: an infinity, what stands for one, or a far negative constant."""
        if self.minimum <= -SENTINEL or self.maximum >= SENTINEL:
            return True
        bins = self.histogram.finite_bins()
        return without_masks(without_sentinels(bins)).counts.size < bins.counts.size

    def extent(self, *, keep_outliers: bool = True) -> Extent:
        """What is left without masks, and without far outliers if asked for.

        Args:
            keep_outliers: whether single values far beyond all others stay.

        Returns:
            The exact extremes, but the outer edge of a bin on a side where something was dropped.
            (0, 0) if nothing is left.
        """
        everything = self.histogram.finite_bins()
        bins = without_masks(without_sentinels(everything))
        if not keep_outliers:
            # An outlier can hide a mask, and a mask an outlier.
            bins = without_outliers(without_masks(without_outliers(bins)))
        farthest = math.inf
        if not keep_outliers and np.any(bins.inner):
            # The histogram, of a subsample, may have missed an outlier.
            farthest = FAR * float(bins.inner.max())
        low, high = self.minimum, self.maximum
        if bins.counts.size:
            if bins.lower[0] != everything.lower[0] or not _is_usable(low, farthest):
                low = float(bins.lower[0])
            if bins.upper[-1] != everything.upper[-1] or not _is_usable(high, farthest):
                high = float(bins.upper[-1])
        # Without a histogram nothing is known of a side whose extreme is a sentinel.
        low = low if abs(low) < SENTINEL else 0.0
        high = high if abs(high) < SENTINEL else 0.0
        # Adding 0 makes +0 of -0.
        return Extent(min(low, 0.0) + 0.0, max(high, 0.0) + 0.0, bins)


def _is_usable(extreme: float, farthest: float) -> bool:
    return abs(extreme) < min(SENTINEL, farthest)
