"""Fresh processes, each with its CPU time and its peak memory.

Linux hands the peak of the parent on to the child that it starts, so a script that measures memory
must stay small itself: numpy, onnx and onnxruntime are for the children.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent

# ru_maxrss is in KiB on Linux and in bytes on macOS.
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Measured:
    """What one process did and used.

    Attributes:
        returncode: its exit code; negative after a signal.
        cpu_s: user and system time of all its threads.
        peak_bytes: largest resident set; pages of mapped files count.
        output: its standard output.
        errors: its standard error.
    """

    returncode: int
    cpu_s: float
    peak_bytes: int
    output: str
    errors: str

    @property
    def last_error(self) -> str:
        """The last line of the standard error, or else the exit code."""
        lines = self.errors.strip().splitlines()
        return lines[-1] if lines else f"exit code {self.returncode}"

    def read_json(self) -> dict[str, Any]:
        """The last line of the output, as JSON; an ``error`` if the process left none."""
        lines = self.output.strip().splitlines()
        try:
            found: dict[str, Any] = json.loads(lines[-1])
        except (IndexError, ValueError):
            return {"error": self.last_error}
        return found


def run_measured(command: Sequence[str]) -> Measured:
    """Run ``command`` to its end; numpy multiplies in one thread, as in the commands of onnxq."""
    environment = {"OPENBLAS_NUM_THREADS": "1", **os.environ}
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        with subprocess.Popen(command, stdout=output, stderr=errors, env=environment) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for stream in (output, errors):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
        return Measured(
            returncode=process.returncode,
            cpu_s=usage.ru_utime + usage.ru_stime,
            peak_bytes=usage.ru_maxrss * _MAXRSS_UNIT,
            output=texts[0],
            errors=texts[1],
        )


def run_script(name: str, *arguments: str, python: str | None = None) -> Measured:
    """Run a Python script of this folder in a fresh interpreter, by default this one again."""
    return run_measured([python or sys.executable, str(FOLDER / name), *arguments])
