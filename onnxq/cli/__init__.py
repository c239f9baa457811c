"""The command line: click and progress bars, nothing else.

Only click is imported at start; each command imports what it needs when it runs, so that
``onnxq --help`` answers at once.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import click

from onnxq.errors import EXIT_DONE, EXIT_ERROR, EXIT_INTERRUPTED, OnnxqError

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
    from onnxq.cli.dynamic import dynamic
    from onnxq.cli.inspect import inspect

    cli.add_command(dynamic)
    cli.add_command(inspect)


_register_commands()


def main() -> NoReturn:
    """Run the command line and exit with its code; no error leaves a traceback."""
    # Termination unwinds like an interrupt, so that temporary files are removed.
    signal.signal(signal.SIGTERM, _raise_exit)
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    try:
        # Not ``cli.main``, which has an exit code of its own for a closed pipe.
        with cli.make_context("onnxq", sys.argv[1:]) as context:
            cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except OnnxqError as error:
        _fail(str(error), error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        # Whoever read the report has seen enough; the work itself was done.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except MemoryError:
        _fail("not enough memory for this model", EXIT_ERROR)
    except Exception as error:
        _fail(f"internal error, please report it: {type(error).__name__}: {error}", EXIT_ERROR)
    sys.exit(EXIT_DONE)


def _fail(message: str, exit_code: int) -> NoReturn:
    click.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(exit_code)


def _raise_exit(_signal: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(EXIT_TERMINATED)
