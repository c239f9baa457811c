"""What is written is never what is read: one check for every option that names a file to write."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from onnxq.comparison.labels import NAMES
from onnxq.errors import OnnxqError, OutputError
from onnxq.graph.files import load_model
from onnxq.samples import Samples
from onnxq.samples.listing import list_samples
from onnxq.samples.user_code import find_source


class Kind(Enum):
    """What there is to read besides the file itself."""

    FILE = "nothing"
    MODEL = "its external data"
    SAMPLES = "all samples of the folder, and labels beside them"
    CODE = "the source of a function"


@dataclass(frozen=True)
class Reading:
    """Something that is read.

    Attributes:
        what: how messages call it, as 'the input model'.
        name: path, or 'module:function'; None where nothing was named.
        kind: of it.
        folder: that ``name`` is relative to.
    """

    what: str
    name: str | os.PathLike[str] | None
    kind: Kind = Kind.FILE
    folder: Path = Path()


@dataclass(frozen=True)
class Writing:
    """A file that may be written.

    Attributes:
        option: that names it, or what it is, for messages.
        path: of the file; None where none is named.
        has_data: whether a file with weights may come to lie beside it.
    """

    option: str
    path: Path | None
    has_data: bool = False

    @property
    def what(self) -> str:
        """How messages call the file itself."""
        return f"where {self.option} may write" if self.option.startswith("-") else self.option

    @property
    def paths(self) -> Iterator[Path]:
        """Every file that may be written."""
        if self.path is not None:
            yield self.path
            if self.has_data:
                yield self.path.with_name(f"{self.path.name}.data")


def list_readings(
    source: Path,
    samples: Samples | None,
    option: str,
    *,
    in_place: bool,
    files: Mapping[str, Path | None] | None = None,
) -> tuple[Reading, ...]:
    """What every mode reads.

    Args:
        source: the float model.
        samples: to calibrate or train with.
        option: that names their folder.
        in_place: whether the model itself is to be replaced.
        files: that are read besides, by the option that names them.
    """
    return (
        *(Reading(f"the file of {name}", path) for name, path in (files or {}).items()),
        Reading("the input model", None if in_place else source, Kind.MODEL),
        Reading(option, None if samples is None else samples.folder, Kind.SAMPLES),
        Reading("--reader", None if samples is None else samples.reader, Kind.CODE),
    )


def refuse_conflicts(writings: Sequence[Writing], readings: Iterable[Reading]) -> None:
    """Refuse to write over what is read, and to write two things to one place.

    Raises:
        OutputError: the first such file, with the option that names it.
    """
    readings = tuple(readings)
    for index, writing in enumerate(writings):
        for path in writing.paths:
            what = find_conflict(path, readings, writings[:index])
            if what:
                raise OutputError(f"{path}: is {what}; name another file with {writing.option}")


def find_conflict(path: Path, readings: Iterable[Reading], writings: Iterable[Writing]) -> str:
    """What else the file ``path`` is, also by another name, as a hard or symbolic link.

    Args:
        path: of a file that is to be written.
        readings: all that is read.
        writings: all else that is written.

    Returns:
        How a message calls it; empty if it is nothing else.
    """
    for writing in writings:
        if any(_are_same(path, other) for other in writing.paths):
            return writing.what
    if not _exists(path):
        return ""
    for reading in readings:
        for what, other in _list_files(reading, path):
            if _are_same(path, other):
                return what
    return ""


def _list_files(reading: Reading, near: Path) -> Iterator[tuple[str, Path]]:
    """Every file that is read; models are only looked into where ``near`` may belong to one."""
    what, name, folder = reading.what, reading.name, reading.folder
    if name is None:
        return
    if reading.kind is Kind.CODE:
        source = find_source(os.fspath(name), folder)
        if source is not None:
            yield f"the code of {what}", source
        return
    path = folder / name
    if reading.kind is Kind.SAMPLES:
        yield from _list_samples(what, path)
        return
    yield what, path
    if reading.kind is Kind.MODEL and _may_hold_weights(near, path):
        with suppress(OnnxqError):  # which whoever reads it says
            for file in load_model(path).external_files:
                yield f"a file that holds weights of {what}", path.resolve().parent / file


def _list_samples(what: str, folder: Path) -> Iterator[tuple[str, Path]]:
    with suppress(OnnxqError):  # as above
        for sample in list_samples(folder).files:
            for part in sample.parts:
                yield f"one of the samples of {what}", part
    for place in (folder, folder.resolve().parent):
        for name in NAMES:
            yield f"the file with labels of the samples of {what}", place / name


def _may_hold_weights(path: Path, model: Path) -> bool:
    """Weights lie in the folder of their model or below, where they may be linked from elsewhere.

    To know more, the model has to be read.
    """
    try:
        linked = path.stat().st_nlink > 1
        return linked or path.resolve().is_relative_to(model.resolve().parent)
    except (OSError, RuntimeError):
        return True


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _are_same(one: Path, other: Path) -> bool:
    try:
        return one.resolve() == other.resolve() or (
            one.exists() and other.exists() and one.samefile(other)
        )
    except (OSError, RuntimeError, ValueError):  # loops of links, names that there cannot be
        return False
