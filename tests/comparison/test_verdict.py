"""The lines that sum a comparison up."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.comparison.results import ComparisonReport, Execution, Footprint, Latency
from onnxq.comparison.verdict import write_verdict
from onnxq.runtime.optimized import OptimizedGraph
from onnxq.verification.comparison import OutputComparison


def time(float_ms: float, quantized_ms: float, spread: float = 0.01, threads: int = 1) -> Latency:
    return Latency(
        threads=threads,
        rounds=5,
        samples=1,
        float_ms=float_ms,
        quantized_ms=quantized_ms,
        float_spread_ms=(float_ms * (1 - spread), float_ms * (1 + spread)),
        quantized_spread_ms=(quantized_ms * (1 - spread), quantized_ms * (1 + spread)),
    )


def output(sqnr_db: float | None, name: str = "y") -> OutputComparison:
    return OutputComparison(name, sqnr_db, 0.9, 0.1, None, 8)


def execute(
    level: str = "all",
    *,
    integers: dict[str, int] | None = None,
    layers: tuple[str, ...] = (),
    expanded: tuple[str, ...] = (),
    sqnr_db: float | None = 30.0,
) -> Execution:
    graph = OptimizedGraph({}, integers or {}, expanded, layers)
    return Execution(level=level, graph=graph, float_layers=layers, outputs=(output(sqnr_db),))


def write(**changes: Any) -> tuple[str, ...]:
    values: dict[str, Any] = {
        "float_path": Path("float.onnx"),
        "quantized_path": Path("quantized.onnx"),
        "data": "data",
        "samples": 8,
        "outputs": (output(30.0),),
        "float_footprint": Footprint(size_bytes=3760),
        "quantized_footprint": Footprint(size_bytes=1000),
    }
    lines = write_verdict(ComparisonReport(**(values | changes)))
    assert all(line and "\n" not in line for line in lines)
    return lines


CONV = {"QLinearConv": 8}
SOME = tuple(f"conv{index}" for index in range(12))

SPEED = {
    "faster": (
        time(3.2, 1.385),
        execute(integers=CONV),
        "2.31x faster here (3.20 -> 1.39 ms, 1 thread)",
    ),
    "faster-without-executions": (
        time(3.0, 2.0),
        None,
        "1.50x faster here (3.00 -> 2.00 ms, 1 thread)",
    ),
    "faster-with-float-layers": (
        time(3.0, 2.0, threads=4),
        execute(integers=CONV, layers=SOME),
        "1.50x faster here (3.00 -> 2.00 ms, 4 threads); "
        "12 of 20 layers compute in float, first 'conv0'",
    ),
    "same": (
        time(2.0, 2.04, spread=0.001),
        execute(integers=CONV, layers=SOME),
        "no faster here: 0.98x (2.00 -> 2.04 ms, 1 thread); "
        "12 of 20 layers compute in float, first 'conv0'",
    ),
    "noise": (
        time(2.0, 1.8, spread=0.2),
        execute(integers=CONV),
        "no difference beyond noise here: 1.11x (2.00 -> 1.80 ms, 1 thread; spreads overlap); "
        "though every layer with a weight computes in integers",
    ),
    "slower": (
        time(2.0, 4.0),
        execute(layers=("a",), expanded=("d", "e")),
        "slower here: 0.50x (2.00 -> 4.00 ms, 1 thread); 2 weights are dequantized at every run, "
        "first 'd'; 1 of 1 layers compute in float, first 'a'",
    ),
    "one-weight": (
        time(2.0, 4.0),
        execute(expanded=("d",)),
        "slower here: 0.50x (2.00 -> 4.00 ms, 1 thread); "
        "1 weight is dequantized at every run, first 'd'",
    ),
    "slower-without-a-reason": (
        time(2.0, 4.0),
        execute(),
        "slower here: 0.50x (2.00 -> 4.00 ms, 1 thread)",
    ),
    "microseconds": (
        time(0.04607, 0.02573),
        execute(),
        "1.79x faster here (0.0461 -> 0.0257 ms, 1 thread)",
    ),
    "runtime-chooses-threads": (
        time(3.0, 2.0, threads=0),
        None,
        "1.50x faster here (3.00 -> 2.00 ms, all threads)",
    ),
}


@pytest.mark.parametrize(("latency", "execution", "line"), SPEED.values(), ids=SPEED)
def test_speed(latency: Latency, execution: Execution | None, line: str) -> None:
    executions = () if execution is None else (execution,)
    assert write(latency=latency, executions=executions)[0] == line


def test_layers_at_the_other_level_are_no_reason() -> None:
    executions = (execute("none", layers=SOME), execute(integers=CONV))
    assert "float, first" not in write(latency=time(2, 4), executions=executions)[0]


@given(float_ms=st.floats(1e-3, 1e3), quantized_ms=st.floats(1e-3, 1e3), spread=st.floats(0.0, 0.5))
def test_faster_is_never_said_within_noise(
    float_ms: float, quantized_ms: float, spread: float
) -> None:
    latency = time(float_ms, quantized_ms, spread)
    line = write(latency=latency)[0]
    apart = latency.quantized_spread_ms[1] < latency.float_spread_ms[0]
    assert ("x faster here" in line) == (apart and latency.speedup > 1.05)
    assert line.startswith("slower") <= (float_ms < quantized_ms)


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (3760, 1000, "3.76x smaller (3,760 -> 1,000 bytes)"),
        (1000, 1000, "no smaller (1,000 -> 1,000 bytes)"),
        (1000, 1500, "1.50x larger (1,000 -> 1,500 bytes)"),
        (0, 0, "no smaller (0 -> 0 bytes)"),
    ],
)
def test_size(before: int, after: int, line: str) -> None:
    assert write(
        float_footprint=Footprint(size_bytes=before),
        quantized_footprint=Footprint(size_bytes=after),
    ) == (line,)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [(100, 111, True), (100, 110, False), (100, 50, False), (None, 900, False), (9, None, False)],
)
def test_memory(before: int | None, after: int | None, told: bool) -> None:
    lines = write(
        float_footprint=Footprint(size_bytes=9, peak_memory_bytes=before),
        quantized_footprint=Footprint(size_bytes=9, peak_memory_bytes=after),
    )
    assert any("more memory" in line for line in lines) == told


LEVELS: dict[str, tuple[float | None, float | None, str | None]] = {
    "less": (30.0, 33.5, "has 30.0 dB at full optimisation, 33.5 dB with it off"),
    "more": (33.5, 30.0, "has 33.5 dB at full optimisation, 30.0 dB with it off"),
    "exactly-three": (30.0, 33.0, None),
    "same": (30.0, 30.0, None),
    "identical": (math.inf, math.inf, None),
    "identical-without": (30.0, math.inf, "30.0 dB at full optimisation, no error with it off"),
    "no-signal": (-math.inf, 30.0, "no signal at full optimisation, 30.0 dB with it off"),
    "no-floats": (None, None, None),
}


@pytest.mark.parametrize(("full", "off", "line"), LEVELS.values(), ids=LEVELS)
def test_difference_between_levels(full: float | None, off: float | None, line: str | None) -> None:
    executions = (execute("all", sqnr_db=full), execute("none", sqnr_db=off))
    rest = write(executions=executions)[1:]
    assert len(rest) == (line is not None)
    assert line is None or line in rest[0]


def test_reason_for_a_difference_between_levels() -> None:
    executions = (
        execute("all", integers={"MatMulNBits": 1}, sqnr_db=20.0),
        execute("none", sqnr_db=30.0),
    )
    reason = "at full optimisation the runtime quantizes activations of weight-only layers"
    assert write(executions=executions)[1].endswith(reason)
    both = (executions[0], execute("none", integers={"MatMulNBits": 1}, sqnr_db=30.0))
    assert not write(executions=both)[1].endswith(reason)


@pytest.mark.parametrize("levels", [(), ("all",), ("none",)])
def test_one_level_has_no_difference(levels: tuple[str, ...]) -> None:
    assert len(write(executions=tuple(map(execute, levels)))) == 1


def test_weak_outputs_are_named() -> None:
    outputs = (output(9.9, "a"), output(10.0, "b"), output(None, "c"), output(-math.inf, "d"))
    assert write(outputs=outputs)[1:] == (
        "WARNING: output 'a' keeps only 9.9 dB",
        "WARNING: output 'd' keeps nothing: no signal, all noise",
    )
