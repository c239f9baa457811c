from __future__ import annotations

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxq.numerics.affine import Parameters, dequantize
from onnxq.numerics.blocks import (
    pack_nibbles,
    quantize_blocks,
    quantize_blocks_second_order,
)
from onnxq.schemes import Scheme, WeightType
from tests.models import float_weight

NUMPY_TYPES = {WeightType.INT4: ml_dtypes.int4, WeightType.UINT4: ml_dtypes.uint4}

SCHEMES = {
    "int4": (WeightType.INT4, True),
    "int4_asymmetric": (WeightType.INT4, False),
    "uint4": (WeightType.UINT4, True),
    "uint4_asymmetric": (WeightType.UINT4, False),
}

matrices = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 21), st.integers(1, 3)),
    elements=st.floats(-(2.0**100), 2.0**100, width=32),
)
schemes = st.sampled_from(sorted(SCHEMES))
block_sizes = st.sampled_from([1, 2, 4, 8, 16, 32])


def _scheme(name: str, block_size: int) -> Scheme:
    weight_type, symmetric = SCHEMES[name]
    return Scheme(type=weight_type, block_size=block_size, symmetric=symmetric)


def _block_error(weight: npt.NDArray[np.float32], scheme: Scheme) -> npt.NDArray[np.float32]:
    quantized, parameters = quantize_blocks(weight, scheme)
    rebuilt = dequantize(quantized, parameters).reshape(-1, weight.shape[1])
    return np.asarray(rebuilt[: weight.shape[0]] - weight)


def _unpack_nibbles(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.stack([packed & 0xF, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)


@settings(deadline=None, max_examples=150)
@given(weight=matrices, name=schemes, block_size=block_sizes)
def test_error_is_within_half_a_step_or_the_element_is_cut_off(
    weight: npt.NDArray[np.float32], name: str, block_size: int
) -> None:
    scheme = _scheme(name, block_size)
    low, high = scheme.range
    quantized, parameters = quantize_blocks(weight, scheme)
    error = np.abs(_block_error(weight, scheme).astype(np.float64))
    step = np.abs(parameters.scale.astype(np.float64)).repeat(block_size, axis=1)
    step = step.reshape(-1, weight.shape[1])[: len(weight)]
    ends = ((quantized == low) | (quantized == high)).reshape(-1, weight.shape[1])[: len(weight)]
    # Quotient, scale, product and the difference are rounded to float32, each at most 2^-24 of at
    # most 15 steps.
    assert np.all((error <= step * (0.5 + 4 * 15 * 2.0**-24)) | ends)


@settings(deadline=None, max_examples=100)
@given(weight=matrices, name=schemes, block_size=block_sizes)
def test_integers_are_in_range_and_shapes_are_those_of_the_blocks(
    weight: npt.NDArray[np.float32], name: str, block_size: int
) -> None:
    scheme = _scheme(name, block_size)
    quantized, parameters = quantize_blocks(weight, scheme)
    rows, columns = weight.shape
    blocks = -(-rows // block_size)
    assert quantized.shape == (blocks, block_size, columns)
    assert parameters.scale.shape == parameters.zero_point.shape == (blocks, 1, columns)
    low, high = scheme.range
    assert low <= quantized.min() <= quantized.max() <= high
    assert np.all(np.abs(parameters.scale) >= np.finfo(np.float32).tiny)


@settings(deadline=None, max_examples=100)
@given(weight=matrices, name=schemes, block_size=block_sizes)
def test_padding_is_exactly_zero(
    weight: npt.NDArray[np.float32], name: str, block_size: int
) -> None:
    scheme = _scheme(name, block_size)
    quantized, parameters = quantize_blocks(weight, scheme, keeps_sums=True)
    rebuilt = dequantize(quantized, parameters).reshape(-1, weight.shape[1])
    assert not np.any(rebuilt[len(weight) :])
    low, high = scheme.range
    assert low <= parameters.zero_point.min() <= parameters.zero_point.max() <= high


@pytest.mark.parametrize("name", sorted(SCHEMES))
@pytest.mark.parametrize("rows", [64, 32, 96], ids=lambda rows: f"k{rows}")
def test_agrees_with_the_blocked_dequantize_linear_of_onnx(
    name: str, rows: int, rng: np.random.Generator
) -> None:
    scheme = _scheme(name, 32)
    weight = float_weight(rng, (rows, 5))
    quantized, parameters = quantize_blocks(weight, scheme, keeps_sums=True)
    numpy_type = NUMPY_TYPES[scheme.type]
    node = helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=0, block_size=32)
    (expected,) = ReferenceEvaluator(node).run(
        None,
        {
            "q": quantized.reshape(rows, 5).astype(numpy_type),
            "s": parameters.scale[:, 0, :],
            "z": parameters.zero_point[:, 0, :].astype(numpy_type),
        },
    )
    assert np.array_equal(dequantize(quantized, parameters).reshape(rows, 5), expected)


def test_one_scale_for_each_block_and_column(rng: np.random.Generator) -> None:
    weight = float_weight(rng, (64, 4))
    scheme = _scheme("int4", 16)
    quantized, parameters = quantize_blocks(weight, scheme)
    for block in range(4):
        for column in range(4):
            others = float_weight(rng, (64, 4))
            rows = slice(block * 16, (block + 1) * 16)
            others[rows, column] = weight[rows, column]
            alone, own = quantize_blocks(others, scheme)
            assert np.array_equal(quantized[block, :, column], alone[block, :, column])
            assert parameters.scale[block, 0, column] == own.scale[block, 0, column]


def test_larger_blocks_are_never_better(rng: np.random.Generator) -> None:
    weight = float_weight(rng, (256, 16))
    errors = [
        float(np.square(_block_error(weight, _scheme("int4", n))).sum()) for n in (16, 64, 256)
    ]
    assert errors == sorted(errors)


@pytest.mark.parametrize("name", sorted(SCHEMES))
@pytest.mark.parametrize("rows", [64, 41], ids=["whole_blocks", "short_last_block"])
def test_second_order_changes_the_output_less(
    name: str, rows: int, rng: np.random.Generator
) -> None:
    scheme = _scheme(name, 16)
    weight = float_weight(rng, (rows, 12))
    inputs = rng.standard_normal((300, rows)) @ rng.standard_normal((rows, rows)) + 1.0
    hessian = inputs.T @ inputs

    def measure(quantized: npt.NDArray[np.int32], parameters: Parameters) -> float:
        rebuilt = dequantize(quantized, parameters).reshape(-1, 12)
        assert not np.any(rebuilt[rows:])
        return float(np.square(inputs @ (rebuilt[:rows] - weight)).sum())

    quantized, parameters = quantize_blocks_second_order(weight, hessian, scheme)
    low, high = scheme.range
    assert low <= quantized.min() <= quantized.max() <= high
    # Half of it on the first of these weights.
    assert measure(quantized, parameters) < 0.7 * measure(*quantize_blocks(weight, scheme))


def test_a_scheme_without_a_block_size_is_refused() -> None:
    with pytest.raises(ValueError, match="block size"):
        quantize_blocks(np.ones((4, 4), np.float32), Scheme(type=WeightType.INT4))


@settings(deadline=None, max_examples=60)
@given(
    values=hnp.arrays(
        np.int32, hnp.array_shapes(min_dims=1, max_dims=3), elements=st.integers(-8, 15)
    )
)
def test_pack_nibbles_can_be_undone(values: npt.NDArray[np.int32]) -> None:
    packed = pack_nibbles(values)
    assert packed.dtype == np.uint8
    assert packed.shape == (*values.shape[:-1], -(-values.shape[-1] // 2))
    unpacked = _unpack_nibbles(packed)
    assert np.array_equal(unpacked[..., : values.shape[-1]], values % 16)
    assert not np.any(unpacked[..., values.shape[-1] :])


@pytest.mark.parametrize("elements", [1, 2, 7, 16], ids=lambda count: f"{count}_elements")
@pytest.mark.parametrize("numpy_type", [ml_dtypes.int4, ml_dtypes.uint4], ids=["int4", "uint4"])
def test_pack_nibbles_packs_as_onnx_does(
    numpy_type: type, elements: int, rng: np.random.Generator
) -> None:
    info = ml_dtypes.iinfo(numpy_type)
    values = rng.integers(info.min, info.max + 1, elements)
    expected = numpy_helper.from_array(values.astype(numpy_type)).raw_data
    assert pack_nibbles(values).tobytes() == expected
