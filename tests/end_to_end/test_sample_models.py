"""The four sample models on their evaluation data: size, SQNR and accuracy."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

import onnxq
from onnxq.pipelines import QuantizationResult

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = {"mlp": 503, "cnn": 500, "lstm": 500, "transformer": 500}
"""Correct answers of the float models, of 512; sample_models/README.md says the same."""


@dataclass(frozen=True)
class Floor:
    """What a model must keep.

    Attributes:
        shrink: how many times smaller the file is.
        sqnr_db: at the logits.
        lost: how many more of 512 answers may be wrong.
    """

    shrink: float
    sqnr_db: float
    lost: int


# Shrink: promised by the README for int8 and fp16 (3 and 1.8 times); the others have as many bits
# or fewer. Uint8 takes a zero point a channel beside each scale, which the smallest kernels feel.
# The MLP is nearly all matrices, so 4 bits and a scale for 128 of them take 4.25 bits an element:
# 32 / 4.25 = 7.5 less the last layer, the biases and the graph; the margin for those is a third.
#
# SQNR: measured (onnxruntime 1.32, AVX-512 VNNI) minus 4 dB, since kernels on other processors sum
# in another order and round activations of a block otherwise; minus 6 dB for 4 bits.
# fp16 is promised to keep 50 dB; derived: weights of 11 significant bits have 73 dB each.
#
# Lost answers: those that flip at the measured SQNR are at most 3 in 512; twice that.
FLOORS: dict[tuple[str, str], Floor] = {
    ("mlp", "int8"): Floor(3.5, 43.2 - 4, 2),
    ("mlp", "uint8"): Floor(3.5, 44.5 - 4, 2),
    ("mlp", "int4"): Floor(5.0, 20.6 - 6, 6),
    ("mlp", "uint4"): Floor(5.0, 21.9 - 6, 6),
    ("cnn", "int8"): Floor(3.0, 43.8 - 4, 2),
    ("cnn", "uint8"): Floor(2.8, 44.0 - 4, 2),
    ("cnn", "int4"): Floor(3.0, 43.8 - 4, 2),
    ("cnn", "uint4"): Floor(3.0, 43.8 - 4, 2),
    ("lstm", "int8"): Floor(3.0, 46.8 - 4, 2),
    ("lstm", "uint8"): Floor(3.0, 47.8 - 4, 2),
    ("lstm", "int4"): Floor(3.0, 46.8 - 4, 2),
    ("lstm", "uint4"): Floor(3.0, 46.8 - 4, 2),
    ("transformer", "int8"): Floor(3.0, 45.1 - 4, 2),
    ("transformer", "uint8"): Floor(2.8, 45.1 - 4, 2),
    ("transformer", "int4"): Floor(3.0, 30.0 - 6, 6),
    ("transformer", "uint4"): Floor(3.0, 30.8 - 6, 6),
    **{(name, "fp16"): Floor(1.8, 50.0, 0) for name in MODELS},
    ("mlp", "bf16"): Floor(1.8, 55.5 - 4, 1),
    ("cnn", "bf16"): Floor(1.8, 46.7 - 4, 1),
    ("lstm", "bf16"): Floor(1.8, 55.9 - 4, 1),
    ("transformer", "bf16"): Floor(1.8, 57.1 - 4, 1),
}


@dataclass(frozen=True)
class Outcome:
    """One model, quantized once for all tests that look at it."""

    result: QuantizationResult
    logits: npt.NDArray[np.float32]


@pytest.fixture(scope="session")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, str], Outcome]:
    folder = tmp_path_factory.mktemp("samples")

    @cache
    def get(name: str, weights: str, target: str) -> Outcome:
        result = onnxq.quantize_dynamic(
            source(name),
            folder / f"{name}.{weights}.{target}.onnx",
            weights=weights,
            target=target,
            data=data(name),
        )
        return Outcome(result, logits(result.output, name))

    return get


def source(name: str) -> Path:
    return REPOSITORY / "sample_models" / f"{name}.onnx"


def data(name: str) -> Path:
    return REPOSITORY / "calib_data" / name / "eval"


def labels(name: str) -> npt.NDArray[np.int64]:
    found = json.loads((data(name).parent / "labels.json").read_text())["y"]
    return np.concatenate([np.array(found[stem]) for stem in sorted(found)])


@cache
def float_logits(name: str) -> npt.NDArray[np.float32]:
    return logits(source(name), name)


def logits(model: Path, name: str) -> npt.NDArray[np.float32]:
    """Outputs on all evaluation samples, in the order of the labels."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the others would spin
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    outputs = []
    for file in sorted(data(name).glob("*.npz")):
        with np.load(file) as arrays:
            outputs.append(session.run(None, dict(arrays))[0])
    return np.concatenate(outputs)


@pytest.mark.parametrize("name", MODELS)
def test_float_accuracy_is_the_documented_one(name: str) -> None:
    answers = float_logits(name).argmax(axis=1)
    assert int((answers == labels(name)).sum()) == MODELS[name]
    assert f"{MODELS[name]}/512" in (REPOSITORY / "sample_models" / "README.md").read_text()


@pytest.mark.parametrize("target", ["ort-cpu", "onnx"])
@pytest.mark.parametrize(("name", "weights"), FLOORS)
def test_keeps_its_floor_and_is_valid(
    name: str, weights: str, target: str, quantized: Callable[[str, str, str], Outcome]
) -> None:
    floor, outcome = FLOORS[name, weights], quantized(name, weights, target)
    size = outcome.result.output.stat().st_size
    assert outcome.result.size_bytes == size
    assert source(name).stat().st_size / size >= floor.shrink

    exact = float_logits(name).astype(np.float64)
    noise = float(np.sum(np.square(exact - outcome.logits)))
    sqnr_db = 10 * np.log10(float(np.sum(np.square(exact))) / noise)
    assert sqnr_db >= floor.sqnr_db
    verification = outcome.result.verification
    assert verification is not None
    (reported,) = verification.outputs
    assert reported.sqnr_db == pytest.approx(sqnr_db, abs=0.1)
    assert verification.samples == 16

    correct = int((outcome.logits.argmax(axis=1) == labels(name)).sum())
    assert correct >= MODELS[name] - floor.lost

    # In the same test, since two processes would quantize it twice.
    assert_valid_without_work_at_every_run(outcome.result, target)
    if target == "onnx":
        assert_runs_in_the_reference_implementation(outcome, name, exact[:2], floor)


def assert_valid_without_work_at_every_run(result: QuantizationResult, target: str) -> None:
    onnx.checker.check_model(str(result.output))
    assert result.verification is not None
    assert result.verification.optimized is not None
    assert result.verification.optimized.constant_dequantize_nodes == ()
    model = onnx.load(str(result.output))
    if target == "onnx":
        assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}


def assert_runs_in_the_reference_implementation(
    outcome: Outcome, name: str, expected: npt.NDArray[np.float64], floor: Floor
) -> None:
    """For the two first samples, of which ``expected`` are the float logits."""
    with np.load(next(iter(sorted(data(name).glob("*.npz"))))) as arrays:
        feeds = {key: array[:2] for key, array in arrays.items()}
    (actual,) = ReferenceEvaluator(str(outcome.result.output)).run(None, feeds)
    noise = float(np.sum(np.square(expected - actual)) / np.sum(np.square(expected)))
    # Two samples of 512 scatter around the mean of all; half its decibels separate an accident of
    # the samples from a wrong operator, which leaves about none.
    assert -10 * np.log10(noise) >= floor.sqnr_db / 2


@pytest.mark.parametrize(
    ("name", "integer", "floats"),
    [
        ("mlp", {"DynamicQuantizeMatMul": 2}, 1),
        ("cnn", {}, 17),
        ("lstm", {}, 2),
        ("transformer", {"DynamicQuantizeMatMul": 4}, 13),
    ],
)
def test_runtime_computes_what_the_plan_says(
    name: str,
    integer: dict[str, int],
    floats: int,
    quantized: Callable[[str, str, str], Outcome],
) -> None:
    verification = quantized(name, "int8", "ort-cpu").result.verification
    assert verification is not None
    assert verification.optimized is not None
    assert verification.optimized.integer_nodes == integer
    assert sum(verification.optimized.float_nodes.values()) == floats
