"""The command line in this process, where another one would only cost time."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from onnxq.cli import run


@pytest.fixture
def run_here(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Like ``tests.cli.running.onnxq``, by a call of what the entry point calls."""

    def call(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(cwd)
        capfd.readouterr()
        texts = [str(argument) for argument in arguments]
        exit_code = run(texts)
        return subprocess.CompletedProcess(texts, exit_code, *capfd.readouterr())

    return call
