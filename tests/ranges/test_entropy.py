from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from onnxq.ranges.entropy import (
    BINS,
    FEWEST_BINS,
    choose_range,
    measure_divergences,
    rebin_magnitudes,
)
from tests.ranges.observing import GRIDS, Floats, observe

FloatList = npt.NDArray[np.float64]

DISTRIBUTIONS = {
    "laplace": lambda rng: rng.laplace(size=20_000),
    "student": lambda rng: rng.standard_t(3, 20_000),
    "lognormal": lambda rng: rng.lognormal(size=20_000),
    "few_values": lambda rng: rng.choice([-3.0, 0.0, 0.5, 1.0, 7.0], 2000),
    "gap": lambda rng: np.append(rng.uniform(0, 1, 5000), rng.uniform(9, 10, 50)),
}


def _slow_divergence(counts: FloatList, kept: int, levels: int) -> float:
    """The search of the paper for one threshold, one bin after the other."""
    reference = counts[:kept].copy()
    quantized = np.zeros(kept)
    reference[-1] += counts[kept:].sum()
    for level in range(levels):
        members = range(level * kept // levels, (level + 1) * kept // levels)
        filled = [index for index in members if reference[index] > 0]
        for index in filled:
            quantized[index] = sum(counts[member] for member in members) / len(filled)
    if quantized.sum() == 0:
        return math.inf
    p, q = reference / reference.sum(), quantized / quantized.sum()
    divergence = 0.0
    for index in range(kept):
        if p[index] > 0:
            divergence += p[index] * math.log(p[index] / q[index]) if q[index] > 0 else math.inf
    return divergence


def _rebinned(values: Floats) -> FloatList:
    extent = observe(values).extent(keep_outliers=False)
    return rebin_magnitudes(extent, max(-extent.low, extent.high))


@pytest.mark.parametrize("levels", [16, 128, 256])
@pytest.mark.parametrize("name", sorted(DISTRIBUTIONS))
def test_equals_the_obvious_search(name: str, levels: int, rng: np.random.Generator) -> None:
    counts = _rebinned(DISTRIBUTIONS[name](rng))
    measured = measure_divergences(counts, levels)
    first = max(FEWEST_BINS, levels)
    assert np.all(np.isinf(measured[: first - 1]))
    for kept in [*range(first, BINS, 61), BINS]:
        expected = _slow_divergence(counts, kept, levels)
        # Differences of sums of 2048 terms of size log(20000): 2048 x 10 x 2^-52 = 5e-12.
        assert measured[kept - 1] == pytest.approx(expected, rel=1e-9, abs=5e-12)


@pytest.mark.parametrize("name", sorted(DISTRIBUTIONS))
def test_rebinning_keeps_all_but_zeros(name: str, rng: np.random.Generator) -> None:
    values = DISTRIBUTIONS[name](rng).astype(np.float32)
    counts = _rebinned(values)
    assert counts.sum() == pytest.approx(np.count_nonzero(values))
    assert counts.min() >= 0


@pytest.mark.parametrize("grid", sorted(GRIDS))
def test_a_long_tail_is_clipped(grid: str, rng: np.random.Generator) -> None:
    values = DISTRIBUTIONS["student"](rng).astype(np.float32)
    low, high = choose_range(observe(values), GRIDS[grid])
    assert high - low < 0.75 * (values.max() - values.min())
    assert high == -low


def test_a_uniform_distribution_is_not_clipped(rng: np.random.Generator) -> None:
    values = rng.uniform(-1, 1, 500_000).astype(np.float32)
    low, high = choose_range(observe(values), GRIDS["s8"])
    assert high - low > 0.99 * (values.max() - values.min())


def test_the_short_side_is_not_widened(rng: np.random.Generator) -> None:
    values = np.append(rng.exponential(size=20_000), np.float32(-0.25))
    assert choose_range(observe(values), GRIDS["u8"])[0] == -0.25


def test_zeros_do_not_change_the_threshold(rng: np.random.Generator) -> None:
    values = rng.exponential(size=20_000).astype(np.float32)
    padded = np.append(values, np.zeros(50_000, np.float32))
    assert choose_range(observe(values), GRIDS["u8"]) == choose_range(observe(padded), GRIDS["u8"])


def test_more_levels_than_bins_clip_nothing(rng: np.random.Generator) -> None:
    divergences = measure_divergences(_rebinned(rng.laplace(size=2000)), 1 << 16)
    assert np.flatnonzero(np.isfinite(divergences)).tolist() == [BINS - 1]
