"""Pairs of neighbouring weights, whose products some processors add in 16 bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.numerics.pairs import MOST_IN_A_PAIR, find_large_pairs, largest_pairs

LARGEST_ACTIVATION = 255


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), inputs=st.integers(1, 9))
def test_largest_pair_is_that_of_a_loop(seed: int, inputs: int) -> None:
    rows = np.random.default_rng(seed).standard_normal((3, inputs)).astype(np.float32)
    padded = np.pad(rows, ((0, 0), (0, inputs % 2)))
    expected = [
        max(
            abs(a) + abs(b) if a * b >= 0 else 0.0
            for a, b in zip(row[0::2].tolist(), row[1::2].tolist(), strict=True)
        )
        for row in padded
    ]
    assert largest_pairs(rows).tolist() == pytest.approx(expected)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), inputs=st.integers(1, 9))
def test_what_is_not_large_fits_16_bits_after_any_rounding(seed: int, inputs: int) -> None:
    """Real weights that fill the limit, each moved by up to a whole step."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((4, inputs))
    scale = max(largest_pairs(rows).max() / MOST_IN_A_PAIR, np.abs(rows).max() / 127)
    steps = rows / scale
    integers = np.where(random.random(steps.shape) < 0.5, np.floor(steps), np.ceil(steps))
    assert not find_large_pairs(integers).any()
    padded = np.pad(integers, ((0, 0), (0, inputs % 2)))
    for first in (0, LARGEST_ACTIVATION):
        for second in (0, LARGEST_ACTIVATION):
            sums = padded[:, 0::2] * first + padded[:, 1::2] * second
            assert np.abs(sums).max() <= np.iinfo(np.int16).max


@pytest.mark.parametrize(
    ("integers", "expected"),
    [([64, 64], False), ([64, 65], True), ([-64, -65], True), ([127, -127], False), ([127], False)],
    ids=["just-fits", "too-large", "too-small", "opposite-signs", "alone"],
)
def test_limit(integers: list[int], expected: bool) -> None:
    assert find_large_pairs(np.array([integers])).any() == expected
