"""Arrays from .npz and .npy files: nothing is unpickled, and sizes are looked at before reading."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from onnxq.errors import DataError
from onnxq.runtime.session import InputSignature
from onnxq.samples.fitting import Arrays, require_names

LARGEST_SAMPLE_BYTES = 2 << 30
"""A small archive can declare arrays that are larger than memory."""


def load_npz(path: Path, inputs: Sequence[InputSignature]) -> Arrays:
    """The arrays of an archive that ``inputs`` take; others are not read.

    Raises:
        DataError: it cannot be read, lacks one, or is too large.
    """
    with _numpy_errors_named(path), zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        require_names(str(path), members.keys(), inputs)
        refuse_large(path, sum(members[one.name].file_size for one in inputs))
        return {one.name: _read_member(path, archive, members[one.name]) for one in inputs}


def load_npy(path: Path, inputs: Sequence[InputSignature]) -> Arrays:
    """The array of a file, for the only input.

    Raises:
        DataError: it cannot be read, is too large, or there are more inputs.
    """
    if len(inputs) != 1:
        raise DataError(
            f"{path}: a .npy file feeds one input, the model has {len(inputs)}; use .npz files"
        )
    with _numpy_errors_named(path), path.open("rb") as stream:
        _check_header(path, stream, os.fstat(stream.fileno()).st_size)
        stream.seek(0)
        return {inputs[0].name: np.lib.format.read_array(stream, allow_pickle=False)}


def refuse_large(path: Path, size: int) -> None:
    """Refuse a sample of ``size`` bytes if that is more than ``LARGEST_SAMPLE_BYTES``.

    Raises:
        DataError: it is.
    """
    if size > LARGEST_SAMPLE_BYTES:
        raise DataError(
            f"{path}: {size} bytes in one sample, at most {LARGEST_SAMPLE_BYTES} are read; "
            "split the batch into several files"
        )


@contextmanager
def _numpy_errors_named(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # damaged files raise from zipfile, zlib, tokenize and numpy
        raise DataError(f"{path}: cannot be read as numpy data: {error}") from error


def _read_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    with archive.open(member) as stream:
        _check_header(path, stream, member.file_size)
    with archive.open(member) as stream:
        array: npt.NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
        return array


def _check_header(path: Path, stream: IO[bytes], size: int) -> None:
    """Refuse what numpy would make room for before it notices that the file is too short."""
    version = np.lib.format.read_magic(stream)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise ValueError(f"version {version[0]}.{version[1]} of the format, for records only")
    shape, _, dtype = read_header(stream)
    if dtype.hasobject:
        raise ValueError("Python objects (a pickle), which are never loaded")
    declared = math.prod(shape) * dtype.itemsize
    refuse_large(path, declared)
    if stream.tell() + declared > size:
        raise ValueError(f"cut short: {size} bytes, its header tells of {declared} and itself")
