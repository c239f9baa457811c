"""Comparing two models that run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxq.errors import ExecutionError, VerificationError
from onnxq.runtime.session import Session
from onnxq.verification.comparison import Comparison, OutputComparison
from tests.models import make_model, save


def session(folder: Path, name: str, text: str, output: str = "float[N] y") -> Session:
    return Session(save(make_model(text, "float[N] x", output), folder / f"{name}.onnx"))


def compare(folder: Path, reference: str, measured: str, output: str = "float[N] y") -> Comparison:
    return Comparison(
        session(folder, "reference", reference, output),
        session(folder, "measured", measured, output),
    )


FEEDS = {"x": np.float32([3, 4])}


def test_identical_outputs(tmp_path: Path) -> None:
    comparison = compare(tmp_path, "y = Neg(x)", "y = Neg(x)")
    comparison.add(FEEDS)
    (result,) = comparison.results()
    assert result == OutputComparison("y", math.inf, pytest.approx(1.0), 0.0, None, 2)
    assert result.to_json()["identical"] is True
    assert result.to_json()["sqnr_db"] is None


def test_sums_over_samples(tmp_path: Path) -> None:
    # y = |x| differs from x only in the second sample, by 8: 20 log10 of (3, 4, 0, 4) to 8.
    comparison = compare(tmp_path, "y = Identity(x)", "y = Abs(x)")
    comparison.add(FEEDS)
    comparison.add({"x": np.float32([0, -4])})
    (result,) = comparison.results()
    assert comparison.samples == 2
    assert result.sqnr_db == pytest.approx(10 * math.log10((9 + 16 + 16) / 64))
    assert result.cosine == pytest.approx((1 - 1) / 2)
    assert result.max_abs_error == 8.0
    assert result.to_json()["identical"] is False


def test_output_of_integers_is_compared_for_equality(tmp_path: Path) -> None:
    comparison = compare(
        tmp_path, "y = Cast<to = 7>(x)", "a = Abs(x) y = Cast<to = 7>(a)", "int64[N] y"
    )
    comparison.add({"x": np.float32([1, 2, 3, -4])})
    (result,) = comparison.results()
    assert result == OutputComparison("y", None, None, None, 0.75, 4)
    assert result.to_json()["identical"] is False


def test_output_of_16_bit_floats_is_compared_as_floats(tmp_path: Path) -> None:
    text = "y = Cast<to = 10>({})"
    comparison = compare(
        tmp_path, text.format("x"), "a = Abs(x) " + text.format("a"), "float16[N] y"
    )
    comparison.add({"x": np.float32([1, -1])})
    (result,) = comparison.results()
    assert result.max_abs_error == 2.0


def test_empty_output(tmp_path: Path) -> None:
    comparison = compare(tmp_path, "y = Neg(x)", "y = Neg(x)")
    comparison.add({"x": np.zeros(0, np.float32)})
    (result,) = comparison.results()
    assert result == OutputComparison("y", None, None, None, None, 0)
    json.dumps(result.to_json(), allow_nan=False)


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=["nan", "inf"])
def test_number_that_becomes_none_is_refused(value: float, tmp_path: Path) -> None:
    operator = "Sqrt" if math.isnan(value) else "Reciprocal"
    x = np.float32([4, -1] if math.isnan(value) else [4, 0])
    comparison = compare(tmp_path, "y = Neg(x)", f"y = {operator}(x)")
    with pytest.raises(VerificationError, match="'y' of the quantized model has NaN or infinity"):
        comparison.add({"x": x})


def test_nan_in_both_is_no_fault(tmp_path: Path) -> None:
    comparison = compare(tmp_path, "y = Sqrt(x)", "y = Sqrt(x)")
    comparison.add({"x": np.float32([4, -1])})
    (result,) = comparison.results()
    assert (result.sqnr_db, result.compared) == (math.inf, 1)


def test_nothing_but_nan_is_not_called_identical(tmp_path: Path) -> None:
    comparison = compare(tmp_path, "y = Sqrt(x)", "y = Sqrt(x)")
    comparison.add({"x": np.float32([-4, -1])})
    (result,) = comparison.results()
    assert result == OutputComparison("y", None, None, None, None, 0)
    assert result.to_json()["identical"] is False


def test_another_shape_is_refused(tmp_path: Path) -> None:
    comparison = compare(tmp_path, "y = Neg(x)", "y = Concat<axis = 0>(x, x)")
    with pytest.raises(VerificationError, match=r"has shape \[4\] in the quantized model, \[2\]"):
        comparison.add(FEEDS)


def test_model_that_fails_where_float_runs_is_refused(tmp_path: Path) -> None:
    reference = session(tmp_path, "reference", "y = Neg(x)")
    broken = Session(
        save(make_model("y = Neg(x)", "float[3] x", "float[3] y"), tmp_path / "broken.onnx")
    )
    with pytest.raises(VerificationError, match="the float model runs, the quantized one does not"):
        Comparison(reference, broken).add(FEEDS)


def test_float_model_that_cannot_run_is_another_error(tmp_path: Path) -> None:
    comparison = compare(tmp_path, "y = Neg(x)", "y = Neg(x)")
    with pytest.raises(ExecutionError, match="cannot run it"):
        comparison.add({"x": np.ones((1, 1), np.float32)})


def test_sequence_of_tensors_is_compared_one_by_one(tmp_path: Path) -> None:
    def build(operator: str) -> Session:
        nodes = [
            helper.make_node(operator, ["x"], ["a"]),
            helper.make_node("SequenceConstruct", ["x", "a"], ["y"]),
        ]
        edge = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N"])
        output = helper.make_tensor_sequence_value_info("y", onnx.TensorProto.FLOAT, None)
        graph = helper.make_graph(nodes, "main", [edge], [output])
        model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
        return Session(save(model, tmp_path / f"{operator}.onnx"))

    comparison = Comparison(build("Neg"), build("Abs"))
    comparison.add(FEEDS)
    first, second = comparison.results()
    assert (first.name, first.max_abs_error) == ("y[0]", 0.0)
    assert (second.name, second.max_abs_error) == ("y[1]", 8.0)
