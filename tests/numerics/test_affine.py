from __future__ import annotations

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from onnxq.numerics.affine import (
    Parameters,
    choose_parameters,
    dequantize,
    fit_inside,
    quantize,
)

FLOAT32_HALF_ULP = 2.0**-24
"""Largest relative error of one rounding to float32."""

RANGES = {
    "u8": (0, 255, 128),
    "s8": (-127, 127, 0),
    "s8_full": (-128, 127, 0),
    "s7": (-63, 63, 0),
    "u7": (1, 127, 64),
    "u4": (0, 15, 8),
    "s4": (-8, 7, 0),
}

real_arrays = hnp.arrays(
    np.float32,
    st.integers(1, 40),
    elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=True),
)
ranges = st.sampled_from(sorted(RANGES))


def _parameters(real: npt.NDArray[np.float32], name: str, *, symmetric: bool) -> Parameters:
    low, high, midpoint = RANGES[name]
    return choose_parameters(
        real.min(keepdims=True),
        real.max(keepdims=True),
        quantized_min=low,
        quantized_max=high,
        midpoint=midpoint if symmetric else None,
    )


@settings(deadline=None, max_examples=150)
@given(real=real_arrays, name=ranges, symmetric=st.booleans())
def test_round_trip_is_within_half_a_step(
    real: npt.NDArray[np.float32], name: str, symmetric: bool
) -> None:
    low, high, _ = RANGES[name]
    parameters = _parameters(real, name, symmetric=symmetric)
    rebuilt = dequantize(
        quantize(real, parameters, quantized_min=low, quantized_max=high), parameters
    )
    # Beside half a step of rounding: the quotient, the scale and the product are each rounded to
    # float32, and none of them is larger than the number of steps in the range.
    slack_in_steps = 3 * FLOAT32_HALF_ULP * (high - low)
    scale = parameters.scale.astype(np.float64)
    assert np.all(np.abs(rebuilt.astype(np.float64) - real) <= scale * (0.5 + slack_in_steps))


@settings(deadline=None, max_examples=60)
@given(real=real_arrays, name=ranges, symmetric=st.booleans())
def test_zero_is_exact(real: npt.NDArray[np.float32], name: str, symmetric: bool) -> None:
    low, high, _ = RANGES[name]
    parameters = _parameters(real, name, symmetric=symmetric)
    quantized = quantize(np.zeros(1, np.float32), parameters, quantized_min=low, quantized_max=high)
    assert np.array_equal(quantized, parameters.zero_point)
    assert low <= int(parameters.zero_point[0]) <= high
    assert dequantize(quantized, parameters).tolist() == [0.0]


@settings(deadline=None, max_examples=60)
@given(real=real_arrays, name=ranges, symmetric=st.booleans())
def test_scale_is_a_positive_normal_float32(
    real: npt.NDArray[np.float32], name: str, symmetric: bool
) -> None:
    scale = _parameters(real, name, symmetric=symmetric).scale
    assert scale.dtype == np.float32
    assert np.all(scale >= np.finfo(np.float32).tiny)


@settings(deadline=None, max_examples=60)
@given(real=real_arrays, name=ranges, symmetric=st.booleans())
def test_quantize_is_monotone(real: npt.NDArray[np.float32], name: str, symmetric: bool) -> None:
    low, high, _ = RANGES[name]
    parameters = _parameters(real, name, symmetric=symmetric)
    quantized = quantize(np.sort(real), parameters, quantized_min=low, quantized_max=high)
    assert np.all(np.diff(quantized) >= 0)


@settings(deadline=None, max_examples=60)
@given(
    name=ranges,
    zero_point=st.integers(-8, 15),
    exponent=st.integers(-60, 60),
    mantissa=st.integers(1, 2**16),
)
def test_every_integer_survives_dequantize_and_quantize(
    name: str, zero_point: int, exponent: int, mantissa: int
) -> None:
    low, high, _ = RANGES[name]
    parameters = Parameters(
        np.float32([mantissa * 2.0**exponent]), np.int32([np.clip(zero_point, low, high)])
    )
    integers = np.arange(low, high + 1, dtype=np.int32)
    real = dequantize(integers, parameters)
    again = quantize(real, parameters, quantized_min=low, quantized_max=high)
    assert np.array_equal(again, integers)


@settings(deadline=None, max_examples=60)
@given(real=real_arrays, name=ranges)
def test_symmetric_parameters_do_not_depend_on_the_sign(
    real: npt.NDArray[np.float32], name: str
) -> None:
    low, high, midpoint = RANGES[name]
    if midpoint - low != high - midpoint:
        low = 2 * midpoint - high
    kwargs = {"quantized_min": low, "quantized_max": high, "midpoint": midpoint}
    minimum, maximum = real.min(keepdims=True), real.max(keepdims=True)
    assert np.array_equal(
        choose_parameters(minimum, maximum, **kwargs).scale,
        choose_parameters(-maximum, -minimum, **kwargs).scale,
    )


ONNX_TYPES = {
    "u8": (TensorProto.UINT8, np.uint8, 0, 255),
    "s8": (TensorProto.INT8, np.int8, -128, 127),
    "u4": (TensorProto.UINT4, ml_dtypes.uint4, 0, 15),
    "s4": (TensorProto.INT4, ml_dtypes.int4, -8, 7),
}


@pytest.mark.parametrize("name", sorted(ONNX_TYPES))
@pytest.mark.parametrize("scale", [0.5, 1.0, 0.1, 3e-3, 7.7e4], ids=str)
def test_agrees_with_the_onnx_reference(name: str, scale: float, rng: np.random.Generator) -> None:
    onnx_type, numpy_type, low, high = ONNX_TYPES[name]
    width = high - low
    zero_points = np.array([low, (low + high) // 2, high], np.int32)
    # Whole steps, exact halves (ties), and anything, up to beyond both ends of the range.
    steps = np.concatenate(
        [np.arange(-2 * width, 2 * width) / 2, rng.uniform(-2 * width, 2 * width, 500)]
    )
    real = (steps[:, None] * scale).astype(np.float32).repeat(3, axis=1)
    scales = np.full(3, scale, np.float32)

    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"], axis=1)
    evaluator = ReferenceEvaluator(node)
    (expected,) = evaluator.run(None, {"x": real, "s": scales, "z": zero_points.astype(numpy_type)})
    parameters = Parameters(scales, zero_points)
    quantized = quantize(real, parameters, quantized_min=low, quantized_max=high)
    assert np.array_equal(quantized, expected.astype(np.int32))
    assert onnx_type == helper.np_dtype_to_tensor_dtype(np.dtype(numpy_type))

    node = helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=1)
    (rebuilt,) = ReferenceEvaluator(node).run(
        None, {"q": expected, "s": scales, "z": zero_points.astype(numpy_type)}
    )
    assert np.array_equal(dequantize(quantized, parameters), rebuilt)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (-2.5, -2)],
    ids=str,
)
def test_halves_round_to_even(steps: float, expected: int) -> None:
    parameters = Parameters(np.float32([0.25]), np.int32([0]))
    quantized = quantize(np.float32([steps * 0.25]), parameters, quantized_min=-8, quantized_max=7)
    assert quantized.tolist() == [expected]


def test_values_beyond_the_range_saturate() -> None:
    parameters = Parameters(np.float32([1.0]), np.int32([3]))
    quantized = quantize(
        np.float32([-1e30, -12, 5, 1e30]), parameters, quantized_min=-8, quantized_max=7
    )
    assert quantized.tolist() == [-8, -8, 7, 7]


@pytest.mark.parametrize(
    ("minimum", "maximum", "expected"),
    [
        pytest.param(0.0, 0.0, 1.0, id="all_zero"),
        pytest.param(-0.0, 0.0, 1.0, id="negative_zero"),
        pytest.param(0.0, 1e-44, 1.0, id="subnormal"),
        pytest.param(2.0, 2.0, 2.0 / 255, id="one_positive_value"),
        pytest.param(-2.0, -2.0, 2.0 / 255, id="one_negative_value"),
    ],
)
def test_degenerate_ranges(minimum: float, maximum: float, expected: float) -> None:
    parameters = choose_parameters(
        np.float32([minimum]), np.float32([maximum]), quantized_min=0, quantized_max=255
    )
    assert parameters.scale.tolist() == [np.float32(expected)]
    real = np.float32([minimum, maximum])
    quantized = quantize(real, parameters, quantized_min=0, quantized_max=255)
    assert np.all(np.abs(dequantize(quantized, parameters) - real) <= np.float32(expected) / 2)


@pytest.mark.parametrize(
    ("minimum", "maximum", "zero_point"),
    [
        pytest.param(1.0, 3.0, 0, id="all_positive"),
        pytest.param(-3.0, -1.0, 255, id="all_negative"),
        pytest.param(-127.5, 127.5, 128, id="halfway_to_even"),
        pytest.param(-1.0, 254.0, 1, id="mostly_positive"),
    ],
)
def test_asymmetric_zero_point(minimum: float, maximum: float, zero_point: int) -> None:
    parameters = choose_parameters(
        np.float32([minimum]), np.float32([maximum]), quantized_min=0, quantized_max=255
    )
    assert parameters.zero_point.tolist() == [zero_point]


def test_parameters_keep_the_shape_of_the_ranges() -> None:
    minimum, maximum = np.full((3, 1, 2), -1.0, np.float32), np.ones((3, 1, 2), np.float32)
    parameters = choose_parameters(
        minimum, maximum, quantized_min=-127, quantized_max=127, midpoint=0
    )
    assert parameters.scale.shape == parameters.zero_point.shape == (3, 1, 2)
    assert parameters.zero_point.dtype == np.int32
    assert not parameters.has_zero_point
    assert Parameters(parameters.scale, parameters.zero_point + 1).has_zero_point


@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("name", sorted(RANGES))
def test_the_largest_float32_stays_finite(name: str, symmetric: bool) -> None:
    """Attention masks hold the lowest float32; infinity in its place makes Softmax give NaN."""
    low, high, _ = RANGES[name]
    real = np.array([np.finfo(np.float32).min, 0.0], np.float32)
    parameters = _parameters(real, name, symmetric=symmetric)
    quantized = quantize(real, parameters, quantized_min=low, quantized_max=high)
    with np.errstate(over="ignore"):
        assert np.all(np.isfinite(dequantize(quantized, parameters)))


class TestFitInside:
    @settings(deadline=None, max_examples=300)
    @given(
        name=ranges,
        share=st.floats(0.0, 1.0),
        scale=st.floats(2.0**-100, 2.0**100, width=32),
        low=st.one_of(
            st.sampled_from([-np.inf, 0.0, -1.0, -3.0]), st.floats(-(2.0**100), 0.0, width=32)
        ),
        high=st.one_of(
            st.sampled_from([np.inf, 0.0, 1.0, 6.0]), st.floats(0.0, 2.0**100, width=32)
        ),
    )
    def test_no_integer_is_outside(
        self, name: str, share: float, scale: float, low: float, high: float
    ) -> None:
        assume(low < high)
        # Smaller limits would need subnormal scales.
        assume(low == 0.0 or low < -(2.0**-100))
        assume(high == 0.0 or high > 2.0**-100)
        first, last, _ = RANGES[name]
        zero_point = first + round(share * (last - first))
        given_ = Parameters(np.asarray(scale, np.float32), np.asarray(zero_point, np.int32))
        found = fit_inside(given_, low, high, quantized_min=first, quantized_max=last)
        assert found.scale <= given_.scale
        assert found.scale > 0.0
        assert (found.scale.dtype, found.zero_point.dtype) == (np.float32, np.int32)
        reals = dequantize(np.arange(first, last + 1, dtype=np.int32), found)
        assert low <= reals.min()
        assert reals.max() <= high
        if low < 0.0 < high:
            assert abs(int(found.zero_point) - zero_point) <= 1
        # The largest that fits: two floats further, some integer is outside.
        if found.scale < given_.scale:
            larger = np.nextafter(np.nextafter(found.scale, np.float32(np.inf)), np.float32(np.inf))
            reals = dequantize(
                np.arange(first, last + 1, dtype=np.int32), Parameters(larger, found.zero_point)
            )
            assert reals.min() < low or reals.max() > high

    def test_parameters_that_fit_stay(self) -> None:
        parameters = Parameters(np.float32([0.01, 0.02]), np.int32([0, 0]))
        found = fit_inside(parameters, 0.0, 6.0, quantized_min=0, quantized_max=255)
        assert found.scale.tolist() == parameters.scale.tolist()
        assert found.zero_point.tolist() == [0, 0]

    def test_each_scale_by_itself(self) -> None:
        parameters = Parameters(np.float32([0.01, 0.5]), np.int32([3, 7]))
        found = fit_inside(parameters, 0.0, 6.0, quantized_min=0, quantized_max=255)
        assert found.zero_point.tolist() == [0, 0]
        assert found.scale[0] == np.float32(0.01)
        assert found.scale[1] == pytest.approx(6.0 / 255, rel=1e-6)

    @pytest.mark.parametrize(
        ("low", "high", "zero_point"),
        [
            pytest.param(0.0, np.inf, 0, id="relu"),
            pytest.param(-np.inf, 0.0, 255, id="only_negative"),
            pytest.param(-1.0, 1.0, 99, id="around_zero"),
            pytest.param(-np.inf, np.inf, 99, id="no_limits"),
        ],
    )
    def test_zero_point(self, low: float, high: float, zero_point: int) -> None:
        parameters = Parameters(np.asarray(0.5, np.float32), np.asarray(99, np.int32))
        found = fit_inside(parameters, low, high, quantized_min=0, quantized_max=255)
        assert int(found.zero_point) == zero_point
        assert found.scale.shape == found.zero_point.shape == ()
