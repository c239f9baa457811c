from __future__ import annotations

import numpy as np
import pytest

from onnxq.errors import UsageError
from onnxq.ranges.min_max import choose_range as choose_extremes
from onnxq.ranges.percentile import choose_range
from tests.ranges.observing import BIN, GRIDS, observe

GRID = GRIDS["u8"]


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9, 99.99])
def test_both_tails_are_cut(percentile: float, rng: np.random.Generator) -> None:
    values = rng.standard_normal(200_000).astype(np.float32)
    low, high = choose_range(observe(values), GRID, percentile=percentile)
    assert low == pytest.approx(np.percentile(values, 100 - percentile), rel=BIN)
    assert high == pytest.approx(np.percentile(values, percentile), rel=BIN)


@pytest.mark.parametrize("sign", [1, -1])
def test_one_sided_data_end_at_0(sign: int, rng: np.random.Generator) -> None:
    values = sign * rng.exponential(size=100_000).astype(np.float32) + np.float32(sign)
    ends = sorted(choose_range(observe(values), GRID, percentile=99), key=abs)
    assert ends[0] == 0
    assert ends[1] == pytest.approx(np.percentile(values, 50 + sign * 49), rel=BIN)


def test_inside_a_bin_it_is_linear() -> None:
    """All 64 values are in the bin [1, 1 + 2^-7), so the quarter from the top is 3/4 of it."""
    values = 1 + np.arange(64) / 64 * BIN
    high = choose_range(observe(values), GRID, percentile=75)[1]
    assert high == 1 + 0.75 * BIN


def test_100_is_min_max(rng: np.random.Generator) -> None:
    observation = observe(rng.standard_normal(1000))
    assert choose_range(observation, GRID, percentile=100) == choose_extremes(observation, GRID)


@pytest.mark.parametrize("percentile", [50.0, 100.5, -1.0, float("nan")])
def test_what_is_no_percentile_is_refused(percentile: float) -> None:
    with pytest.raises(UsageError, match="give a number above 50 and at most 100"):
        choose_range(observe(np.float32([1])), GRID, percentile=percentile)
