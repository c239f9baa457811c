from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxq.numerics.rounding import round_keeping_sums

LOW, HIGH = -7, 7

Steps = npt.NDArray[np.float32]

steps_in_range = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 30)),
    elements=st.floats(LOW, HIGH, width=32, allow_subnormal=False),
)
steps_with_ties = hnp.arrays(
    np.float32,
    st.tuples(st.integers(2, 4), st.integers(1, 40)),
    elements=st.sampled_from([np.float32(value) for value in (0.4, 0.6, -0.4, 2.5, 3.0)]),
)


def _round(steps: Steps, low: int = LOW, high: int = HIGH) -> npt.NDArray[np.int32]:
    return round_keeping_sums(steps, quantized_min=low, quantized_max=high)


def _sum_errors(steps: Steps, rounded: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    return (rounded - steps.astype(np.float64)).sum(axis=1)


@settings(deadline=None, max_examples=150)
@given(steps=steps_in_range)
def test_each_result_is_a_neighbour_of_its_real_value(steps: Steps) -> None:
    rounded = _round(steps)
    assert rounded.dtype == np.int32
    assert np.all((rounded == np.floor(steps)) | (rounded == np.ceil(steps)))


@settings(deadline=None, max_examples=150)
@given(steps=steps_in_range)
def test_row_sums_are_within_half_a_step(steps: Steps) -> None:
    """Always possible in range: an excess E needs |rint(E)| flips, and errors of at most half a
    step that sum to E are at least 2 |E| >= |rint(E)| many with its sign."""
    # Summing n terms of at most 1/2 in float64 errs by less than n * (n / 2) * 2^-53.
    slack = steps.shape[1] ** 2 * 2.0**-54
    assert np.all(np.abs(_sum_errors(steps, _round(steps))) <= 0.5 + slack)


@settings(deadline=None, max_examples=100)
@given(
    steps=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 20)),
        elements=st.floats(-1000, 1000, width=32),
    ),
)
def test_never_leaves_the_range(steps: Steps) -> None:
    rounded = _round(steps)
    assert rounded.min() >= LOW
    assert rounded.max() <= HIGH
    inside = np.clip(steps, LOW, HIGH)
    assert np.all((rounded == np.floor(inside)) | (rounded == np.ceil(inside)))


@settings(deadline=None, max_examples=100)
@given(steps=steps_in_range)
def test_leaves_rows_alone_whose_sum_is_fine(steps: Steps) -> None:
    nearest = np.rint(steps)
    errors = _sum_errors(steps, nearest.astype(np.int32))
    # Clear of the tie by more than the rounding of the sum.
    fine = np.abs(errors) < 0.5 - steps.shape[1] ** 2 * 2.0**-54
    assert np.array_equal(_round(steps)[fine], nearest[fine])


@settings(deadline=None, max_examples=100)
@given(steps=steps_in_range)
def test_is_deterministic_and_leaves_its_input(steps: Steps) -> None:
    before = steps.copy()
    first = _round(steps)
    assert np.array_equal(first, _round(steps.copy()))
    assert np.array_equal(steps, before)


@settings(deadline=None, max_examples=150)
@given(steps=steps_in_range | steps_with_ties)
def test_a_row_does_not_depend_on_the_others(steps: Steps) -> None:
    together = _round(steps)
    alone = np.concatenate([_round(steps[index : index + 1]) for index in range(len(steps))])
    assert np.array_equal(together, alone)


@settings(deadline=None, max_examples=100)
@given(steps=steps_with_ties)
def test_among_equal_candidates_the_first_are_flipped(steps: Steps) -> None:
    """Which of several equal elements numpy's partition finds depends on the processor; the file
    must not."""
    rounded = _round(steps)
    flipped = rounded != np.rint(steps)
    for row, flips in zip(steps, flipped, strict=True):
        for value in np.unique(row[flips]):
            at = np.flatnonzero(row == value)
            assert np.array_equal(flips[at], np.arange(len(at)) < flips[at].sum())


@settings(deadline=None, max_examples=60)
@given(
    steps=hnp.arrays(
        np.float32,
        st.tuples(st.just(1), st.integers(1, 8)),
        elements=st.floats(-3, 3, width=16).map(np.float32),
    )
)
def test_no_other_choice_of_neighbours_with_this_sum_is_nearer(steps: Steps) -> None:
    rounded = _round(steps)[0]
    row = steps[0].astype(np.float64)
    choices = itertools.product(*({np.floor(one), np.ceil(one)} for one in row))
    best = min(
        float(np.sum((np.array(choice) - row) ** 2))
        for choice in choices
        if sum(choice) == rounded.sum()
    )
    # Steps are half-precision numbers, so squares of errors and their sums are exact in float64.
    assert float(np.sum((rounded - row) ** 2)) == best


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param([0.4, 0.4, 0.4], [1, 0, 0], id="round_one_up"),
        pytest.param([-0.4, -0.4, -0.4], [-1, 0, 0], id="round_one_down"),
        pytest.param([0.1, 0.45, 0.1, 0.45], [0, 1, 0, 0], id="the_closest_goes_first"),
        pytest.param([1.0, 2.0, -3.0], [1, 2, -3], id="whole_numbers_stay"),
        pytest.param([6.6, 6.6, 6.6], [6, 7, 7], id="top_of_the_range"),
        pytest.param([9.0, 9.0, 0.4], [7, 7, 1], id="saturated_values_stay"),
    ],
)
def test_examples(row: list[float], expected: list[int]) -> None:
    assert _round(np.float32([row])).tolist() == [expected]


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)], ids=str)
def test_empty_arrays(shape: tuple[int, int]) -> None:
    assert _round(np.zeros(shape, np.float32)).shape == shape


def test_double_precision_steps_keep_their_precision() -> None:
    # In float32 this is a tie; in float64 it is nearer to 1.
    steps = np.array([[0.5 + 2.0**-40]])
    assert round_keeping_sums(steps, quantized_min=0, quantized_max=1).tolist() == [[1]]
