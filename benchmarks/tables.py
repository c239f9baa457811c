"""Tables in the terminal and in Markdown, with the machine named."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("onnxq", "onnxruntime", "onnx", "onnx-ir", "numpy")


@dataclass(frozen=True)
class Table:
    """Rows of text under a heading."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]


def describe_machine() -> str:
    """Processor, cores, versions and date, in one line."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{_processor_name()}, {os.cpu_count()} cores, {platform.system()}, "
        f"Python {platform.python_version()}, {packages}; {date.today().isoformat()}"
    )


def to_markdown(title: str, notes: Sequence[str], tables: Sequence[Table]) -> str:
    """A page with ``tables``."""
    lines = [f"# {title}", "", f"Machine: {describe_machine()}.", ""]
    for note in notes:
        lines += [note, ""]
    for table in filter(_has_rows, tables):
        lines += [f"## {table.title}", ""]
        lines += [_markdown_row(table.columns), _markdown_row(["---"] * len(table.columns))]
        lines += [_markdown_row(row) for row in table.rows]
        lines.append("")
    return "\n".join(lines)


def to_text(table: Table) -> str:
    """A table for the terminal, in columns as wide as their content."""
    rows = [table.columns, *table.rows]
    widths = [max(len(row[index]) for row in rows) for index in range(len(table.columns))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([table.title, *lines, ""])


def report(title: str, notes: Sequence[str], tables: Sequence[Table], path: Path | None) -> None:
    """Print ``tables``, and write them as Markdown if ``path`` is given."""
    print()
    for table in filter(_has_rows, tables):
        print(to_text(table))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_markdown(title, notes, tables), encoding="utf-8")
        print(f"wrote {path}")


def _has_rows(table: Table) -> bool:
    return bool(table.rows)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
