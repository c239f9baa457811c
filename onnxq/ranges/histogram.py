"""Counts of values by the upper 16 bits of their float32, which is their bfloat16 prefix.

The bins are fixed and their width is 2^-8 to 2^-7 of the value, so that neither a range that grows
from sample to sample nor an outlier costs resolution, and histograms add up exactly.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from onnxq.numerics.affine import Array

Counts = npt.NDArray[np.integer[Any]]
Float64Array = npt.NDArray[np.float64]

PREFIXES = 1 << 16
SIGN = 1 << 15
INFINITY = 0x7F80
"""Prefix of +infinity; of that sign, all above it are NaN."""

QUIET_NAN = 0x7FC0
"""Prefix under which every NaN is counted, so that equal counts are equal bins."""

STRETCH_VALUES = 1 << 17
"""Values counted in one go: enough to pay for going over all bins, few enough for the cache."""

PENDING_VALUES = 1 << 16
"""Values that wait before they are counted, because counting costs the same for a few."""


class Bins(NamedTuple):
    """Bins in ascending order, as arrays of the same length.

    Attributes:
        lower: smallest value that belongs into each bin.
        upper: largest value of each bin, or the limit that its values stay below.
        counts: how many values (or which share of a count) are in each.
    """

    lower: Float64Array
    upper: Float64Array
    counts: Float64Array

    @property
    def total(self) -> float:
        """Number of values in all bins."""
        return float(self.counts.sum())

    @property
    def inner(self) -> Float64Array:
        """Magnitude of the edge nearest to 0 of each bin."""
        return np.minimum(np.abs(self.lower), np.abs(self.upper))

    @property
    def outer(self) -> Float64Array:
        """Magnitude of the edge farthest from 0 of each bin."""
        return np.maximum(np.abs(self.lower), np.abs(self.upper))

    def select(self, wanted: npt.NDArray[np.bool_] | slice) -> Bins:
        """The bins that a mask or a slice picks."""
        return Bins(self.lower[wanted], self.upper[wanted], self.counts[wanted])


class Histogram:
    """Counts of float32 values; adding is exact, so the order and the split do not matter.

    Takes 256 KiB once anything was counted (512 KiB beyond 2^32 values).

    >>> histogram = Histogram()
    >>> histogram.add(np.float32([-0.0, 0.0, 1.0, np.nan, -np.inf]))
    >>> bins = histogram.finite_bins()
    >>> bins.lower.tolist(), bins.upper.tolist(), bins.counts.tolist()
    ([0.0, 1.0], [0.0, 1.0078125], [2.0, 1.0])
    >>> histogram.total, histogram.nan_count, histogram.negative_infinite_count
    (5, 1, 1)
    """

    def __init__(self) -> None:
        self._counts: Counts = np.zeros(PREFIXES, np.uint32)
        self._pending: list[npt.NDArray[np.float32]] = []
        self._pending_values = 0
        self._total = 0

    def add(self, values: Array) -> None:
        """Count every element of ``values``.

        Args:
            values: any shape, layout and byte order; what is not float32 is converted to it.
        """
        values = np.asarray(values)
        self._total += values.size
        with np.errstate(over="ignore", under="ignore"):
            # Little endian whatever the machine, so that the upper half is always the second one.
            if values.size >= PENDING_VALUES:
                self._count(np.ascontiguousarray(values, dtype="<f4").reshape(-1))
                return
            # A copy: the caller may reuse the memory before it is counted.
            self._pending.append(np.array(values, dtype="<f4", order="C").reshape(-1))
        self._pending_values += values.size
        if self._pending_values >= PENDING_VALUES:
            self._flush()

    def merge(self, other: Histogram) -> None:
        """Count all that ``other`` has counted, as if it had been added here."""
        counts = other._flushed()
        self._total += other._total
        self._add_counts(counts)

    @property
    def total(self) -> int:
        """Number of values added, of any kind."""
        return self._total

    @property
    def nan_count(self) -> int:
        """Number of values that are not a number."""
        return int(self._flushed()[QUIET_NAN])

    @property
    def positive_infinite_count(self) -> int:
        """Number of values that are +infinity."""
        return int(self._flushed()[INFINITY])

    @property
    def negative_infinite_count(self) -> int:
        """Number of values that are -infinity."""
        return int(self._flushed()[SIGN + INFINITY])

    def finite_bins(self) -> Bins:
        """The bins of finite numbers that hold any, in ascending order.

        Returns:
            Bins whose values lie in [lower, upper) where positive, (lower, upper] where negative.
            +0 and -0 (and what is below 1e-40) are one bin at exactly 0.
        """
        counts = self._flushed()
        below = np.flatnonzero(counts[SIGN + 1 : SIGN + INFINITY])[::-1] + 1
        above = np.flatnonzero(counts[1:INFINITY]) + 1
        zeros = int(counts[0]) + int(counts[SIGN])
        at_zero = np.zeros(1 if zeros else 0)
        return Bins(
            np.concatenate([-_magnitude(below + 1), at_zero, _magnitude(above)]),
            np.concatenate([-_magnitude(below), at_zero, _magnitude(above + 1)]),
            np.concatenate(
                [counts[SIGN + below], at_zero + zeros, counts[above]], dtype=np.float64
            ),
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        return bool(np.array_equal(self._flushed(), other._flushed()))

    __hash__ = None  # type: ignore[assignment]

    def _flushed(self) -> Counts:
        self._flush()
        return self._counts

    def _flush(self) -> None:
        if self._pending:
            self._count(np.concatenate(self._pending))
            self._pending, self._pending_values = [], 0

    def _count(self, flat: npt.NDArray[np.float32]) -> None:
        for start in range(0, flat.size, STRETCH_VALUES):
            stretch = flat[start : start + STRETCH_VALUES]
            counts = _count_prefixes(stretch)
            if counts[INFINITY] or counts[SIGN + INFINITY]:
                # The prefix of a NaN whose payload is all in its lower half is that of infinity.
                counts = _count_prefixes(np.where(np.isnan(stretch), np.float32(np.nan), stretch))
            self._add_counts(counts)

    def _add_counts(self, counts: Counts) -> None:
        if self._total > np.iinfo(np.uint32).max and self._counts.dtype == np.uint32:
            self._counts = self._counts.astype(np.int64)
        np.add(self._counts, counts, out=self._counts, casting="unsafe")


def _count_prefixes(flat: npt.NDArray[np.float32]) -> Counts:
    prefixes = flat.astype("<f4", copy=False).view("<u2")[1::2]
    counts = np.bincount(prefixes, minlength=PREFIXES)
    nan = [counts[INFINITY + 1 : SIGN], counts[SIGN + INFINITY + 1 :]]
    found = sum(int(part.sum()) for part in nan)
    for part in nan:
        part[:] = 0
    counts[QUIET_NAN] = found
    return counts


def _magnitude(prefixes: npt.NDArray[np.integer[Any]]) -> Float64Array:
    """Smallest magnitude of each prefix; the one after the last finite number is clamped."""
    bits = prefixes.astype(np.uint32) << np.uint32(16)
    magnitudes: Float64Array = bits.view(np.float32).astype(np.float64)
    return np.minimum(magnitudes, float(np.finfo(np.float32).max))
