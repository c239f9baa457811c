"""Reports of comparisons as files, in the format that the ending names."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from onnxq.comparison.results import ComparisonReport
from onnxq.errors import OutputError, UsageError
from onnxq.graph.output import write_whole
from onnxq.report.html import require_jinja, write_html
from onnxq.report.junit import write_junit
from onnxq.report.markdown import write_markdown

Reports = ComparisonReport | Sequence[ComparisonReport]

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
"""Variable that names the file which GitHub shows on the page of a run."""


def check_report_path(path: Path) -> None:
    """Refuse before the work what would fail after it.

    Args:
        path: of the report.

    Raises:
        UsageError: no format has this ending, or it needs Jinja2, which is not installed.
    """
    if path.suffix.lower() not in _WRITERS:
        raise UsageError(f"{path}: unknown kind of report; end it in {_describe_endings()}")
    if path.suffix.lower() == ".html":
        require_jinja()


def check_report_folder(path: Path) -> None:
    """Refuse before the work what would fail after it, also for want of a folder.

    Args:
        path: of the report.

    Raises:
        UsageError: as for ``check_report_path``.
        OutputError: there is no folder for it, or it is one.
    """
    check_report_path(path)
    try:
        reason = "" if path.parent.is_dir() else f"there is no folder {path.parent}"
        reason = "it is a folder" if path.is_dir() else reason
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise OutputError(f"{path}: cannot be written: {reason}; name another file")


def write_report(reports: Reports, path: Path, *, command: str = "") -> None:
    """Write a report; a file that is there is replaced, and never half written.

    Args:
        reports: one comparison, or those of several models.
        path: its ending, .json, .md, .xml or .html, says in which format.
        command: what was called, to be shown in HTML; without it, one that does the same.

    Raises:
        UsageError: see ``check_report_path``.
        OutputError: the file cannot be written.
    """
    check_report_path(path)
    content = _WRITERS[path.suffix.lower()](reports, command)
    write_whole(path, content.encode("utf-8", "replace"))


def append_step_summary(reports: Reports, environment: Mapping[str, str] | None = None) -> bool:
    """Add a report to the page of a run on GitHub; returns whether this is such a run.

    Args:
        reports: one comparison, or those of several models.
        environment: variables; None for those of this process.

    Raises:
        OutputError: the file cannot be written.
    """
    name = (os.environ if environment is None else environment).get(STEP_SUMMARY)
    if not name:
        return False
    content = write_markdown(_as_sequence(reports)) + "\n"
    try:
        with Path(name).open("ab") as stream:
            stream.write(content.encode("utf-8", "replace"))
    except OSError as error:
        raise OutputError(f"{name}: cannot be written: {error.strerror or error}") from error
    return True


def make_json(reports: Reports) -> dict[str, Any]:
    """Plain data of one comparison, or of several; no number in it is NaN or infinite."""
    if isinstance(reports, ComparisonReport):
        data = reports.to_json()
    else:
        data = {"schema_version": 1, "reports": [one.to_json() for one in reports]}
    finite: dict[str, Any] = _make_finite(data)
    return finite


def guess_command(report: ComparisonReport) -> str:
    """A command that makes the same comparison, as far as the report tells."""
    words = ["onnxq", "compare", str(report.float_path), str(report.quantized_path)]
    with suppress(OSError, ValueError):
        words += ["--data", report.data] * Path(report.data).is_dir()
    words += ["--layers"] * bool(report.layers)
    for gate in report.gates:
        words += [f"--{gate.name}", f"{gate.limit:.10g}"]
    return shlex.join(words)


def _as_sequence(reports: Reports) -> Sequence[ComparisonReport]:
    return (reports,) if isinstance(reports, ComparisonReport) else reports


def _write_json(reports: Reports) -> str:
    return json.dumps(make_json(reports), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _write_html(reports: Sequence[ComparisonReport], command: str) -> str:
    return write_html(reports, commands=[command or guess_command(one) for one in reports])


def _make_finite(data: Any) -> Any:
    """``data`` with null for numbers that JSON does not have."""
    if isinstance(data, dict):
        return {key: _make_finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_make_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


_WRITERS: Mapping[str, Callable[[Reports, str], str]] = {
    ".json": lambda reports, _: _write_json(reports),
    ".md": lambda reports, _: write_markdown(_as_sequence(reports)),
    ".xml": lambda reports, _: write_junit(_as_sequence(reports)),
    ".html": lambda reports, command: _write_html(_as_sequence(reports), command),
}


def _describe_endings() -> str:
    *others, last = _WRITERS
    return f"{', '.join(others)} or {last}"
