from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxq.numerics.affine import Parameters, dequantize, quantize
from onnxq.numerics.block_scales import choose_block_parameters, fit_blocks
from onnxq.schemes import Scheme, WeightType

Array = npt.NDArray[Any]

SCHEMES = {
    "int4": Scheme(type=WeightType.INT4, block_size=16),
    "int4_asymmetric": Scheme(type=WeightType.INT4, block_size=16, symmetric=False),
    "uint4": Scheme(type=WeightType.UINT4, block_size=16, symmetric=True),
    "uint4_asymmetric": Scheme(type=WeightType.UINT4, block_size=16, symmetric=False),
}
schemes = st.sampled_from(sorted(SCHEMES))
block_arrays = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.just(16), st.integers(1, 3)),
    elements=st.one_of(st.just(0.0), st.floats(-(2.0**40), 2.0**40, width=32)),
)


def _measure(
    real: Array, parameters: Parameters, scheme: Scheme, importance: Array | float = 1.0
) -> Array:
    """Squared error of each block and column."""
    low, high = scheme.range
    rounded = quantize(real, parameters, quantized_min=low, quantized_max=high)
    scale = parameters.scale.astype(np.float64)
    error = scale * (rounded - parameters.zero_point) - real.astype(np.float64)
    total: Array = (importance * error**2).sum(axis=1)
    return total


def _plain_scales(real: Array, scheme: Scheme) -> dict[str, Parameters]:
    """The largest magnitude at the seventh or eighth integer."""
    largest = np.abs(real).max(axis=1, keepdims=True)
    smallest = np.finfo(np.float32).tiny
    middle = np.full(largest.shape, scheme.midpoint, np.int32)
    return {
        str(steps): Parameters(np.maximum(largest / np.float32(steps), smallest), middle)
        for steps in (7, 8)
    }


@settings(deadline=None, max_examples=100)
@given(real=block_arrays, name=schemes)
def test_no_block_is_worse_than_with_plain_scales(real: Array, name: str) -> None:
    scheme = SCHEMES[name]
    fit = fit_blocks(real, scheme)
    reached = _measure(real, fit.parameters, scheme)
    slack = 1e-5 * np.square(real, dtype=np.float64).sum(axis=1)
    # Scales are normal floats at least: what is smaller than eight of the smallest may become 0.
    slack += 16 * (8 * float(np.finfo(np.float32).tiny)) ** 2
    for plain in _plain_scales(real, scheme).values():
        lost = _measure(real, plain, scheme)
        assert np.all(reached <= lost + slack)
        assert np.all(fit.plain_error[:, 0] <= lost + slack)


@settings(deadline=None, max_examples=100)
@given(real=block_arrays, name=schemes, weighted=st.booleans())
def test_no_block_is_worse_than_with_its_extremes(real: Array, name: str, weighted: bool) -> None:
    scheme = SCHEMES[name]
    importance = np.linspace(0.1, 4, 16).reshape(1, 16, 1) if weighted else None
    spread = None if importance is None else np.broadcast_to(importance, (len(real), 16, 1))
    found = fit_blocks(real, scheme, importance=spread).parameters
    assert found.scale.dtype == np.float32
    assert found.zero_point.dtype == np.int32
    assert np.all(np.abs(found.scale) >= np.finfo(np.float32).tiny)
    by = 1.0 if importance is None else importance
    reached = _measure(real, found, scheme, by)
    before = _measure(real, choose_block_parameters(real, scheme), scheme, by)
    # Errors are compared in float32, in units in which a weight has at most 16 steps.
    power = (by * real.astype(np.float64) ** 2).sum(axis=1)
    assert np.all(reached <= before + 1e-5 * power)


@pytest.mark.parametrize(
    ("name", "gain_db"),
    [("int4", 0.5), ("int4_asymmetric", 0.3), ("uint4_asymmetric", 0.3)],
    ids=str,
)
def test_gaussian_blocks_gain(name: str, gain_db: float) -> None:
    """Measured in blocks of 128: 0.6 dB and 0.5 dB."""
    scheme = Scheme(type=SCHEMES[name].type, block_size=128, symmetric=SCHEMES[name].symmetric)
    real = np.random.default_rng(0).standard_normal((20, 128, 20)).astype(np.float32)
    before = _measure(real, choose_block_parameters(real, scheme), scheme).sum()
    after = _measure(real, fit_blocks(real, scheme).parameters, scheme).sum()
    assert 10 * np.log10(before / after) > gain_db


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_blocks_on_a_grid_stay_exact(name: str) -> None:
    generator = np.random.default_rng(1)
    scheme = SCHEMES[name]
    low, high = scheme.range
    integers = generator.integers(low, high + 1, (3, 16, 4))
    integers[:, 0], integers[:, 1] = low, high
    zero_point = scheme.midpoint if scheme.symmetric else 5
    real = (np.float32(0.25) * (integers - zero_point)).astype(np.float32)
    found = fit_blocks(real, scheme).parameters
    rounded = quantize(real, found, quantized_min=low, quantized_max=high)
    assert np.array_equal(dequantize(rounded, found), real)


def test_importance_keeps_what_matters() -> None:
    real = np.linspace(-1, 1, 16, dtype=np.float32).reshape(1, 16, 1)
    real[0, 0] = -1.6
    importance = np.ones((1, 16, 1))
    importance[0, 0] = 1e4
    scheme = SCHEMES["int4"]
    low, high = scheme.range
    found = fit_blocks(real, scheme, importance=importance).parameters
    rebuilt = dequantize(quantize(real, found, quantized_min=low, quantized_max=high), found)
    assert abs(rebuilt[0, 0, 0] + 1.6) < 1e-3


def test_blocks_do_not_depend_on_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    real = np.random.default_rng(2).standard_normal((9, 16, 5)).astype(np.float32)
    whole = fit_blocks(real, SCHEMES["uint4_asymmetric"]).parameters
    monkeypatch.setattr("onnxq.numerics.block_scales.STRETCH_ELEMENTS", 1)
    apart = fit_blocks(real, SCHEMES["uint4_asymmetric"]).parameters
    assert np.array_equal(whole.scale, apart.scale)
    assert np.array_equal(whole.zero_point, apart.zero_point)


@pytest.mark.parametrize("shape", [(0, 16, 3), (2, 16, 0)], ids=str)
def test_empty_arrays(shape: tuple[int, int, int]) -> None:
    found = fit_blocks(np.zeros(shape, np.float32), SCHEMES["int4"]).parameters
    assert found.scale.shape == (shape[0], 1, shape[2])


@settings(deadline=None, max_examples=60)
@given(real=block_arrays)
def test_symmetric_scales_that_reach_keep_the_extreme(real: Array) -> None:
    scheme = SCHEMES["int4"]
    low, high = scheme.range
    parameters = choose_block_parameters(real, scheme)
    rounded = quantize(real, parameters, quantized_min=low, quantized_max=high)
    rebuilt = np.abs(dequantize(rounded, parameters)).max(axis=1)
    extremes = np.abs(real).max(axis=1)
    # extreme / -8 and its product with -8 are exact: 8 is a power of two.
    kept = extremes / 8 >= np.finfo(np.float32).tiny
    assert np.array_equal(rebuilt[kept], extremes[kept])
