"""``onnxq run``."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxq.cli import options
from onnxq.cli.output import tell
from onnxq.errors import EXIT_DONE, EXIT_USAGE
from onnxq.runtime.signals import hold_signals

if TYPE_CHECKING:
    from rich.console import Console

    from onnxq.runs import ModelResult, Pipeline, PipelineResult


@click.command(short_help="Quantize and check all models of a pipeline file.")
@click.argument(
    "pipeline_file",
    type=options.FILE,
    default="onnxq.toml",
    metavar="[PIPELINE]",
)
@click.option(
    "--jobs",
    type=int,
    default=1,
    show_default=True,
    metavar="N",
    help="Models at a time, each in a process of its own; times are then measured under load.",
)
@click.option(
    "--locked", is_flag=True, help="Fail where a result is not as in the lock; never write it."
)
@click.option("--force", is_flag=True, help="Do everything anew, changed or not.")
@click.option(
    "--report",
    "reports",
    multiple=True,
    type=options.FILE,
    metavar="FILE",
    help="Write a report of all models: .json, .md, .xml (JUnit) or .html, by its ending.",
)
@options.JSON
def run(
    *,
    pipeline_file: Path,
    jobs: int,
    locked: bool,
    force: bool,
    reports: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Quantize and check all models of PIPELINE, onnxq.toml if none is named.

    Each is quantized, compared and held to its gates. What has not changed since the last run, by
    the hashes in onnxq.lock, is left alone. After a model that breaks the others go on.

    \b
    Exit codes: 0 all is well, 1 a gate is not met or a result is not as in the lock, 2 the pipeline
    file is wrong, 3 a model broke.

    \b
    Example:
      onnxq run onnxq.toml --jobs 2
    """
    with hold_signals():
        from onnxq.cli.output import deliver, make_console, print_json
        from onnxq.report.files import append_step_summary, write_report
        from onnxq.runs import RunOptions, prepare_reports, run_pipeline

    run_options = RunOptions(jobs=jobs, force=force, locked=locked)
    pipeline = _read(pipeline_file)
    prepare_reports(reports, pipeline)
    result = run_pipeline(pipeline, options=run_options, tell=tell)

    def show() -> None:
        if as_json:
            print_json(result.to_json())
        else:
            _print_result(make_console(), result)

    command = f"onnxq run {pipeline_file}"
    writers = [partial(write_report, result.reports, path, command=command) for path in reports]
    deliver(show, (*writers, partial(append_step_summary, result.reports, os.environ)))
    if result.exit_code != EXIT_DONE:
        raise click.exceptions.Exit(result.exit_code)


def _read(path: Path) -> Pipeline:
    from onnxq.runs import PipelineFileError, read_pipeline

    try:
        return read_pipeline(path)
    except PipelineFileError as error:
        for line in error.lines:
            tell(line)
        raise click.exceptions.Exit(EXIT_USAGE) from error


def _print_result(console: Console, result: PipelineResult) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("model", "mode", "output"):
        table.add_column(title, overflow="fold")
    for title in ("size", "smaller", "worst SQNR", "top-1"):
        table.add_column(title, justify="right")
    table.add_column("gates", justify="right")
    table.add_column("result", overflow="fold")
    for model in result.models:
        table.add_row(
            escape(model.job.name),
            model.job.mode,
            escape(model.job.output.as_posix()),
            *_describe_numbers(model),
            model.state.value,
        )
    console.print(table)
    lines = [f"{one.job.name}: {text}" for one in result.models for text in one.problems]
    if result.lock_error:
        lines.append(result.lock_error)
    if lines:
        console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def _describe_numbers(model: ModelResult) -> tuple[str, str, str, str, str]:
    """Size, ratio, SQNR, accuracy and gates; empty where nothing is known."""
    from onnxq.report.text import format_bytes

    if model.entry is None:
        return "", "", "", "", ""
    numbers, gates = model.entry.numbers, model.entry.gates
    sqnr_db = numbers.worst_sqnr_db
    accuracy = next((one for one in numbers.metrics if one.is_share), None)
    met = sum(gate.is_met for gate in gates)
    return (
        format_bytes(numbers.size_bytes),
        f"{numbers.float_size_bytes / max(1, numbers.size_bytes):.2f}x",
        "" if sqnr_db is None else f"{sqnr_db:.2f} dB",
        "" if accuracy is None else f"{100 * accuracy.quantized_value:.2f} %",
        f"{met}/{len(gates)}" if gates else "",
    )
