from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.numerics.moments import Moments

Float32Array = npt.NDArray[np.float32]

FLOAT32_EPSILON = 2.0**-23

cases = st.tuples(
    st.integers(0, 2**32 - 1),
    st.integers(1, 3),
    st.integers(1, 5),
    st.lists(st.integers(0, 12), min_size=1, max_size=5),
)
"""Seed, groups, inputs, and positions of each part of the stream."""


def _make_stream(
    seed: int, groups: int, size: int, lengths: list[int]
) -> list[tuple[Float32Array, Float32Array]]:
    """Parts whose means differ by more than their spread."""
    generator = np.random.default_rng(seed)
    parts = []
    for length in lengths:
        quantized = generator.standard_normal((groups, length, size)) + generator.normal(0, 5)
        real = quantized + 0.3 * generator.standard_normal(quantized.shape) + 0.1
        parts.append((real.astype(np.float32), quantized.astype(np.float32)))
    return parts


def _collect(parts: list[tuple[Float32Array, Float32Array]]) -> Moments:
    moments = Moments(groups=parts[0][0].shape[0], size=parts[0][0].shape[2])
    for real, quantized in parts:
        moments.add(real, quantized)
    return moments


def _assert_equal(one: Moments, other: Moments, magnitude: float) -> None:
    """Products of float32 values up to ``magnitude``, a hundred at most: each of the two rounds
    every centred value, and the sums of its products, a few times."""
    tolerance = 100 * 8 * FLOAT32_EPSILON * magnitude**2
    assert one.count == other.count
    for name in ("mean_float", "mean_quantized", "hessian", "cross", "difference"):
        assert np.allclose(getattr(one, name), getattr(other, name), rtol=0, atol=tolerance), name


@settings(deadline=None, max_examples=60)
@given(case=cases)
def test_a_stream_has_the_moments_of_all_its_positions(
    case: tuple[int, int, int, list[int]],
) -> None:
    parts = _make_stream(*case)
    moments = _collect(parts)
    real = np.concatenate([part[0] for part in parts], axis=1).astype(np.float64)
    quantized = np.concatenate([part[1] for part in parts], axis=1).astype(np.float64)
    expected = Moments(groups=case[1], size=case[2])
    expected.count = real.shape[1]
    if expected.count:
        expected.mean_float, expected.mean_quantized = real.mean(axis=1), quantized.mean(axis=1)
        real -= real.mean(axis=1, keepdims=True)
        quantized -= quantized.mean(axis=1, keepdims=True)
        expected.hessian = np.einsum("gni,gnj->gij", quantized, quantized)
        expected.difference = np.einsum("gni,gnj->gij", quantized, real - quantized)
    _assert_equal(moments, expected, magnitude=25.0)


@settings(deadline=None, max_examples=40)
@given(case=cases, cut=st.integers(0, 5))
def test_merged_streams_are_one_stream(case: tuple[int, int, int, list[int]], cut: int) -> None:
    parts = _make_stream(*case)
    nothing = [(parts[0][0][:, :0], parts[0][1][:, :0])]
    merged = _collect(parts[:cut] or nothing)
    merged.merge(_collect(parts[cut:] or nothing))
    _assert_equal(merged, _collect(parts), magnitude=25.0)


def test_a_large_mean_does_not_drown_the_spread() -> None:
    """Sums of products less the product of the sums would have lost it: 1e4^2 has steps of 8."""
    generator = np.random.default_rng(0)
    values = (1e4 + generator.integers(-2, 3, (1, 400, 3))).astype(np.float32)
    moments = Moments(groups=1, size=3)
    for start in range(0, 400, 50):
        moments.add(values[:, start : start + 50], values[:, start : start + 50].copy())
    exact = values.astype(np.float64) - values.mean(axis=1, dtype=np.float64, keepdims=True)
    # The centred values are at most 3 and carry half a step of float32 at 1e4, 2^-11.
    assert np.abs(moments.hessian - exact.transpose(0, 2, 1) @ exact).max() < 400 * 6 * 2.0**-11
    assert not np.any(moments.difference)


@pytest.mark.parametrize("drifts", [[0, 1], [1, 0], [0, 0]], ids=str)
def test_the_same_array_says_that_nothing_differs(drifts: list[int]) -> None:
    generator = np.random.default_rng(1)
    parts = []
    for drift in drifts:
        values = generator.standard_normal((2, 9, 3)).astype(np.float32)
        parts.append((values + np.float32(drift), values))
    shortcut = Moments(groups=2, size=3)
    for drift, (real, quantized) in zip(drifts, parts, strict=True):
        shortcut.add(real if drift else quantized, quantized)
    _assert_equal(shortcut, _collect(parts), magnitude=5.0)
