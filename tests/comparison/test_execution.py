"""What the runtime makes of a model at both levels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxq.comparison.execution import describe_execution
from onnxq.comparison.results import Execution
from onnxq.errors import ExecutionError
from onnxq.verification.comparison import OutputComparison
from tests.models import float_weight, make_model, matmul_model, save

K, N = 128, 64
OUTPUT = OutputComparison("y", 30.0, 0.99, 0.1, None, 8)


def describe(model: Path, level: str) -> Execution:
    folder = model.parent / "work"
    folder.mkdir(exist_ok=True)
    return describe_execution(model, level=level, outputs=[OUTPUT], folder=folder)


@pytest.fixture
def weight_only(tmp_path: Path) -> Path:
    """A 4-bit weight that the runtime takes as it is only when it optimises."""
    model = make_model(
        "[mm] y = MatMul(x, w)",
        f"float[M, {K}] x",
        f"float[M, {N}] y",
        {"s": np.full((K // 32, N), 0.1, np.float32)},
        opset=21,
        ir_version=10,
    )
    packed = np.random.default_rng(0).integers(0, 256, K * N // 2, np.uint8).tobytes()
    model.graph.initializer.append(
        helper.make_tensor("q", TensorProto.INT4, (K, N), packed, raw=True)
    )
    node = helper.make_node("DequantizeLinear", ["q", "s"], ["w"], "dq", axis=0, block_size=32)
    model.graph.node.insert(0, node)
    return save(model, tmp_path / "model.onnx")


def test_optimised(weight_only: Path) -> None:
    found = describe(weight_only, "all")
    assert (found.level, found.outputs) == ("all", (OUTPUT,))
    assert found.graph.integer_nodes == {"MatMulNBits": 1}
    assert found.graph.float_nodes == {}
    assert found.graph.constant_dequantize_nodes == ()
    assert found.float_layers == ()
    json.dumps(found.to_json(), allow_nan=False)


def test_not_optimised(weight_only: Path) -> None:
    found = describe(weight_only, "none")
    assert found.graph.integer_nodes == {}
    assert found.graph.float_nodes == {"MatMul": 1}
    assert found.graph.constant_dequantize_nodes == ("dq",)
    assert found.float_layers == ("mm",)
    assert found.to_json()["float_layers"] == ["mm"]


def test_both_levels_write_into_one_folder(weight_only: Path) -> None:
    assert describe(weight_only, "all") != describe(weight_only, "none")
    assert describe(weight_only, "all") == describe(weight_only, "all")
    assert [one.name for one in weight_only.parent.glob("*.onnx")] == ["model.onnx"]


@pytest.mark.parametrize("level", ["all", "none"])
def test_product_of_activations_is_no_layer(level: str, tmp_path: Path) -> None:
    model = make_model(
        "h = MatMul(x, w) y = MatMul(h, x)",
        "float[8, 8] x",
        "float[8, 8] y",
        {"w": float_weight(np.random.default_rng(0), (8, 8))},
    )
    found = describe(save(model, tmp_path / "model.onnx"), level)
    assert sum(found.graph.float_nodes.values()) == 2
    assert len(found.float_layers) == 1


@pytest.mark.parametrize("level", ["", "full", "ALL"])
def test_level_that_does_not_exist(level: str, tmp_path: Path) -> None:
    path = save(matmul_model(np.ones((4, 4), np.float32)), tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="'all' or 'none'"):
        describe(path, level)


def test_model_that_does_not_load(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"nothing")
    with pytest.raises(ExecutionError, match="cannot load"):
        describe(path, "all")
