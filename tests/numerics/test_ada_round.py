from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from onnxq.numerics.ada_round import round_adaptively
from onnxq.numerics.second_order import damp, quadratic_loss, round_second_order

Array = npt.NDArray[Any]


def _make_layer(groups: int, channels: int, size: int) -> tuple[Array, Array, Array]:
    """Weights, scales, and the Hessian of inputs that depend on each other."""
    generator = np.random.default_rng(size)
    mix = generator.standard_normal((groups, size, size)) + 1.0
    inputs = generator.standard_normal((groups, 4 * size, size)) @ mix
    weight = generator.standard_normal((groups, channels, size)).astype(np.float32)
    scale = (np.abs(weight).max(axis=2, keepdims=True) / 7).astype(np.float32)
    return weight, scale, inputs.transpose(0, 2, 1) @ inputs


def _loss(integers: Array, weight: Array, scale: Array, hessian: Array) -> Array:
    return quadratic_loss(integers * scale.astype(np.float64) - weight, damp(hessian, 0.01))


@pytest.mark.parametrize("groups", [1, 3], ids=str)
def test_is_far_better_than_the_nearest_integers(groups: int) -> None:
    """And as good as rounding one after the other, to which it is an alternative."""
    weight, scale, hessian = _make_layer(groups, 8, 16)
    nearest = np.clip(np.rint(weight / scale), -8, 7).astype(np.int32)
    rounded = round_adaptively(
        weight,
        hessian,
        scale,
        np.int32(0),
        nearest,
        quantized_min=-8,
        quantized_max=7,
        iterations=1000,
    )
    others = round_second_order(
        weight, hessian, scale, np.int32(0), quantized_min=-8, quantized_max=7
    )
    reached = _loss(rounded, weight, scale, hessian).sum()
    assert reached < 0.5 * _loss(nearest, weight, scale, hessian).sum()
    assert reached < 1.1 * _loss(others, weight, scale, hessian).sum()


@pytest.mark.parametrize("iterations", [0, 3], ids=str)
def test_a_better_incumbent_stays(iterations: int) -> None:
    weight, scale, hessian = _make_layer(2, 8, 16)
    known = round_second_order(
        weight, hessian, scale, np.int32(0), quantized_min=-8, quantized_max=7, sweeps=1000
    )
    rounded = round_adaptively(
        weight,
        hessian,
        scale,
        np.int32(0),
        known,
        quantized_min=-8,
        quantized_max=7,
        iterations=iterations,
    )
    changed = np.any(rounded != known, axis=2)
    losses = [_loss(one, weight, scale, hessian) for one in (rounded, known)]
    assert np.all(losses[0][changed] < losses[1][changed])
    assert not np.all(changed)


def test_keeps_to_the_range_and_to_its_zero_points() -> None:
    weight, scale, hessian = _make_layer(2, 5, 8)
    points = np.int32([[[3]], [[12]]])
    nearest = np.clip(np.rint(weight / scale) + points, 0, 15).astype(np.int32)
    rounded = round_adaptively(
        weight,
        hessian,
        scale,
        points,
        nearest,
        quantized_min=0,
        quantized_max=15,
        iterations=200,
    )
    assert rounded.dtype == np.int32
    assert rounded.min() == 0
    assert rounded.max() == 15
    losses = [_loss(one - points, weight, scale, hessian) for one in (rounded, nearest)]
    assert np.all(losses[0] <= losses[1])
    assert losses[0].sum() < 0.8 * losses[1].sum()


def test_is_deterministic_and_leaves_its_inputs() -> None:
    weight, scale, hessian = _make_layer(1, 4, 8)
    nearest = np.clip(np.rint(weight / scale), -8, 7).astype(np.int32)
    before = [one.copy() for one in (weight, hessian, nearest)]
    results = [
        round_adaptively(
            weight,
            hessian,
            scale,
            np.int32(0),
            nearest,
            quantized_min=-8,
            quantized_max=7,
            iterations=50,
        )
        for _ in range(2)
    ]
    assert np.array_equal(*results)
    assert all(
        np.array_equal(*pair) for pair in zip(before, (weight, hessian, nearest), strict=True)
    )
