from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.numerics.equalization import (
    FLOOR,
    LEAST_FACTOR,
    MOST_FACTOR,
    OUTLIERS_FROM,
    find_cross_layer_factors,
    find_outlier_factors,
    find_smooth_factors,
)

Array = npt.NDArray[Any]

magnitudes = st.lists(
    st.one_of(st.just(0.0), st.floats(2.0**-20, 2.0**20, width=32)), min_size=1, max_size=8
)


def _pair(first: list[float], second: list[float]) -> tuple[Array, Array]:
    count = min(len(first), len(second))
    return np.float32(first[:count]), np.float32(second[:count])


@settings(deadline=None, max_examples=100)
@given(first=magnitudes, second=magnitudes, alpha=st.floats(0, 1))
def test_smooth_factors_are_finite_and_limited(
    first: list[float], second: list[float], alpha: float
) -> None:
    activation, weight = _pair(first, second)
    factors = find_smooth_factors(activation, weight, alpha=alpha)
    assert factors.dtype == np.float32
    assert factors.shape == activation.shape
    assert np.all((factors >= np.float32(LEAST_FACTOR)) & (factors <= np.float32(MOST_FACTOR)))


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), alpha=st.floats(0, 1))
def test_smooth_factors_balance_as_the_paper_says(seed: int, alpha: float) -> None:
    """max|x / s| is proportional to (max|x| max|w|)^(1 - alpha), max|w s| to its power alpha."""
    generator = np.random.default_rng(seed)
    activation, weight = (generator.uniform(0.5, 2.0, 7) for _ in range(2))
    factors = find_smooth_factors(activation, weight, alpha=alpha).astype(np.float64)
    left = activation / factors / (activation * weight) ** (1 - alpha)
    right = weight * factors / (activation * weight) ** alpha
    # The factors are rounded to float32.
    assert np.allclose(left, left[0], rtol=1e-6)
    assert np.allclose(right, right[0], rtol=1e-6)
    assert np.isclose(np.log(factors).mean(), 0.0, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1))
def test_smooth_factors_keep_the_product(seed: int) -> None:
    generator = np.random.default_rng(seed)
    inputs, weight = generator.standard_normal((5, 6)), generator.standard_normal((6, 4))
    inputs[:, 0] *= 1000
    factors = find_smooth_factors(
        np.abs(inputs).max(axis=0), np.abs(weight).max(axis=1), alpha=0.8
    ).astype(np.float64)
    smoothed = (inputs / factors) @ (factors[:, None] * weight)
    assert np.allclose(smoothed, inputs @ weight, rtol=1e-12, atol=1e-9)
    assert np.ptp(np.abs(inputs / factors).max(axis=0)) < np.ptp(np.abs(inputs).max(axis=0))


@pytest.mark.parametrize(
    ("activation", "weight", "expected"),
    [
        pytest.param([0, 0], [1, 1], [1, 1], id="nothing_comes_in"),
        pytest.param([1, 1], [0, 0], [1, 1], id="nothing_is_read"),
        pytest.param([1, 1, 0], [1, 1, 1], [1, 1, LEAST_FACTOR], id="a_dead_input"),
        pytest.param([1, 1, 1], [1, 1, 0], [1, 1, FLOOR**-0.5], id="an_input_that_nobody_reads"),
        pytest.param([1e9, 1e-9], [1, 1], None, id="far_apart"),
    ],
)
def test_dead_channels(
    activation: list[float], weight: list[float], expected: list[float] | None
) -> None:
    factors = find_smooth_factors(np.float32(activation), np.float32(weight), alpha=0.5)
    if expected is None:
        assert factors[0] > 1 > factors[1] >= LEAST_FACTOR
    else:
        assert np.allclose(factors, expected, rtol=1e-6)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), layers=st.integers(2, 4))
def test_cross_layer_factors_give_all_layers_the_same_range(seed: int, layers: int) -> None:
    generator = np.random.default_rng(seed)
    ranges = [generator.uniform(0.5, 2.0, 6) for _ in range(layers)]
    factors = find_cross_layer_factors(ranges)
    assert len(factors) == layers - 1
    ones = np.ones(6)
    after = [
        one * before / behind
        for one, before, behind in zip(ranges, [ones, *factors], [*factors, ones], strict=True)
    ]
    for one in after:
        assert np.allclose(one, after[0], rtol=1e-6)


def test_cross_layer_factors_of_two_layers_are_those_of_the_paper() -> None:
    first, second = np.float32([4, 9, 1]), np.float32([1, 1, 16])
    (factors,) = find_cross_layer_factors([first, second])
    assert np.allclose(factors, np.sqrt(first * second) / second, rtol=1e-6)


def test_cross_layer_factors_keep_the_function_of_relu_layers() -> None:
    generator = np.random.default_rng(2)
    first, depthwise, last = (generator.standard_normal(s) for s in ((6, 4), (6,), (3, 6)))
    first[0] *= 50
    bias = generator.standard_normal(6)
    inputs = generator.standard_normal((20, 4))

    def run(a: Array, b: Array, d: Array, w: Array) -> Array:
        hidden = np.maximum(inputs @ a.T + b, 0)
        result: Array = np.maximum(hidden * d, 0) @ w.T
        return result

    one, two = find_cross_layer_factors(
        [np.abs(first).max(axis=1), np.abs(depthwise), np.abs(last).max(axis=0)]
    )
    moved = run(first / one[:, None], bias / one, depthwise * one / two, last * two)
    assert np.allclose(moved, run(first, bias, depthwise, last), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dead", [0, 1, 2], ids=str)
def test_a_channel_of_zeros_is_left_alone(dead: int) -> None:
    ranges = [np.float32([4, 2]), np.float32([1, 3]), np.float32([5, 7])]
    ranges[dead][0] = 0
    factors = find_cross_layer_factors(ranges)
    assert [one[0] for one in factors] == [1.0, 1.0]
    assert all(one[1] != 1.0 for one in factors)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 200), share=st.floats(0, 1))
def test_outlier_factors_touch_few_channels(seed: int, count: int, share: float) -> None:
    generator = np.random.default_rng(seed)
    activation = generator.lognormal(0.0, 2.0, count) * (generator.random(count) < share)
    factors = find_outlier_factors(activation.astype(np.float32))
    assert factors.dtype == np.float32
    assert np.all((factors >= 1.0) & (factors <= MOST_FACTOR))
    assert np.count_nonzero(factors > 1.0) <= 0.05 * (count - 1) + 1
    others = np.quantile(activation, OUTLIERS_FROM)
    if others > 0 and factors.max() < MOST_FACTOR:
        assert np.max(activation / factors) <= others * 1.0001


def test_an_activation_with_hardly_a_channel_has_no_outliers() -> None:
    assert find_outlier_factors(np.float32([0.0] * 99 + [5.0])).tolist() == [1.0] * 100
