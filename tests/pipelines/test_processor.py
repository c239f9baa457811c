"""The bits of weights by default: what this processor, or another one, gets and is told."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from rich.console import Console

import onnxq
from onnxq.pipelines import QuantizationResult, processor
from onnxq.plan import DynamicOptions, StaticOptions
from onnxq.report.text import print_inspection, print_result
from onnxq.runs import fingerprints
from onnxq.runs.fingerprints import Fingerprints, take_fingerprints
from onnxq.runs.jobs import ModelJob
from onnxq.runtime.processor import adds_products_exactly
from onnxq.schemes import WeightType
from tests.apply.calibrated_models import quantize_static, weights
from tests.apply.quantized import quantize
from tests.models import float_weight, make_model, save

PAIRS = "scales of weights in which no sum of two products overflows, because"
EIGHT_BITS = "8-bit weights, whose products this processor adds inexactly"

Processor = Callable[[bool], None]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Processor:
    """Go on as on a processor that adds products exactly, or inexactly."""

    def call(is_exact: bool) -> None:
        for module in (processor, fingerprints):
            monkeypatch.setattr(module, "adds_products_exactly", lambda: is_exact)

    return call


def matmul() -> onnx.ModelProto:
    weight = float_weight(np.random.default_rng(0), (128, 96))
    return make_model("y = MatMul(x, w)", "float[N, 128] x", "float[N, 96] y", {"w": weight})


def convolutions(group: int = 1) -> onnx.ModelProto:
    return make_model(
        f"[a] p = Conv<group = {group}>(x, w1) [b] q = Conv<group = {group}>(p, w2) y = Neg(q)",
        "float[N, 24, 8, 8] x",
        "float[N, 24, 4, 4] y",
        weights(w1=(24, 24 // group, 3, 3), w2=(24, 24 // group, 3, 3)),
    )


def schemes(result: QuantizationResult) -> set[str]:
    return {str(tensor.scheme) for tensor in result.plan.changes}


def render(result: QuantizationResult) -> str:
    stream = io.StringIO()
    print_result(Console(file=stream, width=200), result)
    return stream.getvalue()


CASES = pytest.mark.parametrize(
    ("options", "is_exact", "scheme", "note"),
    [
        ({}, True, "int8 per channel", None),
        ({}, False, "int8 per channel in pairs", PAIRS),
        ({"reduce_range": True}, True, "int8 per channel 7-bit", None),
        ({"reduce_range": True}, False, "int8 per channel 7-bit", None),
        ({"reduce_range": False}, True, "int8 per channel", None),
        ({"reduce_range": False}, False, "int8 per channel", EIGHT_BITS),
    ],
)


@pytest.mark.parametrize("dry_run", [False, True], ids=["written", "dry-run"])
@pytest.mark.parametrize("mode", ["dynamic", "static"])
@CASES
def test_the_processor_decides_unless_the_user_does(
    options: dict[str, Any],
    is_exact: bool,
    scheme: str,
    note: str | None,
    mode: str,
    dry_run: bool,
    pretend: Processor,
    tmp_path: Path,
) -> None:
    pretend(is_exact)
    if mode == "dynamic":
        result = quantize(matmul(), tmp_path, dry_run=dry_run, **options).result
    else:
        result = quantize_static(convolutions(), tmp_path, dry_run=dry_run, **options).result
    assert schemes(result) == {scheme}
    assert result.to_json()["notes"] == list(result.notes)
    lines = [line for line in render(result).splitlines() if line.startswith("note: ")]
    assert len(result.notes) == len(lines) == (note is not None)
    assert note is None or lines[0].startswith(f"note: {note}")


@pytest.mark.parametrize("options", [{}, {"reduce_range": False}], ids=["default", "forced"])
def test_nothing_is_said_where_it_makes_no_difference(
    options: dict[str, Any], pretend: Processor, tmp_path: Path
) -> None:
    pretend(False)
    for name, weights_type in (("a", "uint8"), ("b", "fp16"), ("c", "int4")):
        (tmp_path / name).mkdir()
        asked = options if weights_type == "uint8" else {}
        result = quantize(matmul(), tmp_path / name, weights=weights_type, **asked).result
        assert result.notes == ()
    (tmp_path / "d").mkdir()
    result = quantize_static(convolutions(24), tmp_path / "d", target="onnx", **options).result
    assert schemes(result) == {"int8 per channel"}
    assert result.notes == ()


@pytest.mark.parametrize("plan", ["dynamic", "static"])
def test_an_inspection_says_it_too(plan: str, pretend: Processor, tmp_path: Path) -> None:
    path = save(matmul(), tmp_path / "model.onnx")
    for is_exact in (True, False):
        pretend(is_exact)
        found = onnxq.inspect(path, plan=plan)
        assert found.plan is not None
        assert str(found.plan.tensors[0].scheme).endswith("in pairs") is not is_exact
        stream = io.StringIO()
        print_inspection(Console(file=stream, width=200), found)
        assert (PAIRS in stream.getvalue()) is not is_exact
        assert len(found.to_json()["notes"]) == (not is_exact)
    assert onnxq.inspect(path).notes == ()


def test_without_pretending_it_is_this_processor(tmp_path: Path) -> None:
    result = quantize(matmul(), tmp_path).result
    assert (schemes(result) == {"int8 per channel"}) is adds_products_exactly()


@pytest.mark.parametrize(
    ("options", "depends"),
    [
        (DynamicOptions(), True),
        (StaticOptions(), True),
        (DynamicOptions(weights=WeightType.INT4), True),
        (DynamicOptions(reduce_range=True), False),
        (StaticOptions(reduce_range=False), False),
        (DynamicOptions(weights=WeightType.FP16), False),
    ],
    ids=["dynamic", "static", "int4", "7-bit", "8-bit", "fp16"],
)
def test_another_processor_makes_a_locked_model_again(
    options: DynamicOptions | StaticOptions, depends: bool, pretend: Processor, tmp_path: Path
) -> None:
    path = save(matmul(), tmp_path / "model.onnx")

    def take(is_exact: bool) -> Fingerprints:
        pretend(is_exact)
        return take_fingerprints(
            ModelJob(name="m", source=path, output=path, target="ort-cpu", options=options)
        )

    assert take(True).gives_same_model(take(True))
    assert take(True).gives_same_model(take(False)) is not depends
