"""The report of ``onnxq qat``."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from onnxq.errors import UsageError
from onnxq.graph.output import write_whole
from onnxq.pipelines.qat_judging import Likeness
from onnxq.pipelines.qat_result import TrainingResult
from onnxq.report.files import check_report_folder
from onnxq.report.text import format_bytes, print_verification
from onnxq.report.training_html import write_training_html

MOST_ROWS = 12
"""Of the learning curve in a terminal."""


def print_training(console: Console, result: TrainingResult) -> None:
    """What was trained, the learning curve, and how the result compares."""
    _print_curve(console, result)
    lines = [*describe_training(result), *(f"note: {note}" for note in result.notes)]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
    print_verification(console, result.verification)
    ratio = result.float_size_bytes / max(1, result.size_bytes)
    console.print(
        f"{result.output}: {format_bytes(result.float_size_bytes)} -> "
        f"{format_bytes(result.size_bytes)} ({ratio:.2f}x smaller)",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


PLURALS = {"bias": "biases"}


def describe_training(result: TrainingResult) -> list[str]:
    """Lines on what was done."""
    tuned, history = result.tuned, result.history
    count, held_back = tuned.samples
    trained = ", ".join(
        f"{number} {kind if number == 1 else PLURALS.get(kind, f'{kind}s')}"
        for kind, number in tuned.trained.items()
        if number
    )
    seconds = history.points[-1].seconds if history.points else 0.0
    lines = [
        f"trained: {trained} on {count} samples, {held_back} held back, {tuned.device}, "
        f"{seconds:.0f} s",
        f"learning rate: {history.factor:g} times the usual one"
        + (" (found in a trial)" if history.trials else ""),
    ]
    on = "on samples held back, run by onnxruntime"
    lines += _describe_likeness(result, on, lambda one: one.held_back_db)
    return lines + _describe_likeness(result, "on variants of them", lambda one: one.variants_db)


def _describe_likeness(
    result: TrainingResult, on: str, measure: Callable[[Likeness], float | None]
) -> list[str]:
    """From where, by which way, to where; nothing where that is not known."""
    start, begun, reached = map(measure, (result.baseline, result.begun, result.reached))
    if start is None or begun is None or reached is None:
        return []
    retuned = ""
    if result.begun != result.baseline:
        retuned = f" {begun:.2f} dB tuned on {result.synthetic} synthetic samples, too ->"
    return [
        f"{on}: {start:.2f} dB from {result.start} ->{retuned} {reached:.2f} dB "
        f"({reached - start:+.2f})"
    ]


def check_training_report(path: Path) -> None:
    """Refuse before the work what would fail after it.

    Raises:
        UsageError: no format has this ending, or it needs Jinja2, which is not installed.
        OutputError: there is no folder for it.
    """
    if path.suffix.lower() not in _WRITERS:
        raise UsageError(f"{path}: unknown kind of report; end it in .json or .html")
    check_report_folder(path)


def write_training_report(result: TrainingResult, path: Path, *, command: str) -> None:
    """Write a report; a file that is there is replaced, and never half written.

    Args:
        result: of the training.
        path: its ending, .json or .html, says in which format.
        command: what was called.

    Raises:
        OutputError: the file cannot be written.
    """
    content = _WRITERS[path.suffix.lower()](result, command)
    write_whole(path, content.encode("utf-8", "replace"))


def _write_json(result: TrainingResult, _command: str) -> str:
    return json.dumps(result.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


_WRITERS: Mapping[str, Callable[[TrainingResult, str], str]] = {
    ".json": _write_json,
    ".html": lambda result, command: write_training_html(
        result, describe_training(result), command
    ),
}


def _print_curve(console: Console, result: TrainingResult) -> None:
    points = result.history.points
    if not points:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("step", "loss", "loss held back", "SQNR held back", "time", ""):
        table.add_column(title, justify="right")
    every = max(1, math.ceil((len(points) - 1) / MOST_ROWS))
    for index, point in enumerate(points):
        is_best = index == result.history.best
        if index % every and not is_best and index != len(points) - 1:
            continue
        table.add_row(
            str(point.step),
            "" if math.isnan(point.loss) else f"{point.loss:.3g}",
            f"{point.validation_loss:.3g}",
            f"{point.sqnr_db:.2f} dB",
            f"{point.seconds:.0f} s",
            "best" if is_best else "",
        )
    console.print(table)
