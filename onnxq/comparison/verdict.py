"""What a comparison comes to, in lines for a person."""

from __future__ import annotations

import math
from collections.abc import Iterator

from onnxq.comparison.results import ComparisonReport, Execution, Footprint, Latency
from onnxq.verification import LOWEST_EXPECTED_SQNR_DB

NO_DIFFERENCE = 0.05
"""Times that differ by a smaller share than this are the same to a user."""

LARGEST_LEVEL_DIFFERENCE_DB = 3.0
"""Outputs of the same file at two levels of optimisation differ by rounding only: far less."""

MORE_MEMORY = 1.1


def write_verdict(report: ComparisonReport) -> tuple[str, ...]:
    """One line on speed, one on size, and one on each thing that a user should look at."""
    by_level = {one.level: one for one in report.executions}
    lines: list[str] = []
    if report.latency is not None:
        lines.append(_describe_speed(report.latency, by_level.get("all")))
    lines.append(_describe_size(report))
    lines += _describe_memory(report.float_footprint, report.quantized_footprint)
    lines += _describe_levels(by_level)
    lines += _describe_weak_outputs(report)
    return tuple(lines)


def _describe_speed(latency: Latency, execution: Execution | None) -> str:
    speedup = latency.speedup
    threads = f"{latency.threads or 'all'} thread{'' if latency.threads == 1 else 's'}"
    times = (
        f"({_milliseconds(latency.float_ms)} -> {_milliseconds(latency.quantized_ms)} ms, {threads}"
    )
    reason = _explain(execution)
    if _overlap(latency.float_spread_ms, latency.quantized_spread_ms):
        finding = f"no difference beyond noise here: {speedup:.2f}x {times}; spreads overlap)"
        return _join(finding, reason)
    if abs(speedup - 1.0) <= NO_DIFFERENCE:
        return _join(f"no faster here: {speedup:.2f}x {times})", reason)
    if speedup > 1.0:
        return _join(f"{speedup:.2f}x faster here {times})", _describe_float_layers(execution))
    return _join(f"slower here: {speedup:.2f}x {times})", reason)


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def _join(finding: str, reason: str) -> str:
    return f"{finding}; {reason}" if reason else finding


def _explain(execution: Execution | None) -> str:
    """What in the graph speaks against speed: stated, not claimed to be the cause."""
    if execution is None:
        return ""
    expanded = execution.graph.constant_dequantize_nodes
    found = []
    if expanded:
        what = "1 weight is" if len(expanded) == 1 else f"{len(expanded)} weights are"
        found.append(f"{what} dequantized at every run, first '{expanded[0]}'")
    rest = _describe_float_layers(execution)
    if rest:
        found.append(rest)
    if not found and execution.graph.integer_nodes:
        found.append("though every layer with a weight computes in integers")
    return "; ".join(found)


def _describe_float_layers(execution: Execution | None) -> str:
    if execution is None or not execution.float_layers:
        return ""
    layers = execution.float_layers
    total = len(layers) + sum(execution.graph.integer_nodes.values())
    return f"{len(layers)} of {total} layers compute in float, first '{layers[0]}'"


def _describe_size(report: ComparisonReport) -> str:
    before = report.float_footprint.size_bytes
    after = report.quantized_footprint.size_bytes
    sizes = f"({before:,} -> {after:,} bytes)"
    if after < before:
        return f"{before / max(1, after):.2f}x smaller {sizes}"
    if after == before:
        return f"no smaller {sizes}"
    return f"{after / max(1, before):.2f}x larger {sizes}"


def _describe_memory(before: Footprint, after: Footprint) -> Iterator[str]:
    if before.peak_memory_bytes is None or after.peak_memory_bytes is None:
        return
    if after.peak_memory_bytes > MORE_MEMORY * before.peak_memory_bytes:
        yield (
            f"takes more memory: {before.peak_memory_bytes / 1e6:.1f} -> "
            f"{after.peak_memory_bytes / 1e6:.1f} MB at the peak of the first load and run"
        )


def _describe_levels(by_level: dict[str, Execution]) -> Iterator[str]:
    """Outputs that change with the optimiser, which a Python check of the file will not show."""
    if "all" not in by_level or "none" not in by_level:
        return
    off = {one.name: one.sqnr_db for one in by_level["none"].outputs}
    for output in by_level["all"].outputs:
        full_db, off_db = output.sqnr_db, off.get(output.name)
        if full_db is None or off_db is None or full_db == off_db:
            continue
        if abs(full_db - off_db) > LARGEST_LEVEL_DIFFERENCE_DB:
            yield (
                f"output '{output.name}' has {_decibels(full_db)} at full optimisation, "
                f"{_decibels(off_db)} with it off: {_explain_levels(by_level)}"
            )


def _explain_levels(by_level: dict[str, Execution]) -> str:
    full, off = by_level["all"].graph.integer_nodes, by_level["none"].graph.integer_nodes
    if full.get("MatMulNBits", 0) > off.get("MatMulNBits", 0):
        return "at full optimisation the runtime quantizes activations of weight-only layers"
    return "what it fuses rounds otherwise than the nodes of the file"


def _describe_weak_outputs(report: ComparisonReport) -> Iterator[str]:
    for output in report.outputs:
        if output.sqnr_db is not None and output.sqnr_db < LOWEST_EXPECTED_SQNR_DB:
            kept = "nothing: no signal, all noise"
            if math.isfinite(output.sqnr_db):
                kept = f"only {_decibels(output.sqnr_db)}"
            yield f"WARNING: output '{output.name}' keeps {kept}"


def _milliseconds(time_ms: float) -> str:
    return f"{time_ms:.2f}" if time_ms >= 1.0 else f"{time_ms:.3g}"


def _decibels(sqnr_db: float) -> str:
    if math.isinf(sqnr_db):
        return "no error" if sqnr_db > 0.0 else "no signal"
    return f"{sqnr_db:.1f} dB"
