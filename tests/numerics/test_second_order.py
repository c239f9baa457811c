from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.numerics.affine import Parameters, quantize
from onnxq.numerics.moments import Moments
from onnxq.numerics.second_order import (
    BLOCK,
    LEAST_GAIN,
    choose_damping,
    damp,
    quadratic_loss,
    round_second_order,
    shift_target,
)

Array = npt.NDArray[Any]

FLOAT32_ROUNDING = 1e-4
"""Of losses whose terms are computed in float32: 2^-23 times a few hundred operations."""

seeds = st.integers(0, 2**32 - 1)
dampings = st.sampled_from([0.0, 0.01, 0.3])


def _make_hessian(
    generator: np.random.Generator, groups: int, size: int, *, positions: int | None = None
) -> Array:
    """Of inputs that are correlated and have different variances."""
    mix = generator.standard_normal((groups, size, size)) + 1.0
    inputs = generator.standard_normal((groups, positions or 3 * size, size)) @ mix
    result: Array = inputs.transpose(0, 2, 1) @ inputs
    return result


def _make_weight(generator: np.random.Generator, shape: tuple[int, int, int]) -> Array:
    return generator.standard_normal(shape).astype(np.float32)


def _loss(integers: Array, weight: Array, scale: Array, hessian: Array, damping: float) -> Array:
    return quadratic_loss(integers * scale.astype(np.float64) - weight, damp(hessian, damping))


def _nearest(weight: Array, scale: Array, low: int, high: int) -> Array:
    parameters = Parameters(scale, np.zeros(scale.shape, np.int32))
    return quantize(weight, parameters, quantized_min=low, quantized_max=high)


@settings(deadline=None, max_examples=60)
@given(
    seed=seeds,
    groups=st.integers(1, 3),
    channels=st.integers(1, 4),
    size=st.integers(1, 12),
    damping=dampings,
    share=st.sampled_from([0.5, 1.0]),
)
def test_no_row_is_worse_than_the_nearest_integers(
    seed: int, groups: int, channels: int, size: int, damping: float, share: float
) -> None:
    """Also where the range cuts weights off (share 0.5), and with fewer positions than inputs."""
    generator = np.random.default_rng(seed)
    hessian = _make_hessian(generator, groups, size, positions=max(1, size // 2))
    weight = _make_weight(generator, (groups, channels, size))
    scale = (share * np.abs(weight).max(axis=2, keepdims=True) / 7).astype(np.float32)
    rounded = round_second_order(
        weight, hessian, scale, np.int32(0), quantized_min=-8, quantized_max=7, damping=damping
    )
    assert rounded.dtype == np.int32
    assert rounded.min() >= -8
    assert rounded.max() <= 7
    reached = _loss(rounded, weight, scale, hessian, damping)
    nearest = _loss(_nearest(weight, scale, -8, 7), weight, scale, hessian, damping)
    largest = np.trace(damp(hessian, damping), axis1=1, axis2=2)[:, None]
    slack = FLOAT32_ROUNDING * largest * np.square(weight).sum(axis=2)
    assert np.all(reached <= nearest + slack)


@settings(deadline=None, max_examples=60)
@given(seed=seeds, size=st.integers(1, 40), zero_point=st.integers(-3, 4))
def test_inputs_that_are_not_correlated_give_the_nearest_integers(
    seed: int, size: int, zero_point: int
) -> None:
    generator = np.random.default_rng(seed)
    hessian = np.zeros((2, size, size))
    hessian[:, np.arange(size), np.arange(size)] = generator.uniform(0.1, 9, (2, size))
    weight = _make_weight(generator, (2, 3, size))
    scale = np.float32(0.21)
    rounded = round_second_order(
        weight, hessian, scale, np.int32(zero_point), quantized_min=-8, quantized_max=7
    )
    parameters = Parameters(scale, np.int32(zero_point))
    expected = quantize(weight, parameters, quantized_min=-8, quantized_max=7)
    assert np.array_equal(rounded, expected)


@settings(deadline=None, max_examples=40)
@given(seed=seeds, size=st.integers(2, 6), damping=dampings)
def test_no_single_weight_can_be_moved_with_a_gain(seed: int, size: int, damping: float) -> None:
    generator = np.random.default_rng(seed)
    hessian = _make_hessian(generator, 1, size)
    weight = _make_weight(generator, (1, 2, size))
    scale = np.full((1, 2, 1), 0.4, np.float32)
    rounded = round_second_order(
        weight,
        hessian,
        scale,
        np.int32(0),
        quantized_min=-4,
        quantized_max=3,
        damping=damping,
        sweeps=1000,
    )
    reached = _loss(rounded, weight, scale, hessian, damping)
    diagonal = np.diagonal(damp(hessian, damping), axis1=1, axis2=2)
    for column, way in itertools.product(range(size), (-1, 1)):
        moved = rounded.copy()
        moved[:, :, column] = np.clip(moved[:, :, column] + way, -4, 3)
        gain = reached - _loss(moved, weight, scale, hessian, damping)
        # A weight that is LEAST_GAIN steps beyond the middle gains twice that times H s^2; the
        # gradient is a sum in float32.
        least = 2 * LEAST_GAIN * diagonal[:, None, column] * 0.4**2
        assert np.all(gain <= least + FLOAT32_ROUNDING * reached.max())


@settings(deadline=None, max_examples=25)
@given(seed=seeds)
def test_is_close_to_the_best_of_all_neighbours(seed: int) -> None:
    """In the mean over rows; each row has 2^8 choices of the two neighbours of its weights."""
    size = 8
    generator = np.random.default_rng(seed)
    hessian = _make_hessian(generator, 1, size)
    weight = _make_weight(generator, (1, 30, size))
    scale = np.full((1, 30, 1), 0.5, np.float32)
    rounded = round_second_order(
        weight, hessian, scale, np.int32(0), quantized_min=-99, quantized_max=99, damping=0.01
    )
    steps = weight / scale
    choices = np.array(list(itertools.product((0, 1), repeat=size)))
    best = np.min(
        [_loss(np.floor(steps) + one, weight, scale, hessian, 0.01) for one in choices], axis=0
    )
    nearest = _loss(np.rint(steps), weight, scale, hessian, 0.01)
    reached = _loss(rounded, weight, scale, hessian, 0.01)
    assert reached.sum() - best.sum() <= 0.25 * (nearest.sum() - best.sum())


@pytest.mark.parametrize("size", [BLOCK - 1, BLOCK, 2 * BLOCK + 5], ids=str)
def test_blocks_of_columns_change_nothing(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(size)
    # Whole numbers, so that sums in any order are equal.
    hessian = np.rint(_make_hessian(generator, 2, size, positions=8))
    weight = np.rint(4 * _make_weight(generator, (2, 3, size))).astype(np.float32)
    arguments: dict[str, Any] = {"quantized_min": -8, "quantized_max": 7, "damping": 1.0}
    whole = round_second_order(weight, hessian, np.float32(3), np.int32(0), **arguments)
    monkeypatch.setattr("onnxq.numerics.second_order.BLOCK", 10**6)
    apart = round_second_order(weight, hessian, np.float32(3), np.int32(0), **arguments)
    losses = [_loss(one, weight, np.float32(3), hessian, 1.0) for one in (whole, apart)]
    assert np.allclose(*losses, rtol=0.02)
    assert np.mean(whole != apart) < 0.05


def test_scales_and_zero_points_may_differ_between_weights() -> None:
    generator = np.random.default_rng(3)
    hessian = _make_hessian(generator, 2, 8)
    weight = _make_weight(generator, (2, 5, 8))
    scale = generator.choice(np.float32([-0.3, 0.2, 0.5]), weight.shape)
    points = generator.integers(4, 11, weight.shape).astype(np.int32)
    rounded = round_second_order(weight, hessian, scale, points, quantized_min=0, quantized_max=15)
    assert rounded.min() >= 0
    assert rounded.max() <= 15
    nearest = np.clip(np.rint(weight / scale) + points, 0, 15)
    reached = _loss(rounded - points, weight, scale, hessian, 0.01)
    assert np.all(reached <= _loss(nearest - points, weight, scale, hessian, 0.01))
    assert reached.sum() < 0.7 * _loss(nearest - points, weight, scale, hessian, 0.01).sum()


def test_weights_of_inputs_that_never_vary_are_rounded_to_nearest() -> None:
    generator = np.random.default_rng(4)
    hessian = _make_hessian(generator, 1, 6)
    hessian[:, 2], hessian[:, :, 2] = 0, 0
    weight = _make_weight(generator, (1, 7, 6))
    scale = np.float32(0.3)
    rounded = round_second_order(
        weight, hessian, scale, np.int32(0), quantized_min=-8, quantized_max=7, damping=0.0
    )
    assert np.array_equal(rounded[:, :, 2], np.clip(np.rint(weight[:, :, 2] / scale), -8, 7))


@pytest.mark.parametrize("damping", [0.0, 0.01], ids=str)
def test_without_any_positions_weights_are_rounded_to_nearest(damping: float) -> None:
    weight = _make_weight(np.random.default_rng(5), (2, 3, 4))
    rounded = round_second_order(
        weight,
        np.zeros((2, 4, 4)),
        np.float32(0.3),
        np.int32(0),
        quantized_min=-8,
        quantized_max=7,
        damping=damping,
    )
    assert np.array_equal(rounded, np.clip(np.rint(weight / np.float32(0.3)), -8, 7))


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
def test_a_hessian_without_numbers_is_refused(value: float) -> None:
    hessian = np.full((1, 2, 2), value)
    with pytest.raises(ValueError, match="NaN or infinity"):
        round_second_order(
            np.ones((1, 1, 2), np.float32),
            hessian,
            np.float32(1),
            np.int32(0),
            quantized_min=-8,
            quantized_max=7,
        )


def _collect(real: Array, quantized: Array) -> Moments:
    moments = Moments(groups=real.shape[0], size=real.shape[2])
    moments.add(real, quantized)
    return moments


@settings(deadline=None, max_examples=40)
@given(seed=seeds, size=st.integers(1, 6), channels=st.integers(1, 4))
def test_the_shifted_target_is_the_least_squares_solution(
    seed: int, size: int, channels: int
) -> None:
    generator = np.random.default_rng(seed)
    quantized = generator.standard_normal((2, 60, size)).astype(np.float32) + np.float32(2)
    real = quantized + 0.3 * generator.standard_normal(quantized.shape).astype(np.float32)
    weight = _make_weight(generator, (2, channels, size))
    found = shift_target(weight, _collect(real, quantized), damping=0.0)
    for group in range(2):
        inputs = quantized[group] - quantized[group].mean(axis=0)
        wanted = (real[group] - real[group].mean(axis=0)) @ weight[group].T
        expected = np.linalg.lstsq(inputs, wanted, rcond=None)[0].T
        # Sixty positions of standard normal inputs: the condition number is below ten.
        assert np.allclose(found[group], expected, rtol=0, atol=1e-4)


def test_without_an_error_of_the_inputs_the_target_is_the_weight() -> None:
    generator = np.random.default_rng(6)
    inputs = generator.standard_normal((1, 20, 5)).astype(np.float32)
    weight = _make_weight(generator, (1, 3, 5))
    assert np.array_equal(shift_target(weight, _collect(inputs, inputs)), weight)


def test_damping_pulls_the_target_to_the_weight_and_not_to_zero() -> None:
    generator = np.random.default_rng(7)
    quantized = generator.standard_normal((1, 20, 5)).astype(np.float32)
    moments = _collect(
        quantized + generator.standard_normal((1, 20, 5)).astype(np.float32), quantized
    )
    weight = _make_weight(generator, (1, 3, 5))
    distances = [
        float(np.abs(shift_target(weight, moments, damping=damping) - weight).max())
        for damping in (0.0, 1.0, 100.0, 1e6)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 0.01
    assert distances[-1] < 1e-5


def _halves(rng: np.random.Generator, count: int, error: Array, noise: float) -> tuple[Any, Any]:
    """Inputs of 6 channels whose quantized form is ``error`` times them, and noise."""
    found = []
    for _ in range(2):
        moments = Moments(groups=1, size=6)
        x = rng.standard_normal((1, count, 6)).astype(np.float32)
        wrong = x * error + noise * rng.standard_normal(x.shape)
        moments.add(x, wrong.astype(np.float32))
        found.append(moments)
    return found[0], found[1]


def test_errors_that_all_samples_show_are_undone(rng: np.random.Generator) -> None:
    weight = rng.standard_normal((1, 4, 6)).astype(np.float32)
    halves = _halves(rng, 500, np.float32(0.8), 0.01)
    assert choose_damping(weight, halves, (0.01, 1.0, 100.0)) == 0.01


def test_errors_that_are_chance_are_left(rng: np.random.Generator) -> None:
    """Fewer samples than inputs, and noise that no two of them share."""
    weight = rng.standard_normal((1, 4, 6)).astype(np.float32)
    found = [
        choose_damping(weight, _halves(rng, 4, np.float32(1.0), 0.1), (1e-6, 1e-4))
        for _ in range(9)
    ]
    assert found.count(None) >= 8
