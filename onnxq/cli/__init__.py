"""The command line: click and progress bars, nothing else.

Only click is imported at start; each command imports what it needs when it runs, so that
``onnxq --help`` answers at once.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from onnxq.cli.output import describe_full_output, tell
from onnxq.errors import (
    EXIT_DONE,
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    OnnxqError,
    make_printable,
)

EXIT_TERMINATED = 143


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="onnxq")
def cli() -> None:
    """Quantize ONNX models: smaller, really faster, shown to be as accurate.

    \b
    Exit codes: 0 done, 1 ran and the answer is no, 2 usage, 3 bad model, data or target,
    130 interrupted, 143 terminated.

    \b
    Example:
      onnxq dynamic model.onnx
    """


def _register_commands() -> None:
    from onnxq.cli.compare import compare
    from onnxq.cli.dynamic import dynamic
    from onnxq.cli.inspect import inspect
    from onnxq.cli.qat import qat
    from onnxq.cli.run import run as run_pipeline
    from onnxq.cli.static import static

    cli.add_command(dynamic)
    cli.add_command(static)
    cli.add_command(qat)
    cli.add_command(compare)
    cli.add_command(run_pipeline)
    cli.add_command(inspect)


_register_commands()


def main() -> NoReturn:
    """Run the command line and exit with its code; nothing leaves a traceback."""
    if not _keep_standard_streams():
        os._exit(_fail("standard output is closed; send it to a file, or to /dev/null", EXIT_USAGE))
    received: list[int] = []

    def unwind(number: int, _frame: FrameType | None) -> NoReturn:
        received.append(number)
        raise KeyboardInterrupt

    # Both unwind, so that temporary files are removed.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, unwind)
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    # One command is one short process: collecting cycles during the imports and freeing every
    # object at the end took a third of the processor time of quantizing a small model.
    gc.disable()
    use_one_thread_for_products()
    exit_code = run(sys.argv[1:])
    if exit_code != EXIT_DONE and received:
        # Also where the import of an extension module made another error of the interrupt.
        exit_code = EXIT_TERMINATED if signal.SIGTERM in received else EXIT_INTERRUPTED
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(exit_code)


def use_one_thread_for_products() -> None:
    """Let numpy multiply matrices in one thread, unless the user says how many.

    Threads of OpenBLAS wait for each other in loops. Beside another process on two cores they took
    18 s of processor time, and 22 s, for what one thread did in 12 s, and 14 s (EfficientNet-Lite0,
    balanced, x86-64 Zen 4); with 384 rows a Cholesky factor took a hundred times as long. And sums
    in one thread do not depend on the number of cores. To be called before numpy is imported.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _keep_standard_streams() -> bool:
    """Have all three open, or the next file that is opened takes the place of one, and its content
    is what others print there; returns whether standard output was.
    """
    is_open = []
    for number in range(3):
        try:
            os.fstat(number)
            is_open.append(True)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            is_open.append(False)
    if not is_open[2]:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115, for as long as this process runs
    return is_open[1]


def run(arguments: list[str]) -> int:
    """Run one command; returns its exit code."""
    if not arguments:  # click has an exit code of its own for this, another in each version
        tell(cli.get_help(click.Context(cli, info_name="onnxq")))
        return EXIT_USAGE
    try:
        # Not ``cli.main``, which has an exit code of its own for a closed pipe.
        with cli.make_context("onnxq", arguments) as context:
            cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        return done.exit_code
    except OnnxqError as error:
        return _fail(str(error), error.exit_code)
    except click.ClickException as error:
        return _fail(_describe_usage(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        # Whoever read the report has seen enough; the work itself was done.
        return EXIT_DONE
    except MemoryError:
        return _fail("not enough memory for this model", EXIT_ERROR)
    except OSError as error:
        # Of all writes those of help texts are caught nowhere else.
        if error.errno == errno.ENOSPC and error.filename is None:
            return _fail(describe_full_output(error))
        return _fail(f"internal error, please report it: {type(error).__name__}: {error}")
    except Exception as error:
        return _fail(f"internal error, please report it: {type(error).__name__}: {error}")
    return EXIT_DONE


def _describe_usage(error: click.ClickException) -> str:
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    return message if context is None else f"{message}; see {context.command_path} --help"


def _fail(message: str, exit_code: int = EXIT_ERROR) -> int:
    tell(f"error: {make_printable(message)}")
    return exit_code
