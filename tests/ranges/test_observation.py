from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.ranges import Observation
from tests.ranges.observing import BIN, Floats, every_float32, observe, ordinary_floats


@settings(deadline=None)
@given(values=every_float32, cut=st.integers(0, 60))
def test_merging_a_split_equals_adding_all_at_once(values: Floats, cut: int) -> None:
    whole, first, second = observe(values), observe(values[:cut]), observe(values[cut:])
    second_copy = observe(values[cut:])
    second.merge(first)
    first.merge(second_copy)
    assert first == second == whole


@settings(deadline=None)
@given(values=ordinary_floats)
def test_extremes_are_exact(values: Floats) -> None:
    observation = observe(values)
    assert (observation.minimum, observation.maximum) == (values.min(), values.max())


@settings(deadline=None)
@given(values=every_float32)
def test_the_extent_contains_0_and_is_finite(values: Floats) -> None:
    for keep_outliers in (True, False):
        extent = observe(values).extent(keep_outliers=keep_outliers)
        assert -math.inf < extent.low <= 0 <= extent.high < math.inf


def test_nothing_seen() -> None:
    assert Observation().is_empty
    assert observe(np.float32([np.nan])).is_empty
    assert not observe(np.float32([0])).is_empty
    assert not observe(np.float32([-np.inf])).is_empty
    extent = Observation().extent()
    assert (extent.low, extent.high, extent.bins.counts.size) == (0, 0, 0)


def test_nan_is_counted_and_not_in_the_range() -> None:
    observation = observe(np.float32([np.nan, -1, np.nan, 2]))
    assert observation.histogram.nan_count == 2
    assert (observation.minimum, observation.maximum) == (-1, 2)
    observation.add_extremes(math.nan, math.nan)
    assert (observation.extent().low, observation.extent().high) == (-1, 2)


def test_the_stride_thins_the_histogram_and_not_the_extremes() -> None:
    values = np.arange(100, dtype=np.float32)
    observation = observe(values, stride=7)
    assert observation.histogram.total == 15
    assert observation.maximum == 99


def test_extremes_alone_are_a_range() -> None:
    observation = Observation()
    observation.add_extremes(-3.0, 1.0)
    observation.add_extremes(-2.0, 5.0)
    extent = observation.extent()
    assert (extent.low, extent.high) == (-3, 5)
    assert not observation.is_empty


def test_extremes_alone_with_an_infinity_know_nothing_of_that_side() -> None:
    observation = Observation()
    observation.add_extremes(-math.inf, 5.0)
    extent = observation.extent()
    assert (extent.low, extent.high) == (0, 5)


MASKS = [-1e4, -65504.0, -1e9, -1e30, -3.4e38, -math.inf]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("keep_outliers", [True, False])
def test_a_mask_is_not_in_the_extent(
    mask: float, keep_outliers: bool, rng: np.random.Generator
) -> None:
    scores = rng.normal(0, 3, 4000).astype(np.float32)
    masked = np.where(rng.random(4000) < 0.3, np.float32(mask) + scores, scores)
    observation = observe(masked)
    extent = observation.extent(keep_outliers=keep_outliers)
    left = masked[masked > -100]
    assert observation.is_masked
    assert extent.high == left.max()
    assert left.min() * (1 + BIN) <= extent.low <= left.min()


def test_an_infinite_maximum_is_not_in_the_extent() -> None:
    observation = observe(np.float32([-1, 2, np.inf]))
    assert observation.is_masked
    assert observation.extent().high == pytest.approx(2, rel=BIN)


def test_only_masks_leave_nothing() -> None:
    extent = observe(np.float32([-np.inf, -3.4e38, np.inf])).extent()
    assert (extent.low, extent.high, extent.bins.counts.size) == (0, 0, 0)


def test_an_outlier_goes_if_asked_for(rng: np.random.Generator) -> None:
    values = rng.uniform(-1, 1, 50_000).astype(np.float32)
    values[7] = 1e6
    observation = observe(values)
    assert not observation.is_masked
    assert observation.extent().high == 1e6
    assert 0.99 < observation.extent(keep_outliers=False).high <= 1 + BIN


def test_an_outlier_that_the_subsample_missed_goes_if_asked_for(
    rng: np.random.Generator,
) -> None:
    observation = observe(rng.uniform(-1, 1, 50_000))
    observation.add_extremes(-1e6, 1e6)
    kept, trimmed = observation.extent(), observation.extent(keep_outliers=False)
    assert (kept.low, kept.high) == (-1e6, 1e6)
    assert (trimmed.low, trimmed.high) == (
        pytest.approx(-1, rel=BIN),
        pytest.approx(1, rel=BIN),
    )


def test_an_outlier_does_not_hide_a_mask(rng: np.random.Generator) -> None:
    values = rng.uniform(-1, 1, 50_000).astype(np.float32)
    values[:9000] = -1e4
    values[-1] = 1e8
    extent = observe(values).extent(keep_outliers=False)
    assert extent.low >= -1 - BIN
    assert extent.high <= 1 + BIN
