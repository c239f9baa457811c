"""The process that sees to one model, so that a crash of the runtime takes only that one.

It reads a ``Task`` from standard input and writes messages to standard output, pickled: both ends
are this program. Whatever code of the user prints goes to standard error.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterable
from types import FrameType
from typing import IO, Any, NoReturn

from onnxq.errors import EXIT_ERROR, EXIT_INTERRUPTED, OnnxqError

Tell = Callable[[object], None]


def main() -> NoReturn:
    """Run one task and end the process."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    exit_code = 0
    try:
        _run(sys.stdin.buffer, lambda message: _send(pipe, message))
    except (KeyboardInterrupt, BrokenPipeError):
        # Asked to stop, or whoever would have read the result is gone; all is cleaned up by now.
        exit_code = EXIT_INTERRUPTED
    sys.stdout.flush()
    # Not by the way of the interpreter, which would free every object first.
    os._exit(exit_code)


def _run(stdin: IO[bytes], tell: Tell) -> None:
    from onnxq.runs.messages import Broken, Task

    # Signals were held back until here: an exception in the import of an extension module would
    # crash the process. Ctrl-C stays blocked, because the parent sees it and sends SIGTERM.
    signal.signal(signal.SIGTERM, _stop)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        task = pickle.load(stdin)
        assert isinstance(task, Task)
        tell(_see_to(task, tell))
    except BrokenPipeError:
        raise
    except OnnxqError as error:
        tell(Broken(str(error), error.exit_code))
    except MemoryError:
        tell(Broken("not enough memory for this model", EXIT_ERROR))
    except Exception as error:
        text = f"internal error, please report it: {type(error).__name__}: {error}"
        tell(Broken(" ".join(text.split()), EXIT_ERROR))


def _see_to(task: Any, tell: Tell) -> object:
    import logging

    from onnxq.runs.messages import Step
    from onnxq.runs.work import run_job

    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    # Paths are relative to the pipeline file, so that reports and the lock are the same anywhere.
    os.chdir(task.folder)

    def progress(label: str) -> Callable[[Iterable[Any], int | None], Iterable[Any]]:
        def track(things: Iterable[Any], total: int | None) -> Iterable[Any]:
            tell(Step(label, total))
            return things

        return track

    return run_job(
        task.job,
        task.recorded,
        force=task.force,
        progress=progress,
        announce=lambda label: tell(Step(label)),
    )


def _send(pipe: IO[bytes], message: object) -> None:
    pickle.dump(message, pipe)
    pipe.flush()


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    # Once is enough: a second one would cut the cleaning up short.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt
