"""The command line in a process of its own, which a file may crash or keep busy for ever."""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
import os
import resource
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

LONGEST_CPU_SECONDS = 20
"""Of one command on a model of a few kilobytes; processor time, so that a busy machine is none."""

MOST_MEMORY_BYTES = 16 << 30


@dataclass(frozen=True)
class Reply:
    """What a command did.

    Attributes:
        exit_code: of the command; negative for a signal that ended the process.
        text: on standard error.
        files: names in the folder that were not there before.
    """

    exit_code: int
    text: str
    files: tuple[str, ...]

    def find_fault(self) -> str | None:
        """What the command should not have done, or None."""
        if self.exit_code < 0:
            return f"the process was ended by {signal.Signals(-self.exit_code).name}"
        if self.exit_code not in (0, 1, 2, 3):
            return f"exit code {self.exit_code}"
        if self.exit_code == 0:
            return None
        for sign in ("internal error", "Traceback", "please report"):
            if sign in self.text:
                return self.text
        if self.text.count("\n") != 1:
            return f"not one line: {self.text!r}"
        return f"left behind: {self.files}" if self.files else None


class Worker:
    """Runs commands one after the other in one process, and in a new one where that died."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._context = multiprocessing.get_context("spawn")
        self._start()

    def _start(self) -> None:
        self._connection, other = self._context.Pipe()
        self._process = self._context.Process(
            target=_serve, args=(other, str(self._folder)), daemon=True
        )
        self._process.start()
        other.close()

    def run(self, *arguments: str) -> Reply:
        """Run ``onnxq`` with ``arguments`` in the folder."""
        before = self._list_files()
        try:
            self._connection.send(arguments)
            exit_code, text = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            exit_code, text = self._process.exitcode or -signal.SIGKILL, ""
            self._start()
        return Reply(exit_code, text, tuple(sorted(self._list_files() - before)))

    def _list_files(self) -> set[str]:
        return {path.name for path in self._folder.iterdir()}

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


@contextlib.contextmanager
def open_worker(folder: Path) -> Iterator[Worker]:
    """A worker for a ``with`` statement."""
    worker = Worker(folder)
    try:
        yield worker
    finally:
        worker.stop()


def _serve(connection: Connection, folder: str) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    os.chdir(folder)
    # What native code prints is no text of onnxq.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    from onnxq.cli import run

    while True:
        arguments: Sequence[str] = connection.recv()
        out, err = io.StringIO(), io.StringIO()
        signal.setitimer(signal.ITIMER_PROF, LONGEST_CPU_SECONDS)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            exit_code = run(list(arguments))
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.send((exit_code, err.getvalue()))
