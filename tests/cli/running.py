"""The command line as a user calls it: another process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLE_MODELS = REPOSITORY / "sample_models"
CALIB_DATA = REPOSITORY / "calib_data"

COMMAND = (sys.executable, "-m", "onnxq")


def onnxq(
    *arguments: str | Path,
    cwd: Path,
    command: Sequence[str] = COMMAND,
    environment: dict[str, str] | None = None,
    prepare: Callable[[], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run ``onnxq`` in a folder and wait for it."""
    return subprocess.run(
        [*command, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        preexec_fn=prepare,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def list_files(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder, hidden or not, with the content of the files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def assert_refused(result: subprocess.CompletedProcess[str], exit_code: int, *parts: str) -> None:
    """One line on standard error that holds ``parts``, and nothing else."""
    assert result.returncode == exit_code, result.stderr
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in result.stderr
