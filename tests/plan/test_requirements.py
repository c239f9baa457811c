from __future__ import annotations

import numpy as np
import pytest

from onnxq.plan.requirements import required_ir_version, required_opset
from onnxq.targets import Target
from tests.models import float_weight, make_model, matmul_model
from tests.plan.planning import ONNX, ORT, plan


@pytest.mark.parametrize(
    ("weights", "target", "opset", "ir_version"),
    [
        pytest.param("int8", ORT, 11, 0, id="int8"),
        pytest.param("int8", ONNX, 11, 0, id="int8_standard"),
        pytest.param("int4", ORT, 0, 0, id="int4"),
        pytest.param("int4", ONNX, 21, 10, id="int4_standard"),
        pytest.param("fp16", ORT, 0, 0, id="fp16"),
        pytest.param("bf16", ORT, 13, 0, id="bf16"),
    ],
)
def test_a_matmul_needs(
    weights: str, target: Target, opset: int, ir_version: int, rng: np.random.Generator
) -> None:
    found = plan(matmul_model(float_weight(rng, (128, 64))), weights=weights, target=target)
    assert required_opset(found, target) == opset
    assert required_ir_version(found, target) == ir_version


def test_storage_needs_nothing(rng: np.random.Generator) -> None:
    model = make_model(
        "y = Conv(x, k)", "float[1, 16, 9, 9] x", "float[] y",
        {"k": float_weight(rng, (32, 16, 3, 3))},
    )  # fmt: skip
    found = plan(model)
    assert found.changes
    assert required_opset(found, ORT) == 0


def test_what_stays_float_needs_nothing(rng: np.random.Generator) -> None:
    found = plan(matmul_model(float_weight(rng, (128, 64))), exclude=("mm",))
    assert not found.changes
    assert required_opset(found, ORT) == required_ir_version(found, ORT) == 0
