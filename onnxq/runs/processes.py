"""Several models at a time, each in a process of its own."""

from __future__ import annotations

import contextlib
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

from onnxq.errors import EXIT_ERROR
from onnxq.runs.messages import Broken, Message, Step, Task
from onnxq.runtime.signals import hold_signals

# The first entry of the path of a process is the current directory, where a file of the user could
# have the name of a module that onnxq needs; so the worker takes over the path of this process.
_CODE = "import sys; sys.path[:] = sys.argv[1:]; from onnxq.runs.worker import main; main()"

SECONDS_TO_STOP = 20.0
"""How long a worker may take to clean up; a run of a large model is not interrupted at once."""


@dataclass
class _Workers:
    """The processes that run now, and what they tell."""

    running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    inbox: queue.SimpleQueue[tuple[int, Message]] = field(default_factory=queue.SimpleQueue)

    def start(self, index: int, task: Task) -> None:
        # A process that is started inside never sees Ctrl-C: this one does, and stops it. It
        # unblocks SIGTERM itself when it is ready for it.
        with hold_signals():
            process = subprocess.Popen(
                [sys.executable, "-c", _CODE, *sys.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self.running[index] = process
            # Inside, so that signals are left to the main thread, which waits in Python.
            listener = threading.Thread(
                target=self._listen, args=(index, process, task), daemon=True
            )
            listener.start()

    def _listen(self, index: int, process: subprocess.Popen[bytes], task: Task) -> None:
        """Hand over the task, and whatever comes back; always ends in a message that is no step."""
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(OSError):  # it is gone: the end of its output says so
            pickle.dump(task, process.stdin)
            process.stdin.close()
        message: Message = Step("")
        # A message that was cut off is none.
        cut_off = contextlib.suppress(EOFError, pickle.UnpicklingError, OSError)
        with process.stdout, cut_off:
            while True:
                message = pickle.load(process.stdout)
                self.inbox.put((index, message))
        exit_code = process.wait()
        if isinstance(message, Step):
            self.inbox.put((index, Broken(_explain_end(exit_code), EXIT_ERROR)))

    def stop(self) -> None:
        """End all that run, and wait until they have removed what they wrote."""
        for process in self.running.values():
            process.terminate()
        deadline = time.monotonic() + SECONDS_TO_STOP
        try:
            for process in self.running.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
        finally:
            for process in self.running.values():
                process.kill()


def run_tasks(tasks: Sequence[Task], *, jobs: int) -> Generator[tuple[int, Message], None, None]:
    """Run tasks, so many at a time; whatever is running when this is closed is stopped.

    Args:
        tasks: in the order in which they are started.
        jobs: at most so many processes.

    Yields:
        The position of a task and what its worker tells; the last of each is no ``Step``.
    """
    workers = _Workers()
    waiting = list(enumerate(tasks))
    try:
        while waiting or workers.running:
            while waiting and len(workers.running) < jobs:
                workers.start(*waiting.pop(0))
            index, message = workers.inbox.get()
            if not isinstance(message, Step):
                workers.running.pop(index).wait()
            yield index, message
    finally:
        workers.stop()


def _explain_end(exit_code: int) -> str:
    if exit_code >= 0:
        return f"its process ended with exit code {exit_code} and no result"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    hint = "; perhaps there is not enough memory" if exit_code == -signal.SIGKILL else ""
    return f"its process was ended by {name}{hint}"
