"""All models of a pipeline."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from onnxq.errors import EXIT_NO, OutputError, UsageError
from onnxq.runs.differences import find_differences
from onnxq.runs.jobs import ModelJob, Pipeline
from onnxq.runs.lock import LockEntry, read_lock, write_lock
from onnxq.runs.messages import Broken, Finished, Message, Step, Task
from onnxq.runs.processes import run_tasks
from onnxq.runs.results import ModelResult, PipelineResult, State

Tell = Callable[[str], None]
RunTasks = Callable[..., Generator[tuple[int, Message], None, None]]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a pipeline is run.

    Attributes:
        jobs: so many models at a time.
        force: do everything anew.
        locked: check against the lock instead of writing it.

    Raises:
        UsageError: fewer than one job.
    """

    jobs: int = 1
    force: bool = False
    locked: bool = False

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise UsageError(f"--jobs {self.jobs}: give 1 or more")


def run_pipeline(
    pipeline: Pipeline,
    *,
    options: RunOptions | None = None,
    tell: Tell | None = None,
    run: RunTasks = run_tasks,
) -> PipelineResult:
    """Quantize and compare every model that has changed; go on after one that breaks.

    Args:
        pipeline: read and found right.
        options: None for the defaults.
        tell: called with each line of progress.
        run: runs the tasks.

    Raises:
        UsageError: the lock is to be checked, and there is none.
        DataError: the lock is damaged.
    """
    options = options or RunOptions()
    if options.locked and not pipeline.lock_path.is_file():
        raise UsageError(
            f"{pipeline.lock_path}: no such file, and --locked checks against it; run once without"
        )
    lock = read_lock(pipeline.lock_path)
    running = _Running(pipeline, options, lock, tell or (lambda _line: None))
    tasks = [
        Task(job=job, folder=pipeline.folder, recorded=lock.get(job.key), force=options.force)
        for job in pipeline.jobs
    ]
    # Closed at once when something is raised here, so that no process outlives it.
    with contextlib.closing(run(tasks, jobs=options.jobs)) as messages:
        for index, message in messages:
            running.take(index, message)
    results = tuple(running.results[index] for index in range(len(tasks)))
    return PipelineResult(pipeline.path, results, running.lock_error)


@dataclass
class _Running:
    """What is known so far."""

    pipeline: Pipeline
    options: RunOptions
    lock: dict[str, LockEntry]
    tell: Tell
    results: dict[int, ModelResult] = field(default_factory=dict)
    lock_error: str = ""

    def take(self, index: int, message: Message) -> None:
        """Tell of a step, or record a result."""
        job = self.pipeline.jobs[index]
        if isinstance(message, Step):
            count = "" if message.total is None else f" ({message.total} samples)"
            self._tell(index, f"{message.label}{count}")
            return
        if isinstance(message, Broken):
            state = State.REFUSED if message.exit_code == EXIT_NO else State.BROKEN
            result = ModelResult(job=job, state=state, is_changed=True, error=message.message)
        else:
            result = self._judge(job, message)
            self._record(job, message.entry)
        self.results[index] = result
        self._tell(index, result.describe())

    def _judge(self, job: ModelJob, finished: Finished) -> ModelResult:
        differences: tuple[str, ...] = ()
        if self.options.locked:
            locked = self.lock.get(job.key)
            differences = (
                (f"{job.key} is not in the lock",)
                if locked is None
                else find_differences(locked, finished.entry)
            )
        state = State.DONE if finished.is_changed else State.UP_TO_DATE
        if differences:
            state = State.DIFFERS
        elif not finished.report.is_passed:
            state = State.GATE_FAILED
        return ModelResult(
            job=job,
            state=state,
            is_changed=finished.is_changed,
            entry=finished.entry,
            report=finished.report,
            differences=differences,
        )

    def _record(self, job: ModelJob, entry: LockEntry) -> None:
        """Write the lock now, so that what is done stays done after a kill."""
        if self.options.locked or self.lock.get(job.key) == entry:
            return
        self.lock[job.key] = entry
        # In the order of the pipeline file, without models that are not in it any more.
        kept = {one.key: self.lock[one.key] for one in self.pipeline.jobs if one.key in self.lock}
        try:
            write_lock(kept, self.pipeline.lock_path)
            self.lock_error = ""
        except OutputError as error:  # what became of the models is told all the same
            self.lock_error = str(error)

    def _tell(self, index: int, text: str) -> None:
        name = self.pipeline.jobs[index].name
        self.tell(f"[{index + 1}/{len(self.pipeline.jobs)}] {name}: {text}")
