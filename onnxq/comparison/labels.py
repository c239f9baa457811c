"""Labels of samples, found beside the data or named."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxq.errors import DataError
from onnxq.graph.small_files import read_small

LabelArray = npt.NDArray[np.int64]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
NAMES = ("labels.json", "labels.csv", "labels.npy")


@dataclass(frozen=True)
class Labels:
    """Classes of samples.

    Attributes:
        source: the file, or the folder whose sub-folders are classes.
        by_name: of each sample, by its path in the folder, its file name or its stem.
        sequence: of all rows of scores in the order in which samples are read; None with names.
        output: the output that holds the scores; None to find it.
        is_guessed: whether nobody named these labels, so that they may be none at all.
    """

    source: str
    by_name: Mapping[str, LabelArray] = field(default_factory=dict)
    sequence: LabelArray | None = None
    output: str | None = None
    is_guessed: bool = False

    def find(self, name: str) -> LabelArray | None:
        """The classes of a sample: one for each row of scores; None if it has none."""
        path = PurePath(name)
        for key in (name, str(path.with_suffix("")), path.name, path.stem):
            if key in self.by_name:
                return self.by_name[key]
        return None


def find_labels(data: Path | None, named: Path | None = None) -> Labels | None:
    """The labels for a folder of samples.

    Args:
        data: the folder; None for samples from elsewhere.
        named: a file that the user named; None to look for one in the folder and beside it.

    Raises:
        DataError: the file cannot be read as labels.
    """
    if named is not None:
        return read_labels(named)
    if data is None:
        return None
    for folder in (data, data.resolve().parent):
        for name in NAMES:
            if (folder / name).is_file():
                return replace(read_labels(folder / name), is_guessed=True)
    return _find_class_folders(data)


def read_labels(path: Path) -> Labels:
    """Labels of a file.

    - JSON: ``{"sample": class}``, ``{"sample": [class, ...]}`` for a batch, or
      ``{"y": {...}, "output": "NAME"}``.
    - CSV: one ``sample,class`` a line, with or without a heading.
    - NPY: whole numbers, one a row of scores, in the order of the samples.

    Raises:
        DataError: it cannot be read as labels.
    """
    try:
        if path.suffix == ".json":
            return _read_json(path)
        if path.suffix == ".csv":
            return _read_csv(path)
        if path.suffix == ".npy":
            return Labels(str(path), sequence=_read_npy(path))
    except DataError:
        raise
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read as labels: {error.strerror or error}; check its path"
        ) from error
    except (
        ValueError,
        TypeError,
        KeyError,
        EOFError,
        RecursionError,
        MemoryError,
        csv.Error,
    ) as error:
        raise DataError(
            f"{path}: cannot be read as labels: {error}; write a .json as {{'sample': class}}"
        ) from error
    raise DataError(f"{path}: labels are .json, .csv or .npy files; name one of them")


def _read_npy(path: Path) -> LabelArray:
    content = io.BytesIO(read_small(path))
    # Not ``np.load``, which also takes archives.
    return _to_labels(np.lib.format.read_array(content, allow_pickle=False))


def _read_json(path: Path) -> Labels:
    content = json.loads(read_small(path).decode("utf-8-sig"))
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no labels: give {{'sample': class, ...}}")
    output = content.get("output") if "y" in content else None
    classes: Mapping[str, Any] = content.get("y", content)
    if not isinstance(classes, dict) or not classes:
        raise DataError(f"{path}: holds no labels: give {{'sample': class, ...}}")
    by_name = {str(name): _to_labels(value) for name, value in classes.items()}
    return Labels(str(path), by_name, output=None if output is None else str(output))


def _read_csv(path: Path) -> Labels:
    text = io.StringIO(read_small(path).decode("utf-8-sig"), newline="")
    rows = [row for row in csv.reader(text) if row]
    if rows and not rows[0][-1].strip().lstrip("-").isdigit():
        del rows[0]
    if any(len(row) != 2 for row in rows) or not rows:
        raise DataError(f"{path}: holds no labels: give one line 'sample,class' each")
    by_name = {row[0].strip(): _to_labels(int(row[1])) for row in rows}
    if len(by_name) < len(rows):
        raise DataError(f"{path}: names a sample twice; give one line for each")
    return Labels(str(path), by_name)


def _to_labels(value: Any) -> LabelArray:
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise ValueError(f"a class is a whole number, not {array.dtype.name}")
    if array.size != max(array.shape, default=1):
        raise ValueError(
            f"classes are one number a row of scores, not an array of rank {array.ndim}"
        )
    if array.size and int(array.min()) < 0:
        raise ValueError(f"class {array.min()} is negative")
    return array.reshape(-1).astype(np.int64)


def _find_class_folders(data: Path) -> Labels | None:
    """Folders of images, one a class, numbered in the order of their names."""
    folders = sorted(one for one in data.iterdir() if one.is_dir() and not one.name.startswith("."))
    if len(folders) < 2:
        return None
    numbers = (
        [int(one.name) for one in folders]
        if all(one.name.isdigit() for one in folders)
        else list(range(len(folders)))
    )
    by_name = {
        file.relative_to(data).as_posix(): _to_labels(number)
        for folder, number in zip(folders, numbers, strict=True)
        for file in folder.rglob("*")
        if file.suffix.lower() in IMAGE_SUFFIXES
    }
    return Labels(f"the folders of {data}", by_name, is_guessed=True) if by_name else None
