"""Samples from a folder of .npz files (keys are input names) or .npy files (one input)."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxq.errors import DataError
from onnxq.runtime.session import Feeds, InputSignature

SUFFIXES = (".npz", ".npy")


@dataclass(frozen=True)
class SampleFolder:
    """The samples of a folder and its sub-folders, in the order of their names.

    Attributes:
        path: the folder.
        files: its sample files.
    """

    path: Path
    files: tuple[Path, ...]

    @classmethod
    def open(cls, path: Path) -> SampleFolder:
        """List the samples in ``path``.

        Raises:
            DataError: it is no folder, or holds no samples.
        """
        if not path.is_dir():
            raise DataError(f"{path}: no such folder; name the folder with the .npz samples")
        files = sorted(
            file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file()
        )
        if not files:
            raise DataError(f"{path}: holds no .npz or .npy samples")
        return cls(path, tuple(files))

    def read(self, inputs: Sequence[InputSignature]) -> Iterator[Feeds]:
        """Each sample as feeds for ``inputs``, one after the other.

        Raises:
            DataError: a file cannot be read, or does not fit the inputs.
        """
        for file in self.files:
            yield read_sample(file, inputs)


def read_sample(file: Path, inputs: Sequence[InputSignature]) -> Feeds:
    """One sample file, checked against the inputs of a model.

    Raises:
        DataError: the file cannot be read, or does not fit.
    """
    try:
        arrays = _load(file, inputs)
    except DataError:
        raise
    except Exception as error:  # damaged archives raise from zipfile, zlib, tokenize and numpy
        raise DataError(f"{file}: cannot be read as numpy data: {error}") from error
    missing = [one.name for one in inputs if one.name not in arrays]
    if missing:
        raise DataError(
            f"{file}: has no array '{missing[0]}'; it holds {sorted(arrays)}, the model takes "
            + "; ".join(map(str, inputs))
        )
    return {one.name: _fit(file, one, arrays[one.name]) for one in inputs}


def _load(file: Path, inputs: Sequence[InputSignature]) -> dict[str, npt.NDArray[Any]]:
    if file.suffix == ".npy":
        if len(inputs) != 1:
            raise DataError(
                f"{file}: a .npy file feeds one input, the model has {len(inputs)}; use .npz files"
            )
        with file.open("rb") as stream:
            return {inputs[0].name: np.lib.format.read_array(stream, allow_pickle=False)}
    with zipfile.ZipFile(file):
        archive = np.load(file, allow_pickle=False)
    with archive:
        return {name: archive[name] for name in archive.files}


def _fit(file: Path, signature: InputSignature, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    where = f"{file}: array '{signature.name}' is {array.dtype.name}{list(array.shape)}"
    if signature.dtype is not None and array.dtype != np.dtype(signature.dtype):
        if not np.can_cast(array.dtype, np.dtype(signature.dtype), casting="safe"):
            raise DataError(f"{where}, which does not convert without loss; expected {signature}")
        array = array.astype(signature.dtype)
    fixed = [isinstance(size, int) and size >= 0 for size in signature.shape]
    same_rank = len(fixed) == array.ndim
    if not same_rank or any(
        known and size != wanted
        for known, size, wanted in zip(fixed, array.shape, signature.shape, strict=True)
    ):
        raise DataError(f"{where}; expected {signature}")
    return array
