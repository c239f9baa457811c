from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from onnxq.numerics.affine import dequantize, quantize
from onnxq.numerics.metrics import sqnr_db
from onnxq.plan.statistics import expect_sqnr_db, measure_weight, read_real, resolve_parameters
from onnxq.schemes import Scheme, WeightType
from tests.models import float_weight

SCHEMES = {
    "int8": Scheme(type=WeightType.INT8),
    "int8_rows": Scheme(type=WeightType.INT8, axes=(0,)),
    "int8_columns": Scheme(type=WeightType.INT8, axes=(1,)),
    "int8_7_bit": Scheme(type=WeightType.INT8, axes=(1,), reduce_range=True),
    "uint8_asymmetric": Scheme(type=WeightType.UINT8, axes=(1,), symmetric=False),
    "uint8_symmetric": Scheme(type=WeightType.UINT8, axes=(1,)),
}

every_scheme = pytest.mark.parametrize("name", sorted(SCHEMES))


@every_scheme
def test_the_prediction_is_what_rounding_leaves(name: str, rng: np.random.Generator) -> None:
    scheme, shape = SCHEMES[name], (400, 50)
    real = float_weight(rng, shape) * rng.uniform(0.5, 4, 50).astype(np.float32)
    if scheme.axes:  # a third of the channels is not in use
        np.moveaxis(real, scheme.axes[0], 0)[::3] = 0.0
    statistics = measure_weight(real, scheme.axes)
    parameters = resolve_parameters(statistics, scheme)
    low, high = scheme.range
    rebuilt = dequantize(
        quantize(real, parameters, quantized_min=low, quantized_max=high), parameters
    )
    # Errors are independent and uniform in a step s of their channel: their squares have the mean
    # s^2 / 12 and the variance s^4 / 180.
    steps = np.broadcast_to(parameters.scale.astype(np.float64), shape)
    noisy = steps[steps != 1.0]  # a channel of zeros has the scale 1
    deviation = math.sqrt(float(np.sum(noisy**4)) / 180) / (float(np.sum(noisy**2)) / 12)
    five_sigma_db = -10 * math.log10(1 - 5 * deviation)
    # Zeros and the extreme of each channel have no error at all: the prediction may be too low by
    # their share of the noise.
    exact = (real == 0.0) | (np.abs(real) == np.abs(real).max(axis=_reduced(scheme), keepdims=True))
    share = float(np.sum(steps[exact & (steps != 1.0)] ** 2) / np.sum(noisy**2))
    difference = sqnr_db(real, rebuilt) - expect_sqnr_db(statistics, scheme)
    assert -five_sigma_db < difference < five_sigma_db - 10 * math.log10(1 - share)


def _reduced(scheme: Scheme) -> tuple[int, ...]:
    return tuple(axis for axis in (0, 1) if axis not in scheme.axes)


@every_scheme
def test_the_unit_of_the_weights_does_not_matter(name: str, rng: np.random.Generator) -> None:
    real, scheme = float_weight(rng, (30, 20)), SCHEMES[name]
    expected = expect_sqnr_db(measure_weight(real, scheme.axes), scheme)
    for exponent in (-40, 40):
        scaled = real * np.float32(2.0**exponent)
        assert expect_sqnr_db(measure_weight(scaled, scheme.axes), scheme) == expected


def test_ranges_keep_the_reduced_axes(rng: np.random.Generator) -> None:
    real = float_weight(rng, (2, 3, 4))
    statistics = measure_weight(real, (0, 1))
    assert statistics.minimum.shape == statistics.maximum.shape == (2, 3, 1)
    assert np.array_equal(statistics.minimum[..., 0], real.min(axis=2))
    assert np.array_equal(statistics.maximum[..., 0], real.max(axis=2))
    # A float32 sum of n products errs by at most n * 2^-24 relatively.
    exact = float(np.mean(real.astype(np.float64) ** 2))
    assert abs(statistics.mean_square - exact) <= real.size * 2.0**-24 * exact


def test_one_range_for_the_tensor(rng: np.random.Generator) -> None:
    real = float_weight(rng, (5, 6))
    statistics = measure_weight(real, ())
    assert statistics.minimum.tolist() == [[real.min()]]
    assert statistics.maximum.tolist() == [[real.max()]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("axes", [(), (0,), (1,)], ids=str)
def test_a_single_odd_value_is_seen(
    value: float, axes: tuple[int, ...], rng: np.random.Generator
) -> None:
    real = float_weight(rng, (6, 5))
    assert measure_weight(real, axes).is_finite
    real[3, 2] = value
    assert not measure_weight(real, axes).is_finite


def test_a_tensor_of_zeros_loses_nothing() -> None:
    statistics = measure_weight(np.zeros((8, 8), np.float32), (0,))
    assert expect_sqnr_db(statistics, SCHEMES["int8_rows"]) == math.inf


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        pytest.param(np.float32, np.float32, id="float32"),
        pytest.param(np.float64, np.float64, id="float64"),
        pytest.param(np.float16, np.float32, id="float16"),
        pytest.param(ml_dtypes.bfloat16, np.float32, id="bfloat16"),
    ],
)
def test_elements_are_read_without_loss(dtype: type, expected: type) -> None:
    array = np.array([1.5, -2.25, 0.0]).astype(dtype)
    real = read_real(ir.tensor(array))
    assert real.dtype == expected
    assert real.tolist() == [1.5, -2.25, 0.0]
