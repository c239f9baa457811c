"""What every method has to do."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.ranges import METHODS, Observation
from tests.ranges.observing import BIN, GRIDS, Floats, every_float32, observe, ordinary_floats

every_method = pytest.mark.parametrize("method", sorted(METHODS))
every_grid = pytest.mark.parametrize("grid", sorted(GRIDS))
methods = st.sampled_from(sorted(METHODS))
grids = st.sampled_from(sorted(GRIDS))


def _choose(method: str, observation: Observation, grid: str = "u8") -> tuple[float, float]:
    return METHODS[method].choose_range(observation, GRIDS[grid])


def test_the_registry_is_read_only() -> None:
    assert isinstance(METHODS, Mapping)
    assert not hasattr(METHODS, "__setitem__")
    assert sorted(METHODS) == ["entropy", "minmax", "mse", "percentile"]
    for method in METHODS.values():
        assert method.description
        assert "\n" not in method.description


@settings(deadline=None, max_examples=60)
@given(values=ordinary_floats, method=methods, grid=grids)
def test_the_range_contains_0_and_is_within_the_extremes(
    values: Floats, method: str, grid: str
) -> None:
    low, high = _choose(method, observe(values), grid)
    # A trimmed side ends at the outer edge of a bin, which is within the extreme of that side.
    assert min(values.min(), 0) <= low <= 0 <= high <= max(values.max(), 0)


@settings(deadline=None, max_examples=60)
@given(values=every_float32, method=methods, grid=grids)
def test_any_values_give_a_finite_range(values: Floats, method: str, grid: str) -> None:
    low, high = _choose(method, observe(values), grid)
    assert -math.inf < low <= 0 <= high < math.inf


@settings(deadline=None, max_examples=40)
@given(values=ordinary_floats, method=methods, grid=grids, cut=st.integers(0, 60))
def test_the_split_over_samples_does_not_matter(
    values: Floats, method: str, grid: str, cut: int
) -> None:
    merged = observe(values[:cut])
    merged.merge(observe(values[cut:]))
    assert _choose(method, merged, grid) == _choose(method, observe(values), grid)


CONSTANTS = {
    "zero": (0.0, (0.0, 0.0)),
    "positive": (2.5, (0.0, 2.5)),
    "negative": (-1e-3, (float(np.float32(-1e-3)), 0.0)),
    "large_negative": (-5e4, (-5e4, 0.0)),
    "tiny": (2.0**-130, (0.0, 2.0**-130)),
}


@every_method
@every_grid
@pytest.mark.parametrize("name", sorted(CONSTANTS))
def test_constant_tensors(name: str, method: str, grid: str) -> None:
    value, expected = CONSTANTS[name]
    assert _choose(method, observe(np.full(1000, value)), grid) == expected


@every_method
@every_grid
def test_numbers_that_the_histogram_takes_for_0(method: str, grid: str) -> None:
    low, high = _choose(method, observe(np.full(1000, 2.0**-140)), grid)
    assert (low, high) in [(0, 0), (0, 2.0**-140)]


@every_method
def test_nothing_left_is_an_empty_range(method: str) -> None:
    assert _choose(method, Observation()) == (0, 0)
    assert _choose(method, observe(np.full(100, -np.inf))) == (0, 0)
    assert _choose(method, observe(np.full(100, np.nan))) == (0, 0)


@every_method
def test_extremes_without_a_histogram_are_the_range(method: str) -> None:
    observation = Observation()
    observation.add_extremes(-3.0, 5.0)
    assert _choose(method, observation) == (-3, 5)


@every_method
@every_grid
@pytest.mark.parametrize("mask", [-1e4, -65504.0, -3.4e38, -math.inf])
def test_a_mask_is_not_in_the_range(
    mask: float, grid: str, method: str, rng: np.random.Generator
) -> None:
    scores = rng.normal(0, 3, 30_000).astype(np.float32)
    masked = np.where(rng.random(30_000) < 0.4, np.float32(mask) + scores, scores)
    low, high = _choose(method, observe(masked), grid)
    assert scores.min() * (1 + BIN) <= low <= np.percentile(scores, 1)
    assert np.percentile(scores, 99) <= high <= scores.max()


@pytest.mark.parametrize("method", ["entropy", "mse", "percentile"])
@every_grid
@pytest.mark.parametrize("outlier", [400.0, -400.0, 1e20, -1e20])
def test_one_huge_outlier_does_not_destroy_the_range(
    outlier: float, grid: str, method: str, rng: np.random.Generator
) -> None:
    values = rng.uniform(-3, 3, 30_000).astype(np.float32)
    values[11] = outlier
    low, high = _choose(method, observe(values), grid)
    assert -3 * (1 + BIN) <= low <= -2.9
    assert 2.9 <= high <= 3 * (1 + BIN)


@pytest.mark.parametrize("outlier", [1e6, -1e6])
def test_min_max_keeps_an_outlier(outlier: float, rng: np.random.Generator) -> None:
    values = rng.uniform(-3, 3, 30_000).astype(np.float32)
    values[11] = outlier
    assert outlier in _choose("minmax", observe(values))


@every_method
def test_nan_is_not_in_the_range(method: str, rng: np.random.Generator) -> None:
    values = rng.uniform(-1, 1, 5000).astype(np.float32)
    with_nan = np.concatenate([values, np.full(70, np.nan, np.float32)])
    observation = observe(with_nan)
    assert observation.histogram.nan_count == 70
    assert _choose(method, observation) == _choose(method, observe(values))
