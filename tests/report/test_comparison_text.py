"""Comparisons as text."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from onnxq.comparison.results import (
    ComparisonReport,
    Execution,
    Footprint,
    Gate,
    Latency,
    LayerError,
    TaskMetric,
)
from onnxq.report.comparison_text import (
    describe_environment,
    describe_gate,
    print_comparison,
)
from onnxq.runtime.optimized import OptimizedGraph
from onnxq.verification.comparison import OutputComparison

MET = Gate(
    name="min-sqnr", limit=35.0, reached=37.125, unit="dB", is_met=True, detail="output 'logits'"
)
MISSED = Gate(
    name="min-speedup", limit=1.5, reached=1.25, unit="x", is_met=False, detail="1 thread"
)


def make_layers(count: int) -> tuple[LayerError, ...]:
    return tuple(
        LayerError(
            node=f"/block{index}/Conv",
            operator="Conv",
            tensor=f"/block{index}/Conv_output_0",
            added_sqnr_db=20.0 + index,
            accumulated_sqnr_db=15.0 + index,
        )
        for index in range(count)
    )


def make_report(
    float_path: Path = Path("cnn.onnx"), quantized_path: Path = Path("cnn.int8.onnx")
) -> ComparisonReport:
    """A comparison in which everything was measured."""
    logits = OutputComparison("logits", 37.125, 0.99991, 0.131, None, 5120, 0.9961)
    return ComparisonReport(
        float_path=float_path,
        quantized_path=quantized_path,
        data="samples",
        samples=512,
        outputs=(logits, OutputComparison("classes", None, None, None, 0.5, 512)),
        float_footprint=Footprint(size_bytes=400_000, load_ms=12.0, peak_memory_bytes=18_000_000),
        quantized_footprint=Footprint(
            size_bytes=100_000, load_ms=24.0, peak_memory_bytes=9_000_000
        ),
        metrics=(
            TaskMetric(name="top-1", float_value=0.982, quantized_value=0.9805, samples=512),
            TaskMetric(
                name="own", float_value=12.5, quantized_value=12.0, samples=512, is_share=False
            ),
        ),
        latency=Latency(
            threads=1,
            rounds=15,
            samples=4,
            float_ms=2.0,
            quantized_ms=1.6,
            float_spread_ms=(1.9, 2.1),
            quantized_spread_ms=(1.5, 1.75),
        ),
        executions=(
            Execution(
                level="all",
                graph=OptimizedGraph({"Gemm": 1}, {"QLinearConv": 16}, ("expand",)),
                float_layers=("/classifier/Gemm",),
                outputs=(logits,),
            ),
            Execution(
                level="none",
                graph=OptimizedGraph({"Conv": 16}, {}, ()),
                float_layers=(),
                outputs=(replace(logits, sqnr_db=math.inf),),
            ),
        ),
        layers=make_layers(12),
        gates=(MET, MISSED),
        verdict=("1.25x faster here", "4.0x smaller"),
        notes=("2 bad samples skipped",),
    )


def render(report: ComparisonReport, width: int = 160) -> str:
    stream = io.StringIO()
    print_comparison(Console(file=stream, width=width), report)
    return stream.getvalue()


def find_cells(text: str, start: str) -> list[str]:
    """The cells of the row whose first cell is ``start``."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith(f"{start}  ")]
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_everything_that_was_measured_is_said() -> None:
    text = render(make_report())
    assert find_cells(text, "logits") == ["logits", "37.12 dB", "0.999910", "0.131", "99.61 %"]
    assert find_cells(text, "classes") == ["classes", "50.00 %"]
    assert find_cells(text, "top-1") == ["top-1", "98.20 %", "98.05 %", "0.15 points", "512"]
    assert find_cells(text, "own") == ["own", "12.5", "12", "0.5", "512"]
    assert find_cells(text, "size") == ["size", "400.0 kB", "100.0 kB", "4.00x smaller"]
    assert find_cells(text, "load") == ["load", "12.0 ms", "24.0 ms", "2.00x slower"]
    assert find_cells(text, "peak memory")[1:] == ["18.0 MB", "9.0 MB", "2.00x less"]
    assert find_cells(text, "latency, 1 thread")[1:] == [
        "2.00 ms (1.90 to 2.10)",
        "1.60 ms (1.50 to 1.75)",
        "1.25x faster",
    ]
    assert find_cells(text, "full") == ["full", "16 QLinearConv", "1 Gemm", "1", "37.12 dB"]
    assert find_cells(text, "none") == ["none", "0", "16 Conv", "0", "identical"]


def test_only_the_worst_layers_are_shown() -> None:
    text = render(make_report())
    assert find_cells(text, "/block0/Conv") == ["/block0/Conv", "Conv", "20.00 dB", "15.00 dB"]
    assert "/block9/Conv" in text
    assert "/block10/Conv" not in text


def test_gates_come_before_the_verdict_which_is_last() -> None:
    assert render(make_report()).strip().splitlines()[-4:] == [
        "PASS min-sqnr 35 dB: 37.12 dB (output 'logits')",
        "FAIL min-speedup 1.5x: 1.25x (1 thread)",
        "1.25x faster here",
        "4.0x smaller",
    ]


def test_what_was_not_measured_is_left_out() -> None:
    bare = Footprint(size_bytes=10)
    report = ComparisonReport(
        float_path=Path("a.onnx"),
        quantized_path=Path("b.onnx"),
        data="synthetic inputs",
        samples=1,
        outputs=(),
        float_footprint=bare,
        quantized_footprint=bare,
    )
    text = render(report)
    assert "(1 sample)" in text
    assert "1.00x smaller" in text
    for word in ("latency", "load", "metric", "layer", "SQNR", "PASS", "FAIL"):
        assert word not in text


def test_names_are_not_taken_for_markup() -> None:
    layer = replace(make_layers(1)[0], node="[bold]layer[/bold]")
    gate = replace(MET, detail="output '[/]'")
    report = replace(make_report(), layers=(layer,), gates=(gate,), notes=("[red]n",))
    text = render(report)
    for name in ("[bold]layer[/bold]", "output '[/]'", "[red]n"):
        assert name in text


def test_nothing_is_cut_off_in_a_narrow_terminal() -> None:
    assert "…" not in render(make_report(), width=60)


@pytest.mark.parametrize(
    ("gate", "line"),
    [
        (replace(MET, reached=None, is_met=False), "FAIL min-sqnr 35 dB: not measured"),
        (replace(MET, reached=math.inf), "PASS min-sqnr 35 dB: identical"),
        (replace(MET, reached=35.0), "PASS min-sqnr 35 dB: 35 dB"),
        (replace(MET, reached=34.999999, is_met=False), "FAIL min-sqnr 35 dB: 34.999999 dB"),
        (replace(MET, reached=math.nan, is_met=False), "FAIL min-sqnr 35 dB: nan dB"),
    ],
)
def test_gate_lines(gate: Gate, line: str) -> None:
    assert describe_gate(replace(gate, detail="")) == line


def test_environment_names_the_versions_and_the_processor() -> None:
    rows = dict(describe_environment())
    assert list(rows) == [
        *("onnxq", "onnx", "onnxruntime", "numpy"),
        *("Python", "system", "processor"),
    ]
    assert all(rows.values())
    assert "unknown" not in rows.values()
