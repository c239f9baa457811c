"""The four sample models, calibrated on their calibration data, on their evaluation data."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import version_converter
from onnx.reference import ReferenceEvaluator

import onnxq
from onnxq.pipelines import QuantizationResult

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = ("mlp", "cnn", "lstm", "transformer")
TARGETS = ("ort-cpu", "onnx")
METHODS = ("minmax", "percentile", "entropy", "mse")

LARGEST_LOSS = 0.3
"""Percentage points of accuracy; of 512 answers that is one."""

Get = Callable[..., QuantizationResult]


@pytest.fixture(scope="session")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Get:
    folder = tmp_path_factory.mktemp("static")

    @cache
    def make(name: str, target: str, method: str, accuracy: str) -> QuantizationResult:
        return onnxq.quantize_static(
            source(name),
            data(name, "calib"),
            folder / f"{name}.{target}.{method}.{accuracy}.onnx",
            target=target,
            method=method,
            accuracy=accuracy,
        )

    def get(
        name: str, target: str = "ort-cpu", method: str = "auto", accuracy: str = "balanced"
    ) -> QuantizationResult:
        return make(name, target, method, accuracy)

    return get


def source(name: str) -> Path:
    return REPOSITORY / "sample_models" / f"{name}.onnx"


def data(name: str, part: str) -> Path:
    return REPOSITORY / "calib_data" / name / part


def logits(model: Path, name: str) -> npt.NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the others would spin
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    outputs = []
    for file in sorted(data(name, "eval").glob("*.npz")):
        with np.load(file) as arrays:
            outputs.append(session.run(None, dict(arrays))[0])
    return np.concatenate(outputs)


def accuracy(model: Path, name: str) -> float:
    """In percent."""
    found = json.loads((data(name, "eval").parent / "labels.json").read_text())["y"]
    labels = np.concatenate([np.array(found[stem]) for stem in sorted(found)])
    return float(100 * np.mean(logits(model, name).argmax(axis=1) == labels))


@cache
def float_accuracy(name: str) -> float:
    return accuracy(source(name), name)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", MODELS)
def test_accuracy_is_that_of_float(name: str, target: str, quantized: Get) -> None:
    result = quantized(name, target)
    assert accuracy(result.output, name) >= float_accuracy(name) - LARGEST_LOSS
    if target == "onnx":
        # In the same test, since two processes would quantize it twice.
        assert_runs_anywhere(result, name)
    onnx.checker.check_model(str(result.output), full_check=True)
    assert result.size_bytes is not None
    assert result.float_size_bytes / result.size_bytes >= 2.5


@pytest.mark.parametrize("method", METHODS)
def test_cnn_with_every_method(method: str, quantized: Get) -> None:
    # Nothing makes up here for ranges that are bad.
    result = quantized("cnn", "ort-cpu", method, "fast")
    # Entropy is known to be the worst (docs/static.md); it may lose three times as much.
    allowed = LARGEST_LOSS * (3 if method == "entropy" else 1)
    assert accuracy(result.output, "cnn") >= float_accuracy("cnn") - allowed


def test_auto_is_no_worse_than_what_it_chose_from(quantized: Get) -> None:
    result = quantized("cnn", accuracy="fast")
    assert result.calibration is not None
    candidates = dict(result.calibration.candidates)
    assert set(candidates) == {"minmax", "percentile", "mse"}
    assert candidates[result.calibration.method] >= max(candidates.values()) - 0.5
    same = quantized("cnn", "ort-cpu", result.calibration.method, "fast")
    assert same.output.read_bytes() == result.output.read_bytes()


def test_cnn_computes_in_integers(quantized: Get) -> None:
    verification = quantized("cnn").verification
    assert verification is not None
    assert verification.optimized is not None
    assert verification.optimized.integer_nodes["QLinearConv"] >= 10
    assert verification.optimized.constant_dequantize_nodes == ()


def assert_runs_anywhere(result: QuantizationResult, name: str) -> None:
    """Standard operators only, as the reference implementation runs them."""
    model = onnx.load(str(result.output))
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    # The reference implementation has quantized operators from operator set 19 on.
    model = version_converter.convert_version(model, 21)
    with np.load(next(iter(sorted(data(name, "eval").glob("*.npz"))))) as arrays:
        feeds = {key: array[:2] for key, array in arrays.items()}
    (actual,) = ReferenceEvaluator(model).run(None, feeds)
    expected = logits(source(name), name)[:2]
    assert np.linalg.norm(actual - expected) < 0.1 * np.linalg.norm(expected)


@pytest.mark.parametrize("name", MODELS)
def test_verification_is_on_samples_held_back(name: str, quantized: Get) -> None:
    result = quantized(name)
    total = len(list(data(name, "calib").glob("*.npz")))
    assert result.verification is not None
    assert result.verification.samples == total // 5
    assert "held back" in result.verification.data
    assert result.calibration is not None
    if result.calibration.ranges:
        assert result.calibration.samples == total - total // 5
