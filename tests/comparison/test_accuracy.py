"""Both models over samples, one at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxq.comparison.accuracy import measure_accuracy
from onnxq.comparison.labels import Labels
from onnxq.comparison.scoring import FunctionScorer, LabelScorer, Outputs
from onnxq.errors import DataError, VerificationError
from onnxq.runtime.session import Session
from onnxq.samples import Sample
from onnxq.samples.user_code import UserFunction
from tests.models import float_weight, make_model, matmul_model, save


def sessions(folder: Path, rng: np.random.Generator) -> tuple[Session, Session, Session]:
    """A model, the same with noise in its weight, and with more of it."""
    weight = float_weight(rng, (16, 8))
    noise = rng.standard_normal(weight.shape).astype(np.float32)
    found = [
        Session(save(matmul_model(weight + part * noise), folder / f"{index}.onnx"))
        for index, part in enumerate(np.float32([0, 0.01, 0.1]))
    ]
    return found[0], found[1], found[2]


def draw_samples(rng: np.random.Generator, count: int = 7) -> list[Sample]:
    return [
        Sample(f"s{index}", {"x": rng.standard_normal((1 + index, 16)).astype(np.float32)})
        for index in range(count)
    ]


def test_outputs_against_numpy(tmp_path: Path, rng: np.random.Generator) -> None:
    reference, little, much = sessions(tmp_path, rng)
    samples = draw_samples(rng)
    found = measure_accuracy(reference, {"little": little, "much": much}, samples)
    assert (found.samples, list(found.outputs), found.metrics) == (7, ["little", "much"], ())
    for name, session in (("little", little), ("much", much)):
        (output,) = found.outputs[name]
        signal, noise, cosines, largest, same = 0.0, 0.0, [], 0.0, []
        for sample in samples:
            a, b = (np.float64(one.run(sample.feeds)[0]) for one in (reference, session))
            signal += np.sum(a**2)
            noise += np.sum((a - b) ** 2)
            cosines.append(np.sum(a * b) / np.sqrt(np.sum(a**2) * np.sum(b**2)))
            largest = max(largest, np.abs(a - b).max())
            same.append(np.mean(a.argmax(axis=1) == b.argmax(axis=1)))
        assert output.sqnr_db == pytest.approx(10 * math.log10(signal / noise), rel=1e-9)
        assert output.cosine == pytest.approx(np.mean(cosines), rel=1e-9)
        assert output.max_abs_error == largest
        assert output.agreement == pytest.approx(np.mean(same), rel=1e-9)


def test_samples_are_taken_one_at_a_time(tmp_path: Path, rng: np.random.Generator) -> None:
    reference, little, _ = sessions(tmp_path, rng)
    scored: list[str] = []

    def stream() -> Iterator[Sample]:
        for index, sample in enumerate(draw_samples(rng)):
            assert scored == [f"s{one}" for one in range(index) for _ in range(2)]
            yield sample

    def metric(_outputs: Outputs, _inputs: Any, name: str) -> float:
        scored.append(name)
        return 1.0

    found = measure_accuracy(
        reference,
        {"all": little},
        stream(),
        [FunctionScorer(UserFunction("m:f", metric, Path.cwd()))],
    )
    assert found.samples == 7


def test_the_first_form_is_scored(tmp_path: Path, rng: np.random.Generator) -> None:
    reference, little, much = sessions(tmp_path, rng)
    samples = draw_samples(rng)
    labels = Labels(
        "test", {one.name: reference.run(one.feeds)[0].argmax(axis=1) for one in samples}
    )
    top_1 = {}
    for name, first in (("little", little), ("much", much), ("same", reference)):
        found = measure_accuracy(
            reference, {"first": first, "second": much}, samples, [LabelScorer(labels)]
        )
        assert [metric.name for metric in found.metrics] == ["top-1", "top-5"]
        assert found.metrics[0].float_value == 1.0
        assert found.metrics[0].samples == sum(range(1, 8))
        top_1[name] = found.metrics[0].quantized_value
    assert top_1["same"] == 1.0
    assert top_1["much"] < 1.0


def test_metric_that_writes_into_its_arguments_changes_nothing(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    reference, little, _ = sessions(tmp_path, rng)

    def metric(outputs: Outputs, inputs: Any, _name: str) -> float:
        for array in (*outputs.values(), *inputs.values()):
            try:
                array[:] = 0.0
            except ValueError:  # read-only is fine, too
                return 0.0
        return 0.0

    found = measure_accuracy(
        reference,
        {"first": little, "second": little},
        draw_samples(rng),
        [FunctionScorer(UserFunction("m:f", metric, Path.cwd()))],
    )
    assert found.outputs["first"] == found.outputs["second"]


def test_no_samples(tmp_path: Path, rng: np.random.Generator) -> None:
    reference, little, _ = sessions(tmp_path, rng)
    found = measure_accuracy(reference, {"all": little}, [])
    assert (found.samples, found.outputs, found.metrics) == (0, {"all": ()}, ())


def test_sample_that_the_float_model_cannot_run(tmp_path: Path, rng: np.random.Generator) -> None:
    reference, little, _ = sessions(tmp_path, rng)
    bad = Sample("bad.npz", {"x": np.ones((2, 5), np.float32)})
    with pytest.raises(DataError, match=r"sample bad\.npz: "):
        measure_accuracy(reference, {"all": little}, [*draw_samples(rng), bad])


def test_quantized_model_that_cannot_run(tmp_path: Path, rng: np.random.Generator) -> None:
    reference, _, _ = sessions(tmp_path, rng)
    other = Session(
        save(make_model("y = Neg(x)", "float[1, 3] x", "float[1, 3] y"), tmp_path / "o.onnx")
    )
    with pytest.raises(VerificationError):
        measure_accuracy(reference, {"all": other}, draw_samples(rng))


OTHER_OUTPUTS = {
    "more": ("y = Neg(x) z = Abs(x) w = Exp(x)", ("y", "z", "w")),
    "fewer": ("y = Neg(x)", ("y",)),
    "other-order": ("y = Neg(x) z = Abs(x)", ("z", "y")),
}


@pytest.mark.parametrize(("text", "names"), OTHER_OUTPUTS.values(), ids=OTHER_OUTPUTS)
def test_models_with_other_outputs(text: str, names: tuple[str, ...], tmp_path: Path) -> None:
    """Compared by name, or refused: never by position."""

    def build(nodes: str, outputs: tuple[str, ...]) -> Session:
        edges = ", ".join(f"float[N] {name}" for name in outputs)
        path = tmp_path / f"{'_'.join(outputs)}{len(nodes)}.onnx"
        return Session(save(make_model(nodes, "float[N] x", edges), path))

    reference = build("y = Neg(x) z = Abs(x)", ("y", "z"))
    sample = Sample("s", {"x": np.float32([-1, 2])})
    try:
        found = measure_accuracy(reference, {"all": build(text, names)}, [sample])
    except (DataError, VerificationError):
        return
    assert all(output.sqnr_db == math.inf for output in found.outputs["all"])


def test_sequences_are_compared_but_not_scored(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["y"]),
        helper.make_node("SequenceConstruct", ["x", "x"], ["parts"]),
    ]
    edges = [
        helper.make_tensor_value_info(one, onnx.TensorProto.FLOAT, ["N", 3]) for one in ("x", "y")
    ]
    parts = helper.make_tensor_sequence_value_info("parts", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "main", edges[:1], [parts, edges[1]])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    session = Session(save(model, tmp_path / "model.onnx"))
    seen: list[list[str]] = []
    scorer = FunctionScorer(
        UserFunction("m:f", lambda outputs, *_: seen.append(list(outputs)), Path.cwd())
    )
    found = measure_accuracy(
        session, {"all": session}, [Sample("s", {"x": np.ones((2, 3), np.float32)})], [scorer]
    )
    assert [output.name for output in found.outputs["all"]] == ["parts[0]", "parts[1]", "y"]
    assert seen == [["y"], ["y"]]
