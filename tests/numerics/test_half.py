from __future__ import annotations

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxq.numerics.half import (
    LOWEST_HALF_SQNR_DB,
    STRETCH_ELEMENTS,
    reason_half_does_not_fit,
    to_half,
)
from onnxq.numerics.metrics import sqnr_db
from onnxq.schemes import WeightType

HALF_TYPES = [WeightType.FP16, WeightType.BF16]

half_types = pytest.mark.parametrize("weight_type", HALF_TYPES, ids=["fp16", "bf16"])

floats = hnp.arrays(np.float32, st.integers(1, 30), elements=st.floats(width=32, allow_nan=False))


@settings(deadline=None, max_examples=100)
@given(real=floats)
def test_bf16_is_the_upper_half_of_a_float_rounded_to_even(real: npt.NDArray[np.float32]) -> None:
    bits = real.view(np.uint32).astype(np.uint64)
    expected = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    assert np.array_equal(to_half(real, WeightType.BF16).view(np.uint16), expected)


@settings(deadline=None, max_examples=100)
@given(real=floats)
def test_fp16_is_the_nearest(real: npt.NDArray[np.float32]) -> None:
    real = real[np.abs(real) < 65504]
    half = to_half(real, WeightType.FP16)
    assert half.dtype == np.float16
    error = np.abs(half.astype(np.float64) - real)
    for direction in (-np.inf, np.inf):
        neighbour = np.nextafter(half, np.float16(direction)).astype(np.float64)
        assert np.all(error <= np.abs(neighbour - real))


@half_types
def test_half_precision_numbers_are_kept_exactly(weight_type: WeightType) -> None:
    every_pattern = np.arange(2**16, dtype=np.uint16)
    dtype = np.float16 if weight_type is WeightType.FP16 else ml_dtypes.bfloat16
    numbers = every_pattern.view(dtype)
    numbers = numbers[np.isfinite(numbers.astype(np.float32))]
    assert np.array_equal(to_half(numbers.astype(np.float32), weight_type), numbers)


@pytest.mark.parametrize(
    ("values", "weight_type"),
    [
        pytest.param([1.0, -2.5, 0.0], WeightType.FP16, id="ordinary_fp16"),
        pytest.param([1.0, -2.5, 0.0], WeightType.BF16, id="ordinary_bf16"),
        pytest.param([65504.0], WeightType.FP16, id="largest_fp16"),
        # 65520 is halfway to what would be the next number; below it rounds to 65504.
        pytest.param([65519.0], WeightType.FP16, id="rounds_to_the_largest_fp16"),
        pytest.param([1e38], WeightType.BF16, id="large_bf16"),
        pytest.param([np.inf, 1.0], WeightType.FP16, id="infinity_stays_infinity"),
        pytest.param([np.nan, 1.0], WeightType.FP16, id="nan_stays_nan"),
        pytest.param([0.0, 0.0], WeightType.FP16, id="all_zero"),
        pytest.param([1.0, 1e-9], WeightType.FP16, id="one_lost_value_among_large_ones"),
        pytest.param([1e-30], WeightType.BF16, id="tiny_bf16"),
        pytest.param([], WeightType.FP16, id="empty"),
    ],
)
def test_what_fits(values: list[float], weight_type: WeightType) -> None:
    assert reason_half_does_not_fit(np.array(values, np.float32), weight_type) is None


@pytest.mark.parametrize(
    ("values", "weight_type", "reason"),
    [
        pytest.param([65520.0, 1.0], WeightType.FP16, "65504", id="beyond_fp16"),
        pytest.param([-1e5], WeightType.FP16, "largest value 1e+05", id="negative_beyond_fp16"),
        pytest.param([1e5, np.inf], WeightType.FP16, "1e+05", id="beyond_fp16_beside_infinity"),
        pytest.param([3.4e38], WeightType.BF16, "3.39e38", id="beyond_bf16"),
        pytest.param([1e-7, 3e-8], WeightType.FP16, "too small", id="below_fp16"),
        pytest.param([1e-12], WeightType.FP16, "too small", id="vanishes_in_fp16"),
        pytest.param([1e-40, 3e-40], WeightType.BF16, "too small", id="below_bf16"),
    ],
)
def test_what_does_not_fit(values: list[float], weight_type: WeightType, reason: str) -> None:
    found = reason_half_does_not_fit(np.array(values, np.float32), weight_type)
    assert found is not None
    assert reason in found
    assert "\n" not in found


@pytest.mark.parametrize("position", [0, STRETCH_ELEMENTS - 1, STRETCH_ELEMENTS, -1], ids=str)
def test_every_stretch_of_a_large_tensor_is_looked_at(position: int) -> None:
    values = np.ones(2 * STRETCH_ELEMENTS + 3, np.float32)
    assert reason_half_does_not_fit(values, WeightType.FP16) is None
    values[position] = 1e6
    assert reason_half_does_not_fit(values, WeightType.FP16) is not None


@half_types
def test_doubles_beyond_float_do_not_fit(weight_type: WeightType) -> None:
    assert reason_half_does_not_fit(np.array([1e300]), weight_type) is not None


@half_types
def test_limit_is_below_what_every_normal_tensor_reaches(
    weight_type: WeightType, rng: np.random.Generator
) -> None:
    """Rounding to p significant bits errs by at most 2^-p of the value: an SQNR of 6.02 p dB at
    least, and any tensor whose elements are all normal in the type is far over the limit."""
    significant_bits = {WeightType.FP16: 11, WeightType.BF16: 8}[weight_type]
    worst_db = 20 * significant_bits * np.log10(2)
    real = rng.standard_normal(10_000).astype(np.float32)
    real = real[np.abs(real) > 1e-3]
    assert sqnr_db(real, to_half(real, weight_type)) > worst_db > LOWEST_HALF_SQNR_DB[weight_type]
