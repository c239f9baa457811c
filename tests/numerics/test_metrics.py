from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxq.numerics.metrics import ErrorAccumulator, expected_sqnr_db, sqnr_db, sum_of_products

FloatArray = npt.NDArray[np.float32]

# Sums of squares of whole numbers this small are exact in float64, in any order.
whole_pairs = st.lists(
    hnp.arrays(np.float32, (2, 7), elements=st.integers(-1000, 1000).map(np.float32)),
    min_size=1,
    max_size=6,
)


def _accumulate(pairs: list[FloatArray]) -> ErrorAccumulator:
    accumulator = ErrorAccumulator()
    for reference, measured in pairs:
        accumulator.add(reference, measured)
    return accumulator


@settings(deadline=None, max_examples=60)
@given(pairs=whole_pairs)
def test_streaming_equals_the_whole(pairs: list[FloatArray]) -> None:
    streamed = _accumulate(pairs)
    whole = np.concatenate(pairs, axis=1)
    assert streamed.sqnr_db == sqnr_db(whole[0], whole[1])
    assert streamed.signal == np.sum(whole[0].astype(np.int64) ** 2)
    assert streamed.noise == np.sum((whole[0] - whole[1]).astype(np.int64) ** 2)
    assert streamed.max_abs_error == np.abs(whole[0] - whole[1]).max()
    assert streamed.samples == len(pairs)


@settings(deadline=None, max_examples=60)
@given(pairs=whole_pairs, data=st.data())
def test_order_does_not_matter(pairs: list[FloatArray], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(pairs))
    one, other = _accumulate(pairs), _accumulate(shuffled)
    assert one.sqnr_db == other.sqnr_db
    assert one.max_abs_error == other.max_abs_error
    # A mean of n numbers of at most 1: each addition in float64 errs by at most n * 2^-53.
    assert abs(one.cosine - other.cosine) <= 2 * len(pairs) * 2.0**-53 * len(pairs)


@settings(deadline=None, max_examples=60)
@given(pairs=whole_pairs)
def test_cosine_is_the_mean_over_samples(pairs: list[FloatArray]) -> None:
    cosines = []
    for reference, measured in pairs:
        a, b = reference.astype(np.float64), measured.astype(np.float64)
        norms = np.linalg.norm(a) * np.linalg.norm(b)
        cosines.append(a @ b / norms if norms else float(np.array_equal(a, b)))
    # Two square roots, their product, a quotient and a mean of n terms, each rounded once.
    tolerance = (4 + len(pairs)) * 2 * 2.0**-53
    assert abs(_accumulate(pairs).cosine - np.mean(cosines)) <= tolerance


@settings(deadline=None, max_examples=60)
@given(
    reference=hnp.arrays(np.float32, 9, elements=st.integers(-1000, 1000).map(np.float32)),
    exponent=st.integers(-30, 30),
)
def test_sqnr_does_not_depend_on_the_unit(reference: FloatArray, exponent: int) -> None:
    measured = reference + np.arange(9, dtype=np.float32)
    factor = np.float32(2.0**exponent)
    assert sqnr_db(reference, measured) == sqnr_db(reference * factor, measured * factor)


@pytest.mark.parametrize(
    ("reference", "measured", "expected"),
    [
        pytest.param([3.0, 4.0], [3.0, 4.0], math.inf, id="identical"),
        pytest.param([0.0, 0.0], [0.0, 0.0], math.inf, id="both_zero"),
        pytest.param([0.0, 0.0], [1.0, 0.0], -math.inf, id="noise_without_signal"),
        pytest.param([3.0, 4.0], [0.0, 0.0], 0.0, id="all_lost"),
        pytest.param([10.0], [9.0], 20.0, id="a_tenth"),
        pytest.param([], [], math.inf, id="empty"),
    ],
)
def test_sqnr_examples(reference: list[float], measured: list[float], expected: float) -> None:
    assert sqnr_db(np.float32(reference), np.float32(measured)) == expected


def test_non_finite_references_are_left_out_and_non_finite_results_are_counted() -> None:
    accumulator = ErrorAccumulator()
    accumulator.add(
        np.float32([1, np.inf, np.nan, 2, 2, -np.inf]),
        np.float32([1, 5, 5, np.nan, np.inf, -np.inf]),
    )
    assert accumulator.non_finite == 2
    assert accumulator.signal == 1.0
    assert accumulator.sqnr_db == math.inf


def test_no_samples() -> None:
    assert ErrorAccumulator().cosine == 1.0
    assert ErrorAccumulator().sqnr_db == math.inf


def test_half_precision_outputs_do_not_overflow() -> None:
    values = np.full(1000, 60000, np.float16)
    accumulator = ErrorAccumulator()
    accumulator.add(values, values)
    assert accumulator.signal == 1000 * 60000.0**2
    # Two square roots, their product and a quotient, each rounded once.
    assert abs(accumulator.cosine - 1.0) <= 4 * 2.0**-53


@pytest.mark.parametrize("step", [0.5, 0.1, 2.0**-7], ids=str)
@pytest.mark.parametrize("elements", [1000, 100_000])
def test_expected_sqnr_is_that_of_uniform_noise(
    step: float, elements: int, rng: np.random.Generator
) -> None:
    """The square of an error that is uniform over a step has the mean s^2/12 and the variance
    s^4/180: the mean of n of them has a relative deviation of 12 / sqrt(180 n)."""
    reference = rng.standard_normal(elements) * 3
    measured = reference + rng.uniform(-step / 2, step / 2, elements)
    expected = expected_sqnr_db(float(np.mean(reference**2)), step**2)
    deviation = 12 / math.sqrt(180 * elements)
    five_sigma_db = -10 * math.log10(1 - 5 * deviation)
    assert abs(sqnr_db(reference, measured) - expected) < five_sigma_db


def test_rounding_to_a_grid_is_uniform_noise(rng: np.random.Generator) -> None:
    elements, step = 100_000, 0.1
    reference = rng.standard_normal(elements)
    measured = np.rint(reference / step) * step
    expected = expected_sqnr_db(float(np.mean(reference**2)), step**2)
    # As above; a Gaussian ten steps wide deviates from uniform errors by exp(-2 pi^2 100) only.
    five_sigma_db = -10 * math.log10(1 - 5 * 12 / math.sqrt(180 * elements))
    assert abs(sqnr_db(reference, measured) - expected) < five_sigma_db


def test_expected_sqnr_without_noise_or_signal() -> None:
    assert expected_sqnr_db(1.0, 0.0) == math.inf
    assert expected_sqnr_db(0.0, 1.0) == -math.inf


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64], ids=["f16", "f32", "f64"])
def test_sums_of_products_do_not_overflow_or_round_in_the_type_of_the_elements(dtype: type) -> None:
    # In float16 the first square overflows, in float32 the last product is lost beside it.
    a = np.array([2.0**15, 1.0], dtype)
    b = np.array([2.0**15, 1.0], dtype)
    assert sum_of_products(a, b) == 2.0**30 + 1.0
