from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.numerics.affine import choose_parameters, dequantize, quantize
from onnxq.ranges import Grid
from onnxq.ranges.mean_squared_error import FACTORS, ErrorMeasure, choose_range
from tests.ranges.observing import GRIDS, Floats, observe, ordinary_floats

every_grid = pytest.mark.parametrize("grid", sorted(GRIDS))


def _silu(values: Floats) -> Floats:
    return values / (1 + np.exp(-values))


DISTRIBUTIONS = {
    "normal": lambda rng: rng.standard_normal(50_000),
    "laplace": lambda rng: rng.laplace(size=50_000),
    "student": lambda rng: rng.standard_t(3, 50_000),
    "relu": lambda rng: np.maximum(rng.laplace(size=50_000), 0),
    "silu": lambda rng: _silu(rng.normal(0, 2, 50_000)),
    "relu6": lambda rng: np.clip(rng.normal(2, 4, 50_000), 0, 6),
}


def _true_error(values: Floats, low: float, high: float, grid: Grid) -> float:
    limits = {"quantized_min": grid.quantized_min, "quantized_max": grid.quantized_max}
    parameters = choose_parameters(np.array(low), np.array(high), midpoint=grid.midpoint, **limits)
    real = values.astype(np.float32)
    return float(
        np.mean((dequantize(quantize(real, parameters, **limits), parameters) - real) ** 2)
    )


@settings(deadline=None, max_examples=60)
@given(values=ordinary_floats, grid=st.sampled_from(sorted(GRIDS)))
def test_never_worse_than_the_extremes_in_its_own_measure(values: Floats, grid: str) -> None:
    observation = observe(values)
    extent = observation.extent(keep_outliers=False)
    if not np.any(extent.bins.outer):
        return
    measure = ErrorMeasure(extent, GRIDS[grid])
    low, high = choose_range(observation, GRIDS[grid])
    chosen, widest = measure.measure(np.array([low, extent.low]), np.array([high, extent.high]))
    assert chosen <= widest


@every_grid
@pytest.mark.parametrize("name", sorted(DISTRIBUTIONS))
def test_the_measure_is_the_error(name: str, grid: str, rng: np.random.Generator) -> None:
    values = DISTRIBUTIONS[name](rng).astype(np.float32)
    extent = observe(values).extent()
    ranges = np.array([[extent.low * factor, extent.high * factor] for factor in (1, 0.6, 0.2)])
    measured = ErrorMeasure(extent, GRIDS[grid]).measure(ranges[:, 0], ranges[:, 1])
    expected = [_true_error(values, low, high, GRIDS[grid]) for low, high in ranges]
    # A bin is up to two steps wide at the ends; inside it the values are taken as even.
    assert measured == pytest.approx(expected, rel=0.03)


@every_grid
@pytest.mark.parametrize("name", sorted(DISTRIBUTIONS))
def test_near_the_best_of_a_plain_search(name: str, grid: str, rng: np.random.Generator) -> None:
    values = DISTRIBUTIONS[name](rng).astype(np.float32)
    chosen = _true_error(values, *choose_range(observe(values), GRIDS[grid]), GRIDS[grid])
    low, high = min(values.min(), 0), max(values.max(), 0)
    plain = min(
        _true_error(values, low * a, high * b, GRIDS[grid])
        for a in np.linspace(0.1, 1, 10 if low else 1)
        for b in np.linspace(0.1, 1, 10)
    )
    assert chosen <= plain * 1.05


@every_grid
@pytest.mark.parametrize("low", [-1.0, 0.0])
def test_an_even_distribution_is_not_clipped(
    low: float, grid: str, rng: np.random.Generator
) -> None:
    values = rng.uniform(low, 1, 200_000).astype(np.float32)
    expected = (min(float(values.min()), 0.0), float(values.max()))
    assert choose_range(observe(values), GRIDS[grid]) == expected


@every_grid
def test_a_long_tail_is_clipped(grid: str, rng: np.random.Generator) -> None:
    values = rng.standard_t(3, 200_000).astype(np.float32)
    observation = observe(values)
    extent = observation.extent(keep_outliers=False)
    low, high = choose_range(observation, GRIDS[grid])
    assert high - low < 0.9 * (extent.high - extent.low)
    clipped = _true_error(values, low, high, GRIDS[grid])
    assert clipped < _true_error(values, extent.low, extent.high, GRIDS[grid])


def test_the_widest_range_is_a_candidate() -> None:
    assert FACTORS[0] == 1
    assert sorted(FACTORS, reverse=True) == list(FACTORS)
    assert len(FACTORS) == 64
