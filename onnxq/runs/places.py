"""Files and folders that a pipeline names: what has to be there, and what must not collide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from onnxq.errors import OnnxqError
from onnxq.graph.output import check_output
from onnxq.runs.jobs import ModelJob, Pipeline
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
    kept = {path.resolve(): "the pipeline file", pipeline.lock_path.resolve(): "the lock"}
    for _, job in jobs:
        for what, file in _read(job):
            kept[(pipeline.folder / file).resolve()] = f"the {what} of '{job.name}'"
    taken: dict[Path, str] = {}
    for settings, job in jobs:
        for key, file in _written(job):
            place = (pipeline.folder / file).resolve()
            other = kept.get(place) or taken.get(place)
            if other is not None:
                settings.note(f"{key}: {file} is {other}; name another file", key, "source")
                continue
            taken[place] = f"the {key} of '{job.name}'"
            _check_writable(settings, job, key, file, pipeline.folder)


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


def _read(job: ModelJob) -> Iterator[Place]:
    yield "source", job.source
    if job.calibration is not None and job.calibration.load is not None:
        yield "ranges", job.calibration.load
    if job.evaluation is not None and job.evaluation.options.labels is not None:
        yield "labels", job.evaluation.options.labels


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
