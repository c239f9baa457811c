"""The order of things around the workers, which are left out here."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import pytest

from onnxq.errors import EXIT_ERROR, EXIT_NO, DataError, UsageError
from onnxq.runs import PipelineResult, RunOptions, State, read_pipeline, run_pipeline
from onnxq.runs.lock import read_lock, write_lock
from onnxq.runs.messages import Broken, Message, Step, Task
from tests.runs.pipelines import TWO_MODELS, make_entry, make_finished, make_numbers, write_pipeline

Answer = Callable[[Task], Message]


def run(
    folder: Path,
    *answers: Message,
    lines: list[str] | None = None,
    options: RunOptions | None = None,
) -> PipelineResult:
    """Run two models, whose workers give these answers."""

    def run_tasks(
        tasks: Sequence[Task], *, jobs: int
    ) -> Generator[tuple[int, Message], None, None]:
        for index, answer in enumerate(answers):
            yield index, Step("working", 3)
            yield index, answer

    pipeline = read_pipeline(write_pipeline(folder))
    tell = [].append if lines is None else lines.append
    return run_pipeline(pipeline, options=options, tell=tell, run=run_tasks)


def test_progress_and_results(tmp_path: Path) -> None:
    lines: list[str] = []
    result = run(tmp_path, make_finished(), make_finished(changed=False), lines=lines)
    assert [one.state for one in result.models] == [State.DONE, State.UP_TO_DATE]
    assert result.exit_code == 0
    assert lines == [
        "[1/2] a: working (3 samples)",
        "[1/2] a: done, 4.00x smaller, 40.0 dB",
        "[2/2] b: working (3 samples)",
        "[2/2] b: up to date, 4.00x smaller, 40.0 dB",
    ]
    assert list(read_lock(tmp_path / "onnxq.lock")) == ["a.int8.onnx", "b.int8.onnx"]


@pytest.mark.parametrize(
    ("first", "second", "exit_code"),
    [
        (make_finished(), make_finished(limits={"min-sqnr": 50.0}), 1),
        (make_finished(), Broken("no", EXIT_NO), 1),
        (Broken("bad", EXIT_ERROR), make_finished(limits={"min-sqnr": 50.0}), 3),
        (Broken("a selector matches nothing", 2), make_finished(), 3),
    ],
)
def test_exit_codes(first: Message, second: Message, exit_code: int, tmp_path: Path) -> None:
    result = run(tmp_path, first, second)
    assert result.exit_code == exit_code
    assert len(result.models) == 2
    reports = result.reports
    assert not all(report.is_passed for report in reports)


def test_after_one_that_breaks_the_others_go_on(tmp_path: Path) -> None:
    result = run(tmp_path, Broken("the model is bad", EXIT_ERROR), make_finished())
    assert list(read_lock(tmp_path / "onnxq.lock")) == ["b.int8.onnx"]
    assert result.models[0].problems == ("the model is bad",)
    (gate,) = result.reports[0].gates
    assert (gate.name, gate.is_met, gate.detail) == ("broke", False, "the model is bad")
    data = result.to_json()
    assert data["exit_code"] == 3
    assert [one["state"] for one in data["models"]] == ["broke", "done"]


def test_lock_is_written_after_each_model(tmp_path: Path) -> None:
    pipeline = read_pipeline(write_pipeline(tmp_path))

    def run_tasks(
        tasks: Sequence[Task], *, jobs: int
    ) -> Generator[tuple[int, Message], None, None]:
        yield 1, make_finished()
        assert list(read_lock(pipeline.lock_path)) == ["b.int8.onnx"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_pipeline(pipeline, run=run_tasks)
    assert list(read_lock(pipeline.lock_path)) == ["b.int8.onnx"]

    def resume(tasks: Sequence[Task], *, jobs: int) -> Generator[tuple[int, Message], None, None]:
        assert [task.recorded for task in tasks] == [None, make_entry()]
        yield 0, make_finished()
        yield 1, make_finished(changed=False)

    run_pipeline(pipeline, run=resume)
    # In the order of the pipeline file, whatever was finished first.
    assert list(read_lock(pipeline.lock_path)) == ["a.int8.onnx", "b.int8.onnx"]


def test_models_that_are_gone_leave_the_lock(tmp_path: Path) -> None:
    write_lock({"old.onnx": make_entry()}, tmp_path / "onnxq.lock")
    run(tmp_path, make_finished(), make_finished())
    assert list(read_lock(tmp_path / "onnxq.lock")) == ["a.int8.onnx", "b.int8.onnx"]


def test_locked_without_a_lock(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file, and --locked checks against it"):
        run(tmp_path, make_finished(), make_finished(), options=RunOptions(locked=True))


def test_locked_compares_and_never_writes(tmp_path: Path) -> None:
    lock = tmp_path / "onnxq.lock"
    other = make_entry(output="decade", numbers=make_numbers(sqnr_db=20.0))
    write_lock({"a.int8.onnx": make_entry()}, lock)
    before = lock.read_bytes()
    options = RunOptions(locked=True)
    result = run(tmp_path, make_finished(other), make_finished(), options=options)
    assert [one.state for one in result.models] == [State.DIFFERS, State.DIFFERS]
    assert result.exit_code == 1
    assert result.models[0].differences == (
        "the output differs: sha256 decade, in the lock c0ffee",
        "SQNR of 'y' is 20, in the lock 40",
    )
    assert result.models[1].differences == ("b.int8.onnx is not in the lock",)
    assert lock.read_bytes() == before
    assert [gate.name for gate in result.reports[0].gates] == ["locked", "locked"]


def test_damaged_lock_stops_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "onnxq.lock").write_text("{")
    with pytest.raises(DataError, match="is no lock of onnxq run"):
        run(tmp_path)


def test_jobs() -> None:
    with pytest.raises(UsageError, match="--jobs 0"):
        RunOptions(jobs=0)


def test_pipeline_of_tests_is_right(tmp_path: Path) -> None:
    assert len(read_pipeline(write_pipeline(tmp_path, TWO_MODELS)).jobs) == 2
