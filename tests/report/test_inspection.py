"""What is in a model file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import onnxq
from onnxq.errors import UsageError
from tests.apply.quantized import quantize
from tests.models import constant_node, float_weight, make_model, save, save_external

RNG = np.random.default_rng(0)
WEIGHT = float_weight(RNG, (96, 64))


def build(**more: int) -> object:
    return make_model(
        "h = MatMul(x, w) g = Relu(h) y = Add(g, b)",
        "float[batch, 96] x",
        "float[batch, 64] y",
        {"w": WEIGHT, "b": float_weight(RNG, (64,))},
        **more,
    )


def test_facts_of_a_model(tmp_path: Path) -> None:
    path = save(build(opset=13, ir_version=7), tmp_path / "model.onnx")
    found = onnxq.inspect(path)
    assert found.size_bytes == path.stat().st_size
    assert found.ir_version == 7
    assert found.opsets == {"ai.onnx": 13}
    assert [str(edge) for edge in found.inputs] == ["x: float[batch, 96]"]
    assert [str(edge) for edge in found.outputs] == ["y: float[batch, 64]"]
    assert found.operators == {"MatMul": 1, "Relu": 1, "Add": 1}
    assert [(one.operator, one.tensors, one.elements, one.size_bytes) for one in found.weights] == [
        ("MatMul", 1, 96 * 64, 4 * 96 * 64),
        ("Add", 1, 64, 4 * 64),
    ]
    assert found.quantized is None
    assert found.plan is None
    json.dumps(found.to_json(), allow_nan=False)


def test_external_data_counts(tmp_path: Path) -> None:
    path = save_external(build(), tmp_path / "model.onnx")
    total = path.stat().st_size + (tmp_path / "weights.bin").stat().st_size
    assert onnxq.inspect(path).size_bytes == total
    assert total > WEIGHT.nbytes


def test_weight_in_a_constant_node_counts(tmp_path: Path) -> None:
    model = make_model("y = MatMul(x, w)", "float[batch, 96] x", "float[batch, 64] y")
    model.graph.node.insert(0, constant_node(WEIGHT, "w"))
    (group,) = onnxq.inspect(save(model, tmp_path / "model.onnx")).weights
    assert (group.operator, group.elements) == ("MatMul", 96 * 64)


def test_plan_is_the_one_that_dynamic_follows(tmp_path: Path) -> None:
    path = save(build(), tmp_path / "model.onnx")
    planned = onnxq.inspect(path, plan="dynamic").plan
    assert planned == onnxq.quantize_dynamic(path, dry_run=True).plan
    standard = onnxq.inspect(path, plan="dynamic", target="onnx").plan
    assert standard is not None
    assert standard.target == "onnx"


def test_unknown_mode_is_refused(tmp_path: Path) -> None:
    path = save(build(), tmp_path / "model.onnx")
    with pytest.raises(UsageError, match="--plan fp8: unknown mode; known modes: dynamic, static"):
        onnxq.inspect(path, plan="fp8")


def test_quantized_model_is_described_but_not_planned(tmp_path: Path) -> None:
    output = quantize(build(), tmp_path).path
    found = onnxq.inspect(output)
    assert found.quantized is not None
    assert "DynamicQuantizeLinear" in found.quantized
    planned = onnxq.inspect(output, plan="dynamic")
    assert planned.plan is None
    assert planned.quantized == found.quantized


def test_edge_of_unknown_shape(tmp_path: Path) -> None:
    model = build()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    found = onnxq.inspect(save(model, tmp_path / "model.onnx"))
    assert str(found.outputs[0]) == "y: float[unknown shape]"
    assert found.to_json()["outputs"][0]["shape"] is None


def test_inspecting_changes_nothing(tmp_path: Path) -> None:
    path = save(build(), tmp_path / "model.onnx")
    before = path.read_bytes()
    onnxq.inspect(path, plan="dynamic")
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]
