from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.numerics.bias_correction import find_shares, match_mean

BOUNDS = {
    "Relu": (0.0, np.inf),
    "Relu6": (0.0, 6.0),
    "Clip": (-1.0, 2.0),
    "upper": (-np.inf, 3.0),
    "open": (-np.inf, np.inf),
}


def _make_outputs(seed: int, count: int = 300, channels: int = 6) -> npt.NDArray[np.float32]:
    """Of channels of which no bound cuts off more than four fifths."""
    generator = np.random.default_rng(seed)
    centres = generator.uniform(0.0, 1.5, channels)
    return (
        centres
        + generator.uniform(0.5, 2.0, channels) * generator.standard_normal((count, channels))
    ).astype(np.float32)


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 2**32 - 1),
    bounds=st.sampled_from(sorted(BOUNDS)),
    error=st.floats(-0.4, 0.4),
)
def test_the_clipped_mean_is_matched(seed: int, bounds: str, error: float) -> None:
    """A shift of the outputs, by less than their spread, is found whatever is clipped."""
    outputs = _make_outputs(seed)
    low, high = BOUNDS[bounds]
    wanted = np.clip(outputs.astype(np.float64) - error, low, high).mean(axis=0)
    shift = match_mean(outputs, wanted, bounds=(low, high))
    reached = np.clip(outputs + shift.astype(np.float64), low, high).mean(axis=0)
    # The shift is rounded to float32.
    assert np.allclose(reached, wanted, rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1))
def test_without_bounds_it_is_the_difference_of_the_means(seed: int) -> None:
    outputs = _make_outputs(seed)
    wanted = np.linspace(-9, 9, outputs.shape[1])
    shift = match_mean(outputs, wanted)
    assert np.allclose(outputs.mean(axis=0, dtype=np.float64) + shift, wanted, atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 30),
    bounds=st.sampled_from(sorted(BOUNDS)),
    wanted=st.floats(-20, 20),
)
def test_no_shift_is_larger_than_what_was_seen_justifies(
    seed: int, count: int, bounds: str, wanted: float
) -> None:
    outputs = _make_outputs(seed, count=count)
    shift = match_mean(outputs, np.full(outputs.shape[1], wanted), bounds=BOUNDS[bounds])
    missing = wanted - np.clip(outputs, *BOUNDS[bounds]).mean(axis=0)
    assert np.all(np.isfinite(shift))
    assert np.all(np.abs(shift) <= np.abs(missing) + outputs.std(axis=0) + 1e-5)


@pytest.mark.parametrize(
    ("values", "wanted", "expected"),
    [
        pytest.param([-3.0] * 50, 0.0, 0.0, id="all_clipped_and_right"),
        pytest.param([-3.0] * 50, 0.2, 0.0, id="all_clipped_below"),
        pytest.param([9.0] * 50, 5.5, 0.0, id="all_clipped_above"),
        pytest.param([-3.0] * 49 + [1.0], 0.5, 0.0, id="one_value_decides"),
        pytest.param([1.0, 2.0, 3.0, 4.0], 2.25, -0.25, id="few_values_all_inside"),
        pytest.param([1.0] * 50, 7.0, 6.0, id="out_of_reach_of_the_clip"),
    ],
)
def test_examples_behind_a_clip(values: list[float], wanted: float, expected: float) -> None:
    shift = match_mean(np.float32(values)[:, None], np.float32([wanted]), bounds=(0.0, 6.0))
    assert shift.tolist() == [expected]


def test_each_channel_is_solved_alone() -> None:
    outputs = _make_outputs(3)
    wanted = np.maximum(outputs + 0.1, 0).mean(axis=0, dtype=np.float64)
    together = match_mean(outputs, wanted, bounds=(0.0, np.inf))
    alone = [
        match_mean(outputs[:, [one]], wanted[[one]], bounds=(0.0, np.inf))[0]
        for one in range(outputs.shape[1])
    ]
    assert np.allclose(together, alone, rtol=0, atol=1e-6)
    assert np.allclose(together, 0.1, atol=1e-5)


@pytest.mark.parametrize("bounds", [None, (0.0, 6.0)], ids=str)
def test_without_outputs_there_is_no_shift(bounds: tuple[float, float] | None) -> None:
    shift = match_mean(np.zeros((0, 2), np.float32), np.ones(2), bounds=bounds)
    assert shift.tolist() == [0.0, 0.0]


def _make_differences(
    seed: int, *, shift: float, rows: int = 8, count: int = 32, channels: int = 64
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Of channels with a shift, of samples whose rows have something in common."""
    generator = np.random.default_rng(seed)
    shifts = shift * generator.standard_normal(channels)
    common = generator.standard_normal((count, 1, channels))
    own = generator.standard_normal((count, rows, channels))
    samples = np.repeat(np.arange(count), rows)
    return (shifts + common + own).reshape(-1, channels), samples


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    shift=st.floats(0, 10),
    count=st.integers(1, 12),
    rows=st.integers(1, 5),
    channels=st.integers(1, 9),
)
def test_no_shift_changes_its_sign_or_grows(
    seed: int, shift: float, count: int, rows: int, channels: int
) -> None:
    moved, samples = _make_differences(seed, shift=shift, rows=rows, count=count, channels=channels)
    shares = find_shares(moved, samples)
    assert shares.shape == (channels,)
    assert np.all((shares >= 0.0) & (shares <= 1.0))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1))
def test_hardly_anything_is_left_of_chance(seed: int) -> None:
    moved, samples = _make_differences(seed, shift=0.0)
    # Of 64 terms with a mean of 1 and a variance of 2 the sum is within 5 deviations of 64.
    assert find_shares(moved, samples).max() < 0.5
    rows_alone = find_shares(moved, np.arange(len(moved)))
    assert rows_alone.min() > 0.5, "rows of one sample would pass for many samples"


def test_on_average_a_tenth_is_left_of_chance() -> None:
    shares = [find_shares(*_make_differences(seed, shift=0.0)).max() for seed in range(200)]
    assert np.mean(shares) < 0.1


@pytest.mark.parametrize(("shift", "most"), [(0.0, 0.1), (0.1, 0.3), (0.25, 0.6), (3.0, 1.01)])
def test_errors_of_the_shifts_become_smaller(shift: float, most: float) -> None:
    """As a share of the errors of the means, whose standard error is a quarter."""
    errors = np.zeros(2)
    for seed in range(200):
        generator = np.random.default_rng(seed)
        true = shift * generator.standard_normal(64)
        rows = true + generator.standard_normal((16, 64))
        mean = rows.mean(axis=0)
        shrunk = mean * find_shares(rows, np.arange(16))
        errors += np.sum((shrunk - true) ** 2), np.sum((mean - true) ** 2)
    assert errors[0] < most * errors[1]


def test_what_is_the_same_in_all_samples_stays() -> None:
    moved, samples = _make_differences(1, shift=0.0)
    moved[:, :3] = [0.0, 1.0, -1e-3]
    shares = find_shares(moved, samples)
    assert shares[:3].tolist() == [1.0] * 3
    assert shares[3:].max() < 0.5


@pytest.mark.parametrize(("count", "channels"), [(3, 64), (1, 64), (0, 64), (32, 2)])
def test_where_little_is_known_the_means_stay(count: int, channels: int) -> None:
    moved, samples = _make_differences(2, shift=0.0, count=count, channels=channels)
    assert find_shares(moved, samples).tolist() == [1.0] * channels
