from __future__ import annotations

from typing import Any

import pytest

from onnxq.errors import UsageError
from onnxq.plan import DynamicOptions, parse_weight_type
from onnxq.schemes import WeightType


@pytest.mark.parametrize("weight_type", list(WeightType), ids=lambda one: one.value)
def test_every_weight_type_has_a_name(weight_type: WeightType) -> None:
    assert parse_weight_type(weight_type.value) is weight_type


@pytest.mark.parametrize("name", ["int3", "INT8", "", "float32"])
def test_other_names_are_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError, match="int8, uint8, int4, uint4, int16, fp16"):
        parse_weight_type(name)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        pytest.param({"block_size": 32}, "--block-size is for 4-bit", id="blocks_of_int8"),
        pytest.param(
            {"weights": "fp16", "block_size": 32}, "--block-size is for 4-bit", id="blocks_of_fp16"
        ),
        pytest.param(
            {"weights": "int4", "block_size": 8}, "the kernels take 16, 32", id="tiny_blocks"
        ),
        pytest.param(
            {"weights": "int4", "block_size": 48}, "the kernels take 16, 32", id="odd_blocks"
        ),
        pytest.param(
            {"weights": "int4", "block_size": 0}, "the kernels take 16, 32", id="no_blocks"
        ),
        pytest.param(
            {"weights": "int4", "block_size": -16}, "the kernels take 16, 32", id="negative_blocks"
        ),
        pytest.param({"weights": "fp16", "per_channel": False}, "--per-tensor", id="fp16_tensor"),
        pytest.param({"weights": "fp16", "symmetric": True}, "--symmetric", id="fp16_symmetric"),
        pytest.param({"weights": "bf16", "symmetric": False}, "--asymmetric", id="bf16_asymmetric"),
        pytest.param({"weights": "bf16", "reduce_range": True}, "--reduce-range", id="bf16_7_bit"),
        pytest.param({"weights": "fp16", "storage": False}, "--no-storage", id="fp16_no_storage"),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], reason: str) -> None:
    weights = parse_weight_type(options.pop("weights", "int8"))
    with pytest.raises(UsageError, match=reason):
        DynamicOptions(weights=weights, **options)


@pytest.mark.parametrize("block_size", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("weights", [WeightType.INT4, WeightType.UINT4], ids=["int4", "uint4"])
def test_block_sizes(weights: WeightType, block_size: int) -> None:
    assert DynamicOptions(weights=weights, block_size=block_size).block_size == block_size


@pytest.mark.parametrize(
    ("weights", "symmetric", "expected"),
    [
        pytest.param(WeightType.INT8, None, True, id="int8"),
        pytest.param(WeightType.INT8, False, False, id="asymmetric_int8"),
        pytest.param(WeightType.UINT8, None, False, id="uint8"),
        pytest.param(WeightType.UINT8, True, True, id="symmetric_uint8"),
        pytest.param(WeightType.INT4, None, False, id="int4"),
        pytest.param(WeightType.INT4, True, True, id="symmetric_int4"),
        pytest.param(WeightType.UINT4, None, False, id="uint4"),
    ],
)
def test_symmetry_follows_the_type(
    weights: WeightType, symmetric: bool | None, expected: bool
) -> None:
    assert DynamicOptions(weights=weights, symmetric=symmetric).is_symmetric is expected
