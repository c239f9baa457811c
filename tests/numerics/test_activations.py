from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from onnxq.numerics.activations import choose_activation_parameters, quantize_bias
from onnxq.numerics.affine import Parameters, dequantize, quantize
from onnxq.schemes import ActivationScheme, ActivationType

UINT8 = ActivationScheme()
SCHEMES = [ActivationScheme(type=one) for one in ActivationType]
SYMMETRIC = [ActivationScheme(type=one, symmetric=True) for one in ActivationType]

schemes = st.sampled_from(SCHEMES)
every_scheme = st.sampled_from([*SCHEMES, *SYMMETRIC])
reals = st.floats(-(2.0**100), 2.0**100, width=32)
LIMITS = [1e-30, 1e-3, 0.1, 1.0, 6.0, 1.0 / 3.0, 20.0, 65504.0, 1e30, math.inf]


def _float32(value: float) -> float:
    return float(np.float32(value))


limits = st.tuples(
    st.one_of(
        st.just(0.0),
        st.sampled_from(LIMITS).map(lambda one: -_float32(one)),
        st.floats(-(2.0**100), -(2.0**-100), width=32),
    ),
    st.one_of(
        st.just(0.0),
        st.sampled_from(LIMITS).map(_float32),
        st.floats(2.0**-100, 2.0**100, width=32),
    ),
).filter(lambda pair: pair[0] < pair[1])


def _all_reals(parameters: Parameters, scheme: ActivationScheme) -> np.ndarray:
    low, high = scheme.range
    return dequantize(np.arange(low, high + 1, dtype=np.int32), parameters)


@settings(deadline=None, max_examples=100)
@given(low=reals, high=reals, scheme=every_scheme, bounds=st.one_of(st.none(), limits))
def test_parameters_are_numbers_and_zero_is_exact(
    low: float, high: float, scheme: ActivationScheme, bounds: tuple[float, float] | None
) -> None:
    low, high = min(low, high), max(low, high)
    parameters = choose_activation_parameters(low, high, scheme, bounds)
    assert parameters.scale.shape == parameters.zero_point.shape == ()
    assert (parameters.scale.dtype, parameters.zero_point.dtype) == (np.float32, np.int32)
    assert np.isfinite(parameters.scale)
    assert parameters.scale >= np.finfo(np.float32).tiny
    first, last = scheme.range
    assert first <= int(parameters.zero_point) <= last
    zero = quantize(np.zeros(1, np.float32), parameters, quantized_min=first, quantized_max=last)
    assert zero.tolist() == [int(parameters.zero_point)]
    assert dequantize(zero, parameters).tolist() == [0.0]


@settings(deadline=None, max_examples=300)
@given(low=reals, high=reals, scheme=schemes, bounds=limits)
def test_every_integer_is_inside_the_bounds(
    low: float, high: float, scheme: ActivationScheme, bounds: tuple[float, float]
) -> None:
    """So that the runtime can leave out the Relu or Clip."""
    low, high = min(low, high), max(low, high)
    parameters = choose_activation_parameters(low, high, scheme, bounds)
    found = _all_reals(parameters, scheme)
    assert bounds[0] <= found.min()
    assert found.max() <= bounds[1]


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("high", [1e-30, 0.1, 1.0 / 3.0, 1.0, 6.0, 1e30, math.inf], ids=str)
@pytest.mark.parametrize("seen", [0.0, 0.7, 1.3], ids=["none", "within", "beyond"])
def test_zero_is_at_the_edge_for_a_relu(scheme: ActivationScheme, high: float, seen: float) -> None:
    limit = _float32(high)
    reached = seen * (limit if math.isfinite(limit) else 100.0)
    parameters = choose_activation_parameters(-reached, reached, scheme, (0.0, limit))
    assert int(parameters.zero_point) == scheme.range[0]
    found = _all_reals(parameters, scheme)
    assert found.min() == 0.0
    assert found.max() <= limit
    if seen:
        assert found.max() == pytest.approx(min(reached, limit), rel=1e-6)


def test_zero_is_at_the_other_edge_for_a_maximum_of_zero() -> None:
    parameters = choose_activation_parameters(-3.0, 9.0, UINT8, (-1.0, 0.0))
    assert int(parameters.zero_point) == 255
    assert _all_reals(parameters, UINT8).min() == pytest.approx(-1.0, rel=1e-6)


@pytest.mark.parametrize(
    ("low", "high", "bounds", "expected"),
    [
        pytest.param(-0.3, 6.2, (0.0, 6.0), (0.0, 6.0), id="relu6"),
        pytest.param(-3.0, 2.0, (0.0, math.inf), (0.0, 2.0), id="relu"),
        pytest.param(0.0, 2.0, (0.0, 6.0), (0.0, 2.0), id="range_within_bounds"),
        pytest.param(-5.0, 5.0, (-1.0, 1.0), (-1.0, 1.0), id="around_zero"),
        pytest.param(-5.0, -2.0, (0.0, 6.0), (0.0, 6.0), id="all_below"),
        pytest.param(7.0, 9.0, (0.0, 6.0), (0.0, 6.0), id="all_above"),
        pytest.param(-1.0, 3.0, None, (-1.0, 3.0), id="no_bounds"),
        pytest.param(1.0, 3.0, None, (0.0, 3.0), id="widened_down_to_zero"),
        pytest.param(-3.0, -1.0, None, (-3.0, 0.0), id="widened_up_to_zero"),
        pytest.param(-2.0, 3.0, (-math.inf, math.inf), (-2.0, 3.0), id="infinite_bounds"),
    ],
)
def test_what_is_covered(
    low: float, high: float, bounds: tuple[float, float] | None, expected: tuple[float, float]
) -> None:
    parameters = choose_activation_parameters(low, high, UINT8, bounds)
    found = _all_reals(parameters, UINT8)
    # The zero point is rounded to a whole step; inside bounds there may be one step less.
    share = 0.51 if bounds is None else 1.01
    assert found.min() == pytest.approx(expected[0], abs=share * float(parameters.scale))
    assert found.max() == pytest.approx(expected[1], abs=share * float(parameters.scale))


@pytest.mark.parametrize("value", [0.0, 1e-40, -1e-40], ids=str)
def test_a_range_of_nothing_gets_a_scale(value: float) -> None:
    parameters = choose_activation_parameters(value, value, UINT8)
    assert float(parameters.scale) == 1.0


@settings(deadline=None, max_examples=100)
@given(low=reals, high=reals, scheme=st.sampled_from(SYMMETRIC))
def test_symmetric_parameters(low: float, high: float, scheme: ActivationScheme) -> None:
    low, high = min(low, high), max(low, high)
    parameters = choose_activation_parameters(low, high, scheme)
    assert int(parameters.zero_point) == scheme.midpoint
    found = _all_reals(parameters, scheme)
    slack = 1.0 + 1e-6
    if max(-low, high) > 1e-30:
        assert found.min() * slack <= min(low, 0.0)
        assert found.max() * slack >= max(high, 0.0)


@pytest.mark.parametrize("scheme", SYMMETRIC, ids=str)
def test_symmetric_signed_integers_stay_symmetric_behind_a_relu(scheme: ActivationScheme) -> None:
    """Unsigned ones would lose half of their integers, and get zero at the edge instead."""
    parameters = choose_activation_parameters(-3.0, 6.5, scheme, (0.0, 6.0))
    expected = 0 if scheme.type.is_signed else scheme.range[0]
    assert int(parameters.zero_point) == expected
    assert _all_reals(parameters, scheme).max() == pytest.approx(6.0, rel=1e-4)


def test_a_limit_of_half_a_step_does_not_halve_the_range() -> None:
    """Clip(-0.0125, 6): zero point 1 makes a step at most 0.0125, so 3.2 is the largest real."""
    parameters = choose_activation_parameters(-5.0, 7.0, UINT8, (-0.0125, 6.0))
    assert _all_reals(parameters, UINT8).max() > 5.9


@pytest.mark.parametrize("high", [3e-38, 1e-40, 1e-45], ids=str)
def test_bounds_that_are_nearly_nothing_still_get_a_normal_scale(high: float) -> None:
    parameters = choose_activation_parameters(0.0, 1.0, UINT8, (0.0, _float32(high)))
    assert parameters.scale >= np.finfo(np.float32).tiny


def test_ranges_up_to_the_largest_float() -> None:
    largest = float(np.finfo(np.float32).max)
    for scheme in (*SCHEMES, *SYMMETRIC):
        parameters = choose_activation_parameters(-largest, largest, scheme)
        # The integer next to the lowest: symmetric ranges have one more below zero than above.
        with np.errstate(over="ignore"):
            assert np.all(np.isfinite(_all_reals(parameters, scheme)[1:]))


class TestBias:
    def test_steps_of_the_sums(self) -> None:
        scale = np.float32([0.5, 0.25, 1.0])
        found = quantize_bias(np.float32([1.0, -1.0, 2.5]), scale)
        assert found.dtype == np.int32
        assert found.tolist() == [2, -4, 2]

    def test_one_scale_for_all(self) -> None:
        assert quantize_bias(np.float32([1.0, -1.0]), np.float32(0.5)).tolist() == [2, -2]

    def test_saturates(self) -> None:
        scale = np.float32(1e-30)
        found = quantize_bias(np.float32([1.0, -1.0, 0.0]), scale)
        assert found.tolist() == [2**31 - 1, -(2**31), 0]

    def test_steps_beyond_float32_are_exact(self) -> None:
        """2^31 - 1 steps need 31 bits; float32 has 24."""
        bias = np.float64([2**31 - 1, -(2**31) + 1, 2**25 + 1])
        assert quantize_bias(bias, np.float32(1)).tolist() == bias.astype(int).tolist()

    @settings(deadline=None, max_examples=60)
    @given(
        bias=st.floats(-1e6, 1e6, width=32),
        scale=st.floats(2.0**-10, 2.0**10, width=32),
    )
    def test_error_is_half_a_step(self, bias: float, scale: float) -> None:
        assume(abs(bias) / scale < 2**31 - 1)
        (found,) = quantize_bias(np.float32([bias]), np.float32(scale))
        assert abs(int(found) * scale - bias) <= 0.5 * scale * (1 + 1e-9)
