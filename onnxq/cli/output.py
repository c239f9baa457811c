"""What every command shares: where results and progress go."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxq.errors import OnnxqError, OutputError

if TYPE_CHECKING:
    from rich.console import Console

    from onnxq.pipelines import QuantizationResult
    from onnxq.runtime.session import Feeds
    from onnxq.training.history import Report, Status

SECONDS_BETWEEN_LINES = 30

_UNPRINTABLE = re.compile("[\x7f-\x9f\ud800-\udfff]")
"""What JSON leaves as it is: control characters, and bytes of file names that are no text."""

NARROWEST_PIPE = 160
"""Columns of a table that goes into a file or another program, where nothing is too wide."""


def deliver_quantized(result: QuantizationResult, *, as_json: bool) -> None:
    """Print what ``dynamic`` or ``static`` made.

    Raises:
        OutputError: it could not be printed; the model is complete all the same.
    """
    from onnxq.report.text import print_result

    def show() -> None:
        if as_json:
            print_json(result.to_json())
        else:
            print_result(make_console(), result)

    deliver(show, written=None if result.size_bytes is None else result.output)


def deliver(
    show: Callable[[], None],
    reports: Iterable[Callable[[], object]] = (),
    *,
    written: Path | None = None,
) -> None:
    """Print a result and write every report of it: what cannot be written hides nothing else.

    Args:
        show: prints the result.
        reports: each writes one.
        written: a model that is complete by now.

    Raises:
        OutputError: something could not be written, which all else was done in spite of.
    """
    failures = []
    try:
        show()
        sys.stdout.flush()
    except BrokenPipeError:
        _leave_standard_output()  # whoever read the result has seen enough
    except OSError as error:
        failures.append(describe_full_output(error))
        _leave_standard_output()
    for write in reports:
        try:
            write()
        except OnnxqError as error:
            failures.append(str(error))
    if failures:
        complete = [] if written is None else [f"{written} is complete"]
        raise OutputError("; ".join((*failures, *complete)))


def describe_full_output(error: OSError) -> str:
    """Why standard output takes nothing any more."""
    return f"standard output: cannot be written: {error.strerror or error}"


def tell(line: str) -> None:
    """A line on standard error; nothing where that cannot be written, as the work goes on."""
    with contextlib.suppress(OSError, ValueError):
        click.echo(line, err=True)


def _leave_standard_output() -> None:
    """What is still in its buffer would fail again at the end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def make_console() -> Console:
    """A console on standard output."""
    from rich.console import Console
    from rich.text import Text

    class SafeConsole(Console):
        """Names come from files of others, and a terminal would obey what is in them."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would end the program, with exit code 1

        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(_escape_controls(text), **options)

    if sys.stdout.isatty():
        return SafeConsole()
    return SafeConsole(width=max(NARROWEST_PIPE, shutil.get_terminal_size().columns))


def _escape_controls(text: str) -> str:
    r"""``text`` with escapes for control characters other than line ends.

    >>> _escape_controls("name\x1b[2J\n")
    'name\\x1b[2J\n'
    """
    return "".join(
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode()
        for one in text
    )


def print_json(data: dict[str, Any]) -> None:
    """Machine-readable results on standard output."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    click.echo(_UNPRINTABLE.sub(lambda found: json.dumps(found[0])[1:-1], text))


def track_samples(feeds: Iterable[Feeds], total: int | None) -> Iterable[Feeds]:
    """A progress bar on standard error, where that is a terminal."""
    return show_progress("comparing")(feeds, total)


def show_progress(label: str) -> Callable[[Iterable[Any], int | None], Iterable[Any]]:
    """Progress bars under a label, with rate and remaining time."""
    from tqdm import tqdm

    def track(things: Iterable[Any], total: int | None) -> Iterable[Any]:
        bar: Iterable[Any] = tqdm(
            things,
            total=total,
            unit="sample",
            desc=label,
            disable=not sys.stderr.isatty(),
            leave=False,
        )
        return bar

    return track


def show_training() -> Report:
    """A bar with loss, best SQNR and remaining time; where there is no terminal, lines."""
    from tqdm import tqdm

    terminal = sys.stderr.isatty()
    bars: list[Any] = []
    told: list[float] = []

    def report(status: Status) -> None:
        text = f"loss {status.loss:.3g}, best {status.best_sqnr_db:.2f} dB"
        if not terminal:
            last = status.step == status.steps
            if last or not told or status.seconds - told[-1] >= SECONDS_BETWEEN_LINES:
                told.append(status.seconds)
                remaining = status.seconds / max(1, status.step) * (status.steps - status.step)
                line = f"step {status.step} of {status.steps}: {text}, {remaining:.0f} s remain"
                tell(line)
            return
        if not bars:
            bars.append(tqdm(total=status.steps, unit="step", desc="training", leave=False))
        bars[0].set_postfix_str(text, refresh=False)
        bars[0].update(status.step - bars[0].n)
        if status.step == status.steps:
            bars[0].close()

    return report
