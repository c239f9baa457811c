"""A comparison as tables in a terminal, and the wording that all of its reports share."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from onnxq.comparison.results import ComparisonReport, Execution, Gate, LayerError, TaskMetric
from onnxq.report.text import format_bytes
from onnxq.verification.comparison import OutputComparison

OUTPUT_COLUMNS = ("output", "SQNR", "cosine", "largest error", "same argmax", "equal")
METRIC_COLUMNS = ("metric", "float", "quantized", "drop", "samples")
FOOTPRINT_COLUMNS = ("", "float", "quantized", "change")
EXECUTION_COLUMNS = ("optimisation", "integer nodes", "float nodes", "weights expanded", "SQNR")
LAYER_COLUMNS = ("layer", "operator", "by itself", "accumulated")

WORST_LAYERS = 10

Cells = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Titles of columns, and rows."""

_PACKAGES = ("onnxq", "onnx", "onnxruntime", "numpy")

_LEVELS = {"all": "full", "none": "none"}


def print_comparison(console: Console, report: ComparisonReport) -> None:
    """The report of ``onnxq compare``."""
    where = f" ({report.samples} sample{'' if report.samples == 1 else 's'})"
    _print_lines(
        console,
        [
            f"{report.float_path} -> {report.quantized_path}",
            f"compared on: {report.data}{where if report.samples else ''}",
        ],
    )
    _print_table(console, OUTPUT_COLUMNS, map(describe_output, report.outputs))
    _print_table(console, METRIC_COLUMNS, map(describe_metric, report.metrics))
    _print_table(console, FOOTPRINT_COLUMNS, describe_footprint(report))
    _print_table(console, EXECUTION_COLUMNS, map(describe_execution, report.executions))
    _print_table(console, LAYER_COLUMNS, map(describe_layer, report.layers[:WORST_LAYERS]))
    _print_lines(console, describe_remarks(report))
    for gate in report.gates:
        line = Text(describe_gate(gate))
        line.stylize("bold green" if gate.is_met else "bold red", 0, len("PASS"))
        console.print(line, soft_wrap=True)
    _print_lines(console, report.verdict)


def describe_gate(gate: Gate) -> str:
    """Whether a limit is met, in one line.

    >>> describe_gate(Gate(name="min-sqnr", limit=35.0, reached=37.1, unit="dB", is_met=True,
    ...                    detail="output 'logits'"))
    "PASS min-sqnr 35 dB: 37.1 dB (output 'logits')"
    """
    detail = f" ({gate.detail})" if gate.detail else ""
    return (
        f"{'PASS' if gate.is_met else 'FAIL'} {gate.name} {format_limit(gate)}: "
        f"{format_reached(gate)}{detail}"
    )


def format_limit(gate: Gate) -> str:
    """What was asked, with its unit."""
    return _with_unit(f"{gate.limit:.10g}", gate.unit)


def format_reached(gate: Gate) -> str:
    """What was measured, with as many digits as it takes to see on which side of the limit it is.

    >>> format_reached(Gate(name="min-sqnr", limit=35.0, reached=34.99996, unit="dB", is_met=False))
    '34.99996 dB'
    """
    if gate.reached is None:
        return "not measured"
    if gate.unit == "dB" and gate.reached == math.inf:
        return "identical"
    text = ""
    for digits in range(4, 18):
        text = f"{gate.reached:.{digits}g}"
        if float(text) != gate.limit or gate.reached == gate.limit:
            break
    return _with_unit(text, gate.unit)


def format_sqnr(sqnr_db: float | None) -> str:
    """Signal to noise, or that there is no noise.

    >>> format_sqnr(41.237), format_sqnr(math.inf), format_sqnr(None)
    ('41.24 dB', 'identical', '')
    """
    if sqnr_db is None:
        return ""
    return "identical" if sqnr_db == math.inf else f"{sqnr_db:.2f} dB"


def format_change(ratio: float, better: str, worse: str) -> str:
    """A ratio as a person would say it.

    >>> format_change(4.0, "smaller", "larger"), format_change(0.5, "faster", "slower")
    ('4.00x smaller', '2.00x slower')
    """
    if ratio >= 1.0 or ratio <= 0.0:
        return f"{ratio:.2f}x {better}"
    return f"{1.0 / ratio:.2f}x {worse}"


def describe_output(output: OutputComparison) -> tuple[str, ...]:
    """The cells of ``OUTPUT_COLUMNS``."""
    return (
        output.name,
        format_sqnr(output.sqnr_db),
        "" if output.cosine is None else f"{output.cosine:.6f}",
        "" if output.max_abs_error is None else f"{output.max_abs_error:.3g}",
        "" if output.agreement is None else _format_share(output.agreement),
        "" if output.equal is None else _format_share(output.equal),
    )


def describe_metric(metric: TaskMetric) -> tuple[str, ...]:
    """The cells of ``METRIC_COLUMNS``."""
    values = (metric.float_value, metric.quantized_value)
    if metric.is_share:
        texts = (*map(_format_share, values), f"{metric.drop_points:.2f} points")
    else:
        texts = (*(f"{value:.6g}" for value in values), f"{values[0] - values[1]:.4g}")
    return (metric.name, *texts, str(metric.samples))


def describe_footprint(report: ComparisonReport) -> list[tuple[str, ...]]:
    """The cells of ``FOOTPRINT_COLUMNS``: size, load time, memory and latency."""
    a, b = report.float_footprint, report.quantized_footprint
    rows: list[tuple[str, ...]] = [
        (
            "size",
            format_bytes(a.size_bytes),
            format_bytes(b.size_bytes),
            format_change(a.size_bytes / max(1, b.size_bytes), "smaller", "larger"),
        )
    ]
    if a.load_ms is not None and b.load_ms is not None:
        change = _describe_ratio(a.load_ms, b.load_ms, "faster", "slower")
        rows.append(("load", f"{a.load_ms:.1f} ms", f"{b.load_ms:.1f} ms", change))
    if a.peak_memory_bytes is not None and b.peak_memory_bytes is not None:
        texts = (format_bytes(a.peak_memory_bytes), format_bytes(b.peak_memory_bytes))
        change = _describe_ratio(a.peak_memory_bytes, b.peak_memory_bytes, "less", "more")
        rows.append(("peak memory", *texts, change))
    if report.latency is not None:
        one = report.latency
        rows.append(
            (
                f"latency, {one.threads or 'all'} thread{'' if one.threads == 1 else 's'}",
                format_latency(one.float_ms, one.float_spread_ms),
                format_latency(one.quantized_ms, one.quantized_spread_ms),
                format_change(one.speedup, "faster", "slower"),
            )
        )
    return rows


def format_latency(median_ms: float, spread_ms: tuple[float, float]) -> str:
    """A median with its quartiles.

    >>> format_latency(1.5, (1.25, 2.0))
    '1.50 ms (1.25 to 2.00)'
    """
    digits = 2 if median_ms >= 0.1 else 4
    low, high = (f"{one:.{digits}f}" for one in spread_ms)
    return f"{median_ms:.{digits}f} ms ({low} to {high})"


def describe_execution(execution: Execution) -> tuple[str, ...]:
    """The cells of ``EXECUTION_COLUMNS``."""
    graph = execution.graph
    measured = [one.sqnr_db for one in execution.outputs if one.sqnr_db is not None]
    return (
        _LEVELS.get(execution.level, execution.level),
        _count_nodes(graph.integer_nodes),
        _count_nodes(graph.float_nodes),
        str(len(graph.constant_dequantize_nodes)),
        format_sqnr(min(measured)) if measured else "",
    )


def describe_layer(layer: LayerError) -> tuple[str, ...]:
    """The cells of ``LAYER_COLUMNS``."""
    return (
        layer.node,
        layer.operator,
        format_sqnr(layer.added_sqnr_db),
        format_sqnr(layer.accumulated_sqnr_db),
    )


def drop_empty(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Cells:
    """Titles and cells without the columns that are empty in every row.

    >>> drop_empty(("output", "equal"), [("logits", ""), ("scores", "")])
    (('output',), [('logits',), ('scores',)])
    """
    cells = [tuple(row) for row in rows]
    used = [
        index for index in range(len(columns)) if index == 0 or any(row[index] for row in cells)
    ]
    return tuple(columns[index] for index in used), [
        tuple(row[index] for index in used) for row in cells
    ]


def describe_remarks(report: ComparisonReport) -> list[str]:
    """Layers with a weight that users get in float, then the notes."""
    lines = [
        f"in float with full optimisation: {', '.join(one.float_layers)}"
        for one in report.executions
        if one.level == "all" and one.float_layers
    ]
    return [*lines, *(f"note: {note}" for note in report.notes)]


def describe_environment() -> list[tuple[str, str]]:
    """Versions and the processor: what the figures depend on."""
    rows = [(name, _find_version(name)) for name in _PACKAGES]
    return [
        *rows,
        ("Python", platform.python_version()),
        ("system", platform.platform()),
        ("processor", _find_processor()),
    ]


def _count_nodes(nodes: dict[str, int]) -> str:
    return ", ".join(f"{count} {operator}" for operator, count in nodes.items()) or "0"


def _describe_ratio(float_value: float, value: float, better: str, worse: str) -> str:
    if float_value <= 0.0 or value <= 0.0:
        return ""
    return format_change(float_value / value, better, worse)


def _format_share(share: float) -> str:
    return f"{100.0 * share:.2f} %"


def _with_unit(text: str, unit: str) -> str:
    return text if not unit else f"{text}x" if unit == "x" else f"{text} {unit}"


def _print_table(console: Console, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Nothing where there are no rows."""
    titles, cells = drop_empty(columns, rows)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, title in enumerate(titles):
        table.add_column(title, justify="left" if index == 0 else "right", overflow="fold")
    for row in cells:
        table.add_row(*map(escape, row))
    if cells:
        console.print(table)


def _print_lines(console: Console, lines: Iterable[str]) -> None:
    text = "\n".join(lines)
    if text:
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def _find_version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def _find_processor() -> str:
    """The name of the processor, which ``platform`` does not know on Linux."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
