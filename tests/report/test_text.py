"""Results as text."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import onnxq
from onnxq.pipelines import QuantizationResult
from onnxq.report.text import (
    FORM_TITLES,
    format_bytes,
    group_tensors,
    print_groups,
    print_inspection,
    print_plan,
    print_result,
)
from onnxq.rules.roles import Form
from tests.apply.quantized import quantize
from tests.models import float_weight, make_model, save

REPOSITORY = Path(__file__).resolve().parents[2]


def render(write: Callable[..., None], *arguments: object, width: int = 400) -> str:
    stream = io.StringIO()
    write(Console(file=stream, width=width), *arguments)
    return stream.getvalue()


@pytest.fixture(scope="module", params=["int8", "int4", "fp16"])
def result(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> QuantizationResult:
    """A model with every fate in it."""
    rng = np.random.default_rng(0)
    spoiled = float_weight(rng, (1000, 10))
    spoiled[0] = 100.0
    large = float_weight(rng, (96, 32))
    large[0, 0] = 1e9
    model = make_model(
        "[mm] a = MatMul(x, w) [vector] b = Add(a, bias) [small] c = MatMul(b, tiny)"
        " [conv] d = Conv(image, kernel) [look] e = Gather(table, i)"
        " [bad] f = MatMul(long, spoiled) [fed] g = MatMul(x, m) [big] k = MatMul(x, large)",
        "float[1, 96] x, float[1, 8, 9, 9] image, int64[S] i, float[1, 1000] long, float[96, 16] m",
        "float[1, 40] c, float[1, 16, 7, 7] d, float[S, 64] e, float[1, 10] f, float[1, 16] g,"
        " float[1, 32] k",
        {
            "w": float_weight(rng, (96, 64)),
            "bias": float_weight(rng, (64,)),
            "tiny": float_weight(rng, (64, 40)),
            "kernel": float_weight(rng, (16, 8, 3, 3)),
            "table": float_weight(rng, (50, 64)),
            "spoiled": spoiled,
            "large": large,
        },
    )
    return quantize(model, tmp_path_factory.mktemp("report"), weights=request.param).result


def test_groups_mention_every_reason(result: QuantizationResult) -> None:
    text = render(print_groups, result.plan)
    reasons = {tensor.explanation for tensor in result.plan.tensors} - {""}
    assert reasons
    for reason in reasons:
        assert reason in text
    for tensor in result.plan.changes:
        assert str(tensor.scheme) in text


def test_groups_hold_every_tensor_once(result: QuantizationResult) -> None:
    groups = group_tensors(result.plan)
    assert sum(group.tensors for group in groups) == len(result.plan.tensors)
    assert sum(group.size_bytes for group in groups) == sum(
        tensor.size_bytes for tensor in result.plan.tensors
    )
    order = list(dict.fromkeys(FORM_TITLES.values()))
    titles = [order.index(group.title) for group in groups]
    assert titles == sorted(titles)


def test_plan_mentions_every_node_tensor_and_reason(result: QuantizationResult) -> None:
    text = render(print_plan, result.plan)
    for tensor in result.plan.tensors:
        assert tensor.name in text
        assert "x".join(map(str, tensor.shape)) in text
        for use in tensor.uses:
            assert use.node in text
            assert use.reason in text
    assert [node.node for node in result.plan.skipped] == ["fed"]
    for node in result.plan.skipped:
        assert node.node in text
        assert node.reason in text


def test_nothing_is_cut_off_in_a_narrow_terminal(result: QuantizationResult) -> None:
    narrow, wide = (render(print_result, result, width=width) for width in (80, 400))
    assert "…" not in narrow
    # Words are folded and columns interleave: compare the letters.
    missing = Counter(wide) - Counter(narrow)
    assert not {letter for letter in missing if letter.isalnum()}


def test_report_ends_with_the_sizes(result: QuantizationResult) -> None:
    text = render(print_result, result)
    last = text.strip().splitlines()[-1]
    assert result.size_bytes is not None
    assert last == (
        f"{result.output}: {format_bytes(result.float_size_bytes)} -> "
        f"{format_bytes(result.size_bytes)} "
        f"({result.float_size_bytes / result.size_bytes:.2f}x smaller)"
    )
    assert "compared with float on: synthetic inputs (1 sample)" in text
    assert "0 constant DequantizeLinear" in text
    assert result.verification is not None
    for output in result.verification.outputs:
        assert output.name in text


def test_every_form_has_a_title() -> None:
    assert set(FORM_TITLES) == {form.value for form in Form}


def test_names_are_not_taken_for_markup(tmp_path: Path) -> None:
    model = make_model(
        "y = MatMul(x, w)",
        "float[1, 96] x",
        "float[1, 64] y",
        {"w": float_weight(np.random.default_rng(0), (96, 64))},
    )
    model.graph.node[0].name = "[bold]layer[/bold]"
    model.graph.initializer[0].name = model.graph.node[0].input[1] = "[red]w"
    model.graph.output[0].name = model.graph.node[0].output[0] = "[/]out"
    found = quantize(model, tmp_path).result
    text = render(print_plan, found.plan) + render(print_result, found)
    for name in ("[bold]layer[/bold]", "[red]w", "[/]out"):
        assert name in text


def test_dry_run_says_so(tmp_path: Path) -> None:
    found = onnxq.quantize_dynamic(REPOSITORY / "sample_models" / "mlp.onnx", dry_run=True)
    text = render(print_result, found)
    assert text.strip().endswith("dry run: nothing was written")


def test_identical_output_is_called_so(tmp_path: Path) -> None:
    model = make_model(
        "y = MatMul(x, w)",
        "float[1, 48] x",
        "float[1, 40] y",
        {"w": np.full((48, 40), 0.5, np.float32)},
    )
    found = quantize(model, tmp_path, weights="fp16").result
    assert found.verification is not None
    assert found.verification.outputs[0].sqnr_db == math.inf
    assert "identical" in render(print_result, found)


def test_output_of_integers_shows_how_many_are_equal(tmp_path: Path) -> None:
    model = make_model(
        "s = MatMul(x, w) y = ArgMax<axis = 1>(s)",
        "float[1, 96] x",
        "int64[1, 1] y",
        {"w": float_weight(np.random.default_rng(0), (96, 64))},
    )
    text = render(print_result, quantize(model, tmp_path).result)
    assert "100.00 %" in text


def test_raised_opset_is_said(tmp_path: Path) -> None:
    model = make_model(
        "y = MatMul(x, w)",
        "float[1, 96] x",
        "float[1, 64] y",
        {"w": float_weight(np.random.default_rng(0), (96, 64))},
        opset=9,
        ir_version=4,
    )
    assert "opset 9 -> 11" in render(print_result, quantize(model, tmp_path).result)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_234_567, "1.2 MB"),
        (2_500_000_000, "2.5 GB"),
    ],
)
def test_size_with_unit(size: int, text: str) -> None:
    assert format_bytes(size) == text


def test_inspection_as_text(tmp_path: Path) -> None:
    model = make_model(
        "h = MatMul(x, w) y = Relu(h)",
        "float[batch, 96] x",
        "float[batch, 64] y",
        {"w": float_weight(np.random.default_rng(0), (96, 64))},
    )
    model.producer_name, model.producer_version = "exporter", "1.2"
    path = save(model, tmp_path / "model.onnx")
    text = render(print_inspection, onnxq.inspect(path, plan="dynamic"))
    for part in (
        "opset ai.onnx 17, from exporter 1.2",
        "input   x: float[batch, 96]",
        "output  y: float[batch, 64]",
        "nodes   MatMul 1, Relu 1",
        "24.6 kB",
        "integer compute",
    ):
        assert part in text
