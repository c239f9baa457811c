"""What lies in a folder of samples."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from onnxq.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


class Kind(Enum):
    """How a sample is read."""

    NPZ = "npz"
    NPY = "npy"
    IMAGE = "image"
    TEST_SET = "onnx test set"


KINDS = {".npz": Kind.NPZ, ".npy": Kind.NPY} | dict.fromkeys(IMAGE_SUFFIXES, Kind.IMAGE)

_TENSOR_FILE = re.compile(r"input_.*\.pb", re.IGNORECASE)


@dataclass(frozen=True)
class SampleFile:
    """One sample.

    Attributes:
        name: relative to the folder that was asked for, with forward slashes.
        path: of the file, or of the folder of an onnx test set.
        kind: how it is read.
        parts: the files with its content: itself, or the tensors of a test set in their order.
    """

    name: str
    path: Path
    kind: Kind
    parts: tuple[Path, ...]


@dataclass(frozen=True)
class Listing:
    """What was found.

    Attributes:
        files: the samples, in the order of their names.
        passed_over: samples that lie in the folder of an onnx test set, and are not read.
        others: names of files that are no samples, counted by suffix.
    """

    files: tuple[SampleFile, ...]
    passed_over: tuple[Path, ...]
    others: Counter[str]


def list_samples(root: Path) -> Listing:
    """Find the samples in ``root`` and its sub-folders; hidden files and folders are left out.

    Raises:
        DataError: ``root`` is no folder, or one in it cannot be listed.
    """
    if not root.is_dir():
        found = "a file" if root.exists() else "no such folder"
        raise DataError(f"{root}: {found}; name the folder with the samples")
    files: list[SampleFile] = []
    passed_over: list[Path] = []
    others: Counter[str] = Counter()
    for folder, content in _walk(root):
        tensors = [one for one in content if _TENSOR_FILE.fullmatch(one.name)]
        samples = [one for one in content if one.suffix.lower() in KINDS]
        others.update(one.suffix.lower() or one.name for one in content if one not in samples)
        if tensors:
            parts = tuple(sorted(tensors, key=_number_order))
            files.append(SampleFile(_name(root, folder), folder, Kind.TEST_SET, parts))
            passed_over += samples
        else:
            files += [
                SampleFile(_name(root, one), one, KINDS[one.suffix.lower()], (one,))
                for one in samples
            ]
    files.sort(key=lambda file: file.path.parts)
    return Listing(tuple(files), tuple(passed_over), others)


def _walk(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Each folder once, with the files in it; links to folders are followed, but never twice."""
    waiting = [root]
    seen: set[tuple[int, int]] = set()
    while waiting:
        folder = waiting.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            content = sorted(one for one in folder.iterdir() if not one.name.startswith("."))
            folders = [one for one in content if one.is_dir()]
        except OSError as error:
            raise DataError(
                f"{folder}: cannot be listed: {error.strerror}; make it readable, or move it away"
            ) from error
        waiting += reversed(folders)
        inner = set(folders)
        yield folder, [one for one in content if one not in inner]


def _name(root: Path, path: Path) -> str:
    return root.resolve().name if path == root else path.relative_to(root).as_posix()


def _number_order(path: Path) -> tuple[int, str]:
    """Puts input_10 after input_9."""
    return len(path.name), path.name
