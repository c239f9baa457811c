"""The command line: click and progress bars, nothing else.

Only click is imported at start; each command imports what it needs when it runs, so that
``onnxq --help`` answers at once.
"""

from __future__ import annotations

import logging
import signal
import sys
from types import FrameType
from typing import NoReturn

import click

from onnxq.errors import EXIT_INTERRUPTED, OnnxqError

EXIT_TERMINATED = 143


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="onnxq")
def cli() -> None:
    """Quantize ONNX models: smaller, really faster, shown to be as accurate.

    \b
    Exit codes: 0 done, 1 ran and the answer is no, 2 usage, 3 bad model, data or target,
    130 interrupted.

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
        cli.main(standalone_mode=False)
        sys.exit(0)
    except OnnxqError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; nothing was written", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(EXIT_TERMINATED)
    except MemoryError:
        click.echo("error: not enough memory; nothing was written", err=True)
        sys.exit(OnnxqError.exit_code)


def _raise_exit(_signal: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(EXIT_TERMINATED)
