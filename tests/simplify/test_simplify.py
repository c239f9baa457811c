from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxq.graph.files import load_model
from onnxq.simplify import SIMPLIFICATIONS, simplify
from onnxq.simplify.constants import MOVEMENTS
from onnxq.simplify.initializers import lift_constants
from tests.models import to_ir
from tests.simplify.equality import run

SAMPLES = ["mlp", "cnn", "lstm", "transformer"]

every_sample = pytest.mark.parametrize("name", SAMPLES)


def _read(folder: Path, name: str) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A sample model, and what becomes of it."""
    path = folder / f"{name}.onnx"
    model = load_model(path).model
    simplify(model)
    return onnx.load(str(path)), ir.to_proto(model)


def _batch(folder: Path, name: str) -> dict[str, np.ndarray]:
    archive = np.load(folder.parent / "calib_data" / name / "eval" / "batch_00.npz")
    return {key: archive[key] for key in archive.files}


@every_sample
def test_the_sample_models_compute_the_same(sample_models: Path, name: str) -> None:
    before, after = _read(sample_models, name)
    feeds = _batch(sample_models, name)
    (expected,), (actual,) = run(before, feeds), run(after, feeds)
    if name != "cnn":
        # Nothing but data movement was folded.
        assert np.array_equal(expected, actual)
        return
    # A sum of n rounded terms has a random error of about sqrt(n) u; the widest of the 16
    # convolutions sums fewer than 1024 terms, the rest of the network adds no more. What is asked
    # for is a hundredfold of that: -20 log10(100 * sqrt(16 * 1024) * 2^-24) dB.
    allowed = 100 * np.sqrt(16 * 1024) * 2.0**-24
    assert np.linalg.norm(expected - actual) <= allowed * np.linalg.norm(expected)
    assert np.array_equal(expected.argmax(axis=1), actual.argmax(axis=1))


@every_sample
def test_simplifying_again_changes_nothing(sample_models: Path, name: str) -> None:
    _, once = _read(sample_models, name)
    model = to_ir(once)
    simplify(model)
    again = ir.to_proto(model)
    assert [node.SerializeToString() for node in again.graph.node] == [
        node.SerializeToString() for node in once.graph.node
    ]
    assert list(again.graph.initializer) == list(once.graph.initializer)


@pytest.mark.parametrize("step", SIMPLIFICATIONS, ids=lambda step: step.__name__)
@every_sample
def test_each_step_is_idempotent(sample_models: Path, name: str, step: object) -> None:
    assert callable(step)
    model = load_model(sample_models / f"{name}.onnx").model
    lift_constants(model)
    step(model)
    once = ir.to_proto(model).SerializeToString(deterministic=True)
    step(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == once


@every_sample
def test_the_stored_weights_do_not_grow(sample_models: Path, name: str) -> None:
    before, after = _read(sample_models, name)

    def stored(model: onnx.ModelProto) -> int:
        constants = [
            attribute.t
            for node in model.graph.node
            for attribute in node.attribute
            if attribute.type == onnx.AttributeProto.TENSOR
        ]
        return sum(len(one.raw_data) for one in [*model.graph.initializer, *constants])

    assert stored(after) <= stored(before)


@every_sample
def test_the_result_is_a_valid_model_with_the_same_interface(
    sample_models: Path, name: str
) -> None:
    before, after = _read(sample_models, name)
    onnx.checker.check_model(after, full_check=True)
    assert [one.name for one in after.graph.input] == [one.name for one in before.graph.input]
    assert [one.name for one in after.graph.output] == [one.name for one in before.graph.output]


@every_sample
def test_weights_lie_open(sample_models: Path, name: str) -> None:
    _, after = _read(sample_models, name)
    constants = {tensor.name for tensor in after.graph.initializer}
    operators = {node.op_type for node in after.graph.node}
    assert not operators & {"Constant", "BatchNormalization"}
    assert not [
        node.name
        for node in after.graph.node
        if node.op_type in MOVEMENTS and set(node.input) <= constants
    ]


def test_same_model_same_bytes(sample_models: Path) -> None:
    first, second = (_read(sample_models, "cnn")[1].SerializeToString() for _ in range(2))
    assert first == second
