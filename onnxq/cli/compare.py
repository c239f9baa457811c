"""``onnxq compare``."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from onnxq.cli import options
from onnxq.errors import EXIT_NO
from onnxq.runtime.signals import hold_signals

GATES = (
    ("min-sqnr", "DB", "Lowest SQNR of any output, in dB."),
    ("min-cosine", "C", "Lowest mean cosine of any output."),
    ("min-agreement", "P", "Lowest share of same largest scores, 0.98 or 98."),
    ("min-accuracy", "P", "Lowest top-1 accuracy on labels, 0.95 or 95, or value of --metric."),
    ("max-accuracy-drop", "POINTS", "Most points of accuracy lost against float."),
    ("min-speedup", "X", "Least times as fast as float."),
    ("max-size-ratio", "R", "Largest size of QUANTIZED over that of FLOAT."),
    ("max-latency-ms", "MS", "Longest median inference, in milliseconds."),
)


def _add_gates(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, metavar, text in reversed(GATES):
        command = click.option(f"--{name}", type=float, metavar=metavar, help=text)(command)
    return command


@click.command(short_help="Compare a quantized model with its float original.")
@click.argument("float_model", type=options.FILE, metavar="FLOAT")
@click.argument("quantized_model", type=options.FILE, metavar="QUANTIZED")
@click.option(
    "--data",
    type=options.FILE,
    metavar="DIR",
    help="Folder of samples: .npz, .npy, onnx test sets, images; with sub-folders.",
)
@options.SAMPLES
@options.IMAGES
@click.option(
    "--labels",
    type=options.FILE,
    metavar="FILE",
    help="Classes: .json, .csv or .npy.  [default: labels.* in DIR or beside it, class folders]",
)
@click.option(
    "--metric", metavar="MODULE:FUNCTION", help="Function that rates the outputs of a sample."
)
@click.option("--layers", is_flag=True, help="Find which layers the error comes from.")
@click.option(
    "--latency/--no-latency", default=True, show_default=True, help="Measure times of both models."
)
@click.option(
    "--threads", type=int, default=1, show_default=True, help="Threads while times are measured."
)
@click.option(
    "--rounds", type=int, default=15, show_default=True, help="Rounds of that measurement."
)
@_add_gates
@options.REPORT
@options.JSON
def compare(
    *,
    float_model: Path,
    quantized_model: Path,
    reports: tuple[Path, ...],
    as_json: bool,
    **values: Any,
) -> None:
    """Compare QUANTIZED with FLOAT: accuracy, where the error comes from, size, speed.

    Every gate that is given has to be met: if one is not, the exit code is 1.

    \b
    Example:
      onnxq compare model.onnx model.static.onnx --data samples/ --min-sqnr 30 --min-speedup 1.5
    """
    with hold_signals():
        import onnxq
        from onnxq.cli.output import deliver, make_console, print_json, show_progress
        from onnxq.report.comparison_text import print_comparison
        from onnxq.report.files import (
            append_step_summary,
            make_json,
            write_report,
        )
        from onnxq.samples import ImageOptions

    _check_reports(reports, float_model, quantized_model, values)
    images = ImageOptions(**{name: values.pop(name) for name in options.IMAGE_NAMES})
    asked = ((name, values.pop(name.replace("-", "_"))) for name, *_ in GATES)
    limits = {name: limit for name, limit in asked if limit is not None}
    # Functions of the user may print; standard output is for the result.
    with contextlib.redirect_stdout(sys.stderr):
        report = onnxq.compare(
            float_model,
            quantized_model,
            images=images,
            gates=limits,
            progress=show_progress,
            **values,
        )
    command = shlex.join(["onnxq", *sys.argv[1:]])

    def show() -> None:
        if as_json:
            print_json(make_json(report))
        else:
            print_comparison(make_console(), report)

    writers = [partial(write_report, report, path, command=command) for path in reports]
    deliver(show, (*writers, partial(append_step_summary, report)))
    if not report.is_passed:
        raise click.exceptions.Exit(EXIT_NO)


def _check_reports(
    reports: tuple[Path, ...], float_model: Path, quantized_model: Path, values: Mapping[str, Any]
) -> None:
    """Refuse before the work what would fail after it."""
    from onnxq.pipelines.conflicts import Kind, Reading, Writing, refuse_conflicts
    from onnxq.report.files import check_report_folder

    for path in reports:
        check_report_folder(path)
    refuse_conflicts(
        [Writing("--report", path) for path in reports],
        (
            Reading("the file of --labels", values["labels"]),
            Reading("the float model", float_model, Kind.MODEL),
            Reading("the quantized model", quantized_model, Kind.MODEL),
            Reading("--data", values["data"], Kind.SAMPLES),
            Reading("--reader", values["reader"], Kind.CODE),
            Reading("--metric", values["metric"], Kind.CODE),
        ),
    )
