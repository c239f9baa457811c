from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.numerics.affine import choose_parameters, dequantize, quantize
from onnxq.numerics.weight_scales import shrink_ranges
from onnxq.schemes import Scheme, WeightType

Array = npt.NDArray[Any]

SCHEMES = {
    "int4": Scheme(type=WeightType.INT4),
    "uint4": Scheme(type=WeightType.UINT4, symmetric=False),
    "int8": Scheme(type=WeightType.INT8),
    "7-bit": Scheme(type=WeightType.INT8, reduce_range=True),
    "uint8": Scheme(type=WeightType.UINT8, symmetric=False),
}
schemes = st.sampled_from(sorted(SCHEMES))


def _make_weight(seed: int) -> Array:
    """A convolution's, some channels with outliers, one of zeros."""
    generator = np.random.default_rng(seed)
    weight = generator.standard_normal((5, 4, 3, 3)) * generator.uniform(0.1, 2, (5, 1, 1, 1))
    weight[1, 0, 0] *= 6
    weight[2] += 1
    weight[3] = 0
    return weight.astype(np.float32)


def _measure(
    weight: Array, minimum: Array, maximum: Array, scheme: Scheme, importance: Array | float = 1.0
) -> Array:
    low, high = scheme.range
    parameters = choose_parameters(
        minimum,
        maximum,
        quantized_min=low,
        quantized_max=high,
        midpoint=scheme.midpoint if scheme.symmetric else None,
    )
    integers = quantize(weight, parameters, quantized_min=low, quantized_max=high)
    error = np.square(dequantize(integers, parameters) - weight) * importance
    total: Array = error.sum(axis=(1, 2, 3), keepdims=True, dtype=np.float64)
    return total


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), name=schemes, weighted=st.booleans())
def test_no_channel_is_worse_than_with_the_whole_range(
    seed: int, name: str, weighted: bool
) -> None:
    scheme, weight = SCHEMES[name], _make_weight(seed)
    importance = np.random.default_rng(seed).uniform(0, 9, (1, 4, 3, 3)) if weighted else None
    low, high = (f(axis=(1, 2, 3), keepdims=True) for f in (weight.min, weight.max))
    minimum, maximum = shrink_ranges(weight, low, high, scheme, importance=importance)
    assert minimum.shape == maximum.shape == low.shape
    assert minimum.dtype == maximum.dtype == np.float32
    assert np.all(np.abs(minimum) <= np.abs(low))
    assert np.all(np.abs(maximum) <= np.abs(high))
    by = 1.0 if importance is None else importance
    reached = _measure(weight, minimum, maximum, scheme, by)
    assert np.all(reached <= _measure(weight, low, high, scheme, by))


@pytest.mark.parametrize("name", ["int4", "int8"])
def test_a_symmetric_range_is_the_best_of_a_fine_search(name: str) -> None:
    """Within 0.1 dB: a factor has steps of two hundredths, and the error is flat at its least."""
    scheme = SCHEMES[name]
    weight = np.random.default_rng(0).standard_normal((1, 40, 10, 10)).astype(np.float32)
    low, high = (np.float32(v).reshape(1, 1, 1, 1) for v in (weight.min(), weight.max()))
    found = _measure(weight, *shrink_ranges(weight, low, high, scheme), scheme)
    fine = [_measure(weight, low * f, high * f, scheme) for f in np.linspace(0.3, 1, 281)]
    assert 10 * np.log10(float(found.item() / np.min(fine))) < 0.1
    whole = _measure(weight, low, high, scheme)
    assert 10 * np.log10(float((whole / found).item())) > {"int4": 2.0, "int8": 0.05}[name]


def test_importance_decides_which_errors_count() -> None:
    weight = np.linspace(-1, 1, 400, dtype=np.float32).reshape(1, 4, 10, 10)
    weight[0, 0, 0, 0] = -1.8
    low, high = (np.float32(v).reshape(1, 1, 1, 1) for v in (weight.min(), weight.max()))
    importance = np.ones_like(weight)
    importance[0, 0, 0, 0] = 1e4
    scheme = SCHEMES["int4"]
    assert shrink_ranges(weight, low, high, scheme)[0].item() > -1.3
    minimum, _ = shrink_ranges(weight, low, high, scheme, importance=importance)
    assert minimum.item() == np.float32(-1.8)


def test_one_range_for_the_whole_tensor() -> None:
    weight = np.random.default_rng(1).standard_normal((3, 50)).astype(np.float32)
    weight[0, 0] = 9
    low, high = weight.min(keepdims=True), weight.max(keepdims=True)
    minimum, maximum = shrink_ranges(weight, low, high, SCHEMES["int4"])
    assert minimum.shape == maximum.shape == (1, 1)
    assert maximum.item() < 9


def test_the_ends_of_an_asymmetric_range_move_apart() -> None:
    weight = np.linspace(-1, 1, 2000, dtype=np.float32).reshape(1, -1)
    weight[0, 0] = -3
    minimum, maximum = shrink_ranges(
        weight, weight.min(keepdims=True), weight.max(keepdims=True), SCHEMES["uint4"]
    )
    assert minimum.item() > -2
    assert maximum.item() > 0.9
