"""The command line in this process, where another one would only cost time."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from onnxq.cli import run
from onnxq.comparison.results import Footprint
from onnxq.errors import OnnxqError
from onnxq.runs import run_pipeline, worker
from onnxq.runs.messages import Broken, Message, Task


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


@pytest.fixture
def workers_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """``onnxq run`` sees to its models in this process, one after the other."""
    see_to_models_here(monkeypatch)


def see_to_models_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """For as long as ``monkeypatch`` lasts."""

    def run_tasks(
        tasks: Sequence[Task], *, jobs: int
    ) -> Generator[tuple[int, Message], None, None]:
        for index, task in enumerate(tasks):
            told: list[Any] = []
            with monkeypatch.context() as patch:
                patch.chdir(task.folder)
                try:
                    told.append(worker._see_to(task, told.append))
                except OnnxqError as error:
                    told.append(Broken(str(error), error.exit_code))
            yield from ((index, message) for message in told)

    def size_up(path: Path, _feeds: object) -> Footprint:
        return Footprint(size_bytes=path.stat().st_size)

    monkeypatch.setitem(run_pipeline.__kwdefaults__, "run", run_tasks)
    monkeypatch.setattr("onnxq.pipelines.compare.measure_footprint", size_up)
