"""A comparison as Markdown, in the dialect of GitHub."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from onnxq.comparison.results import ComparisonReport
from onnxq.report.comparison_text import (
    EXECUTION_COLUMNS,
    FOOTPRINT_COLUMNS,
    LAYER_COLUMNS,
    METRIC_COLUMNS,
    OUTPUT_COLUMNS,
    describe_execution,
    describe_footprint,
    describe_layer,
    describe_metric,
    describe_output,
    describe_remarks,
    drop_empty,
    format_limit,
    format_reached,
)

WORST_LAYERS = 20

_SPACES = re.compile(r"[\s\x00-\x1f\x7f]+")
_MARKUP = re.compile(r"[\\`*_\[\]<>&|~#@!]")
_NOT_IN_CODE = re.compile(r"[|`\\]")


def write_markdown(reports: Sequence[ComparisonReport]) -> str:
    """One section a model; a table of all of them first where there are several."""
    parts = []
    if len(reports) > 1:
        rows = [
            (escape_name(str(one.quantized_path)), _describe_result(one), *_summarize(one))
            for one in reports
        ]
        parts.append("# onnxq compare\n")
        parts.append(_write_table(("model", "result", "size", "latency"), rows))
    parts += [_write_report(report) for report in reports]
    return "\n".join(parts)


def escape_name(name: str) -> str:
    """A name from a model, or of a file, as code that nothing in it can end.

    >>> print(escape_name("/block/Conv_1"), escape_name("a|b"))
    `/block/Conv_1` <code>a&#124;b</code>
    """
    text = _SPACES.sub(" ", name).strip()
    if text and not _NOT_IN_CODE.search(text):
        return f"`{text}`"
    # No fence holds a pipe of a table and a backslash before it: GitHub splits the row first.
    return f"<code>{re.sub(r'[^A-Za-z0-9 ]', _to_entity, text)}</code>"


def escape_text(text: str) -> str:
    """Plain text that stays plain text, on one line.

    >>> print(escape_text("2 * <b>\\n| c"))
    2 &#42; &#60;b&#62; &#124; c
    """
    return _MARKUP.sub(_to_entity, _SPACES.sub(" ", text).strip())


def _to_entity(match: re.Match[str]) -> str:
    return f"&#{ord(match[0])};"


def _describe_result(report: ComparisonReport) -> str:
    if not report.gates:
        return "no gates"
    return "✅ PASS" if report.is_passed else "❌ FAIL"


def _summarize(report: ComparisonReport) -> tuple[str, str]:
    rows = {row[0].split(",")[0]: row[-1] for row in describe_footprint(report)}
    return rows["size"], rows.get("latency", "")


def _write_report(report: ComparisonReport) -> str:
    samples = f" ({report.samples} samples)" if report.samples else ""
    parts = [
        f"## {_describe_result(report)}: {escape_name(str(report.quantized_path))}\n",
        f"Compared with {escape_name(str(report.float_path))} on "
        f"{escape_text(report.data)}{samples}.\n",
        _write_list(report.verdict),
        _write_gates(report),
        _write_rows(OUTPUT_COLUMNS, map(describe_output, report.outputs), names=1),
        _write_rows(METRIC_COLUMNS, map(describe_metric, report.metrics), names=1),
        _write_rows(FOOTPRINT_COLUMNS, describe_footprint(report), names=0),
        _write_rows(EXECUTION_COLUMNS, map(describe_execution, report.executions), names=0),
        _write_layers(report),
        _write_list(describe_remarks(report)),
    ]
    return "\n".join(part for part in parts if part)


def _write_gates(report: ComparisonReport) -> str:
    rows = [
        (
            "✅ PASS" if gate.is_met else "❌ FAIL",
            escape_name(gate.name),
            escape_text(format_limit(gate)),
            escape_text(format_reached(gate)),
            escape_text(gate.detail),
        )
        for gate in report.gates
    ]
    return _write_table(("", "gate", "limit", "reached", "from"), rows)


def _write_layers(report: ComparisonReport) -> str:
    shown = report.layers[:WORST_LAYERS]
    if not shown:
        return ""
    table = _write_rows(LAYER_COLUMNS, map(describe_layer, shown), names=2)
    title = f"Error of each layer, worst {len(shown)} of {len(report.layers)}"
    return f"<details><summary>{title}</summary>\n\n{table}\n</details>\n"


def _write_rows(columns: Sequence[str], rows: Iterable[Sequence[str]], *, names: int) -> str:
    """A table whose first cells are names and whose other cells are text."""
    titles, cells = drop_empty(columns, rows)
    escaped = [(*map(escape_name, row[:names]), *map(escape_text, row[names:])) for row in cells]
    return _write_table(titles, escaped)


def _write_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells that are escaped already; nothing where there are no rows."""
    if not rows:
        return ""
    rule = ["---", *["---:"] * (len(columns) - 1)]
    lines = [" | ".join(cells) for cells in (columns, rule, *rows)]
    return "".join(f"| {line} |\n" for line in lines)


def _write_list(lines: Iterable[str]) -> str:
    return "".join(f"- {escape_text(line)}\n" for line in lines)
