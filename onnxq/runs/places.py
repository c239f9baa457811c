"""Files and folders that a pipeline names: what has to be there, and what must not collide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from onnxq.errors import OnnxqError
from onnxq.graph.output import check_output
from onnxq.pipelines.conflicts import Kind, Reading, Writing, find_conflict, refuse_conflicts
from onnxq.runs.jobs import ModelJob, Pipeline, SampleChoice
from onnxq.runs.keys import KEYS, STATIC
from onnxq.runs.settings import Settings

Job = tuple[Settings, ModelJob]
Place = tuple[str, Path]
"""A key, and the file that it names."""

_INPUTS = {
    "source": "file",
    "calib": "folder",
    "reader": "function",
    "ranges": "file",
    "eval": "folder",
    "eval_reader": "function",
    "labels": "file",
    "metric": "function",
}


def check_names(jobs: Sequence[Job]) -> None:
    """Note models that are called the same."""
    first: dict[str, int] = {}
    for settings, job in jobs:
        line = first.setdefault(job.name, settings.line)
        if line != settings.line:
            settings.note(
                f"name: the model of line {line} is called '{job.name}', too; name one of them",
                "name",
                "source",
            )


def check_places(path: Path, jobs: Sequence[Job]) -> None:
    """Note files that would be written over, and those that cannot be written.

    Args:
        path: of the pipeline file.
        jobs: all that are clear.
    """
    pipeline = Pipeline(path, tuple(job for _, job in jobs))
    readings = _list_readings(pipeline)
    taken = [Writing("the lock", pipeline.lock_path)]
    for settings, job in jobs:
        for key, file in _written(job):
            place = pipeline.folder / file
            other = find_conflict(place, readings, taken)
            if other:
                settings.note(f"{key}: {file} is {other}; name another file", key, "source")
                continue
            taken.append(_describe_writing(key, place, job))
            _check_writable(settings, job, key, file, pipeline.folder)


def refuse_reports(pipeline: Pipeline, reports: Sequence[Path]) -> None:
    """Refuse reports of the whole run in places of other files.

    Raises:
        OutputError: one is a file of the pipeline, or two are the same.
    """
    own = [
        _describe_writing(key, pipeline.folder / file, job)
        for job in pipeline.jobs
        for key, file in _written(job)
    ]
    named = [Writing("--report", path) for path in reports]
    lock = Writing("the lock", pipeline.lock_path)
    refuse_conflicts((lock, *own, *named), _list_readings(pipeline))


def check_inputs(settings: Settings, folder: Path) -> None:
    """Note files and folders that a model is to be made of and that are not there.

    Args:
        settings: of the model.
        folder: of the pipeline file.
    """
    mode = settings.get("mode", "")
    for key, kind in _INPUTS.items():
        value = settings.get(key, "")
        if not value or mode not in KEYS[key].modes:
            continue
        if kind == "function":
            _check_function(settings, key, value, folder)
        else:
            _expect(settings, key, folder / value, kind, value)
    labels = settings.merge_table("budget").get("labels")
    if labels is not None and mode == STATIC:
        _expect(settings, "budget", folder / labels.value, "file", labels.value)


def _list_readings(pipeline: Pipeline) -> tuple[Reading, ...]:
    """All that is read, each file once where several models name it."""
    every = [Reading("the pipeline file", pipeline.path.resolve())]
    for job in pipeline.jobs:
        every += (
            Reading(f"{what} of '{job.name}'", name, kind, pipeline.folder)
            for what, name, kind in _read(job)
        )
    named = {(one.kind, one.name): one for one in reversed(every) if one.name is not None}
    # What was named by itself is called so, not one of the files beside samples.
    return tuple(sorted(named.values(), key=lambda one: one.kind is Kind.SAMPLES))


def _read(job: ModelJob) -> Iterator[tuple[str, Path | str | None, Kind]]:
    yield "the source", job.source, Kind.MODEL
    if job.calibration is not None:
        yield "the ranges", job.calibration.load, Kind.FILE
        yield "the labels", job.calibration.budget.labels, Kind.FILE
        yield from _read_samples(job.calibration.samples, "calib", "reader")
    if job.evaluation is not None:
        yield "the labels", job.evaluation.options.labels, Kind.FILE
        yield "metric", job.evaluation.options.metric, Kind.CODE
        yield from _read_samples(job.evaluation.samples, "eval", "eval_reader")


def _read_samples(
    samples: SampleChoice | None, folder: str, reader: str
) -> Iterator[tuple[str, Path | str | None, Kind]]:
    if samples is not None:
        yield folder, samples.folder, Kind.SAMPLES
        yield reader, samples.reader, Kind.CODE


def _describe_writing(key: str, path: Path, job: ModelJob) -> Writing:
    return Writing(f"the {key} of '{job.name}'", path, has_data=key == "output")


def _written(job: ModelJob) -> Iterator[Place]:
    yield "output", job.output
    if job.calibration is not None and job.calibration.save is not None:
        yield "save_ranges", job.calibration.save
    if job.evaluation is not None:
        for report in job.evaluation.reports:
            yield "report", report


def _expect(settings: Settings, key: str, path: Path, kind: str, written: str) -> None:
    try:
        is_there = path.is_dir() if kind == "folder" else path.is_file()
    except OSError:  # a name that is too long, or a folder that must not be looked into
        is_there = False
    if not is_there:
        settings.note(f"{key}: {written}: no such {kind}", key)


def _check_function(settings: Settings, key: str, name: str, folder: Path) -> None:
    """Only what can be seen without running code of the user."""
    module, _, function = name.rpartition(":")
    if not module or not function:
        settings.note(f"{key}: {name}: give module:function, or path/to/file.py:function", key)
    elif module.endswith(".py"):
        _expect(settings, key, folder / module, "file", module)


def _check_writable(settings: Settings, job: ModelJob, key: str, file: Path, folder: Path) -> None:
    """The folder of a result is made if it is not there; the file of an earlier run is replaced."""
    path = folder / file
    try:
        existing = next((one for one in path.parents if one.exists()), folder)
        if not existing.is_dir():
            settings.note(f"{key}: {file}: {existing} is not a folder", key, "source")
        elif existing == path.parent:
            check_output(folder / job.source, path, force=True, option=key)
    except OSError as error:
        settings.note(f"{key}: {file}: {error.strerror or error}", key, "source")
    except OnnxqError as error:
        settings.note(f"{key}: {error}", key, "source")
