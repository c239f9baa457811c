"""A pipeline file as text to a ``Pipeline``, with all mistakes found before anything runs."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxq.graph.small_files import read_small
from onnxq.runs.building import build_job
from onnxq.runs.jobs import Pipeline
from onnxq.runs.keys import DYNAMIC, KEYS, MODES, ROUNDING_KEYS
from onnxq.runs.places import check_inputs, check_names, check_places
from onnxq.runs.problems import PipelineFileError, Problem, Problems
from onnxq.runs.settings import Setting, Settings, read_settings, takes_samples
from onnxq.runs.toml_lines import LineIndex

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_POSITION = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")

_TABLES = ("defaults", "model")


def read_pipeline(path: Path) -> Pipeline:
    """Read a pipeline file and check everything that can be checked without running a model.

    Raises:
        PipelineFileError: it has mistakes; all of them are in ``lines``.
    """
    text, tables = _parse(path)
    problems, lines = Problems(), LineIndex(text)
    for name in tables:
        if name not in _TABLES:
            problems.add(
                lines.find(name), f"{name}: no such table; there are [defaults] and [[model]]"
            )
    every = _read_models(tables, lines, problems)
    jobs = [(settings, build_job(settings)) for settings in every]
    known = [(settings, job) for settings, job in jobs if job is not None]
    for settings in every:
        check_inputs(settings, path.resolve().parent)
    check_names(known)
    check_places(path, known)
    if problems.found:
        raise PipelineFileError(path, problems.found)
    return Pipeline(path, tuple(job for _, job in known))


def _parse(path: Path) -> tuple[str, Mapping[str, Any]]:
    try:
        text = read_small(path).decode("utf-8").replace("\r\n", "\n")
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}; name the pipeline file, a .toml"
        raise PipelineFileError(path, [Problem(1, reason)]) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        reason = "is not UTF-8 text; name the pipeline file, a .toml"
        raise PipelineFileError(path, [Problem(line, reason)]) from error
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = _POSITION.search(str(error))
        line = int(place[1]) if place is not None and place[1] else text.rstrip().count("\n") + 1
        raise PipelineFileError(
            path, [Problem(line, f"is not TOML: {_POSITION.sub('', str(error))}")]
        ) from error
    except RecursionError as error:
        raise PipelineFileError(path, [Problem(1, "is nested too deeply")]) from error


def _read_models(tables: Mapping[str, Any], lines: LineIndex, problems: Problems) -> list[Settings]:
    defaults = tables.get("defaults", {})
    if not isinstance(defaults, dict):
        problems.add(lines.find("defaults"), "defaults: write it as a table, [defaults]")
        defaults = {}
    common = read_settings(defaults, ("defaults",), lines, problems)
    models = tables.get("model", [])
    if not isinstance(models, list) or not all(isinstance(one, dict) for one in models):
        problems.add(lines.find("model"), "model: write it in double brackets, [[model]]")
        return []
    if not models:
        problems.add(1, "has no [[model]]; add one with source and mode")
    return [
        _merge(read_settings(table, ("model", index), lines, problems), common, place, problems)
        for index, table in enumerate(models)
        for place in [lines.find("model", index)]
    ]


def _merge(
    own: dict[str, Setting], common: Mapping[str, Setting], line: int, problems: Problems
) -> Settings:
    """The settings of a model; defaults for another mode, or for what it leaves out, do not count.

    Gates add up: those of the model come before those of the defaults.
    """
    chosen = own.get("mode") or common.get("mode")
    mode = chosen.value if chosen is not None else None
    defaults = {
        name: setting
        for name, setting in common.items()
        if (mode not in MODES or mode in KEYS[name].modes)
        and (name not in ROUNDING_KEYS or mode != DYNAMIC or takes_samples(own, common))
    }
    # Samples come from one of the two; the model's own choice takes the place of the other.
    for one, other in (("calib", "reader"), ("eval", "eval_reader")):
        for name, instead in ((one, other), (other, one)):
            if name in own and instead not in own:
                defaults.pop(instead, None)
    return Settings(line, own, defaults, problems)
