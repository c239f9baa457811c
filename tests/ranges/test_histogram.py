from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.ranges import Histogram, histogram
from tests.ranges.observing import BIN, Floats, every_float32

SMALLEST_PREFIX = 2.0**-133
"""Smallest number above 0 of which the upper 16 bits are not all 0."""


def _count(*parts: Floats) -> Histogram:
    result = Histogram()
    for part in parts:
        result.add(part)
    return result


def _merge(*parts: Histogram) -> Histogram:
    result = Histogram()
    for part in parts:
        result.merge(part)
    return result


@settings(deadline=None)
@given(values=every_float32, cut=st.integers(0, 60))
def test_merging_a_split_equals_adding_all_at_once(values: Floats, cut: int) -> None:
    whole, first, second = _count(values), _count(values[:cut]), _count(values[cut:])
    assert _merge(first, second) == whole
    assert _merge(second, first) == whole
    assert _count(values[:cut], values[cut:]) == whole


@settings(deadline=None, max_examples=30)
@given(a=every_float32, b=every_float32, c=every_float32)
def test_merging_is_associative(a: Floats, b: Floats, c: Floats) -> None:
    left = _merge(_merge(_count(a), _count(b)), _count(c))
    right = _merge(_count(a), _merge(_count(b), _count(c)))
    assert left == right
    assert left.total == right.total == a.size + b.size + c.size


@settings(deadline=None)
@given(values=every_float32)
def test_every_value_is_in_one_place(values: Floats) -> None:
    counted = _count(values)
    bins = counted.finite_bins()
    infinite = counted.positive_infinite_count + counted.negative_infinite_count
    assert counted.nan_count == np.count_nonzero(np.isnan(values))
    assert infinite == np.count_nonzero(np.isinf(values))
    assert bins.total + infinite + counted.nan_count == counted.total == values.size
    for value in values[np.isfinite(values)].astype(np.float64):
        small = 0.0 if abs(value) < SMALLEST_PREFIX else value
        assert np.count_nonzero((bins.lower <= small) & (small <= bins.upper)) >= 1


@settings(deadline=None)
@given(values=every_float32)
def test_bins_ascend_and_are_narrow(values: Floats) -> None:
    bins = _count(values).finite_bins()
    assert np.all(bins.lower <= bins.upper)
    assert np.all(bins.upper[:-1] <= bins.lower[1:])
    assert np.all(bins.counts > 0)
    normal = bins.inner >= np.finfo(np.float32).tiny
    assert np.all((bins.upper - bins.lower)[normal] <= BIN * bins.inner[normal])


def test_zeros_of_both_signs_are_one_bin() -> None:
    bins = _count(np.float32([0.0, -0.0, 1e-45, -1e-45])).finite_bins()
    assert (bins.lower.tolist(), bins.upper.tolist(), bins.counts.tolist()) == ([0], [0], [4])


def test_the_largest_floats_have_a_finite_bin() -> None:
    largest = float(np.finfo(np.float32).max)
    bins = _count(np.float32([largest, -largest])).finite_bins()
    assert bins.upper[-1] == largest
    assert bins.lower[0] == -largest


def test_a_nan_with_a_short_payload_is_no_infinity() -> None:
    signalling = np.array([0x7F800001, 0xFF800001, 0x7F800000], np.uint32).view(np.float32)
    counted = _count(signalling)
    assert counted.nan_count == 2
    assert (counted.positive_infinite_count, counted.negative_infinite_count) == (1, 0)


def test_every_nan_is_the_same() -> None:
    """One that is counted beside an infinity, and one that is not, with any payload or sign."""
    patterns = np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF], np.uint32)
    several = [_count(one) for one in patterns.view(np.float32)[:, None]]
    assert all(one == several[0] for one in several)
    infinity = np.float32([np.inf])
    for nan in patterns.view(np.float32)[:, None]:
        assert _count(np.append(infinity, nan)) == _merge(_count(infinity), _count(nan))


LAYOUTS = {
    "big_endian": lambda values: values.astype(">f4"),
    "strided": lambda values: np.repeat(values, 3)[::3],
    "reversed": lambda values: values[::-1],
    "transposed": lambda values: values.reshape(2, -1).T,
    "float64": lambda values: values.astype(np.float64),
    "read_only": lambda values: np.frombuffer(values.tobytes(), np.float32),
}


@pytest.mark.parametrize("size", [1000, 300_000])
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_layout_does_not_matter(layout: str, size: int, rng: np.random.Generator) -> None:
    values = rng.standard_normal(size).astype(np.float32)
    assert _count(LAYOUTS[layout](values)) == _count(values)


def test_half_precision_is_converted() -> None:
    values = np.array([1.5, np.inf, -0.25], np.float16)
    assert _count(values) == _count(values.astype(np.float32))


@pytest.mark.parametrize("size", [10, histogram.PENDING_VALUES, histogram.STRETCH_VALUES + 7])
def test_the_memory_of_the_caller_may_change(size: int) -> None:
    values = np.ones(size, np.float32)
    counted = _count(values)
    values[:] = 7
    assert counted == _count(np.ones(size, np.float32))


def test_many_small_parts_are_counted(rng: np.random.Generator) -> None:
    values = rng.standard_normal(3 * histogram.PENDING_VALUES).astype(np.float32)
    assert _count(*np.array_split(values, 97)) == _count(values)


def test_counts_beyond_32_bits() -> None:
    """Doubling 1024 ones 23 times gives more than 2^32 of them."""
    counted = _count(np.ones(1024, np.float32))
    for _ in range(23):
        counted.merge(counted)
    counted.add(np.float32([1]))
    assert counted.total == 2**33 + 1
    assert counted.finite_bins().counts.tolist() == [2**33 + 1]
    assert _merge(counted) == counted


def test_an_empty_histogram() -> None:
    empty = Histogram()
    empty.add(np.empty((0, 3), np.float32))
    assert empty == Histogram()
    assert empty.total == 0
    assert empty.finite_bins().counts.size == 0


def test_different_counts_are_not_equal() -> None:
    assert _count(np.float32([1])) != _count(np.float32([2]))
    assert _count(np.float32([1])) != 1


def test_an_outlier_costs_no_resolution() -> None:
    values: npt.NDArray[np.float32] = np.float32([1.0, 1.0 + BIN, 1e38])
    assert _count(values).finite_bins().counts.tolist() == [1, 1, 1]
    assert math.isclose(_count(values).finite_bins().upper[-1], 1e38, rel_tol=BIN)
