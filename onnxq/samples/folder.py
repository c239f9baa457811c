"""Samples from the files of a folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from onnxq.errors import DataError
from onnxq.runtime.session import Feeds, InputSignature
from onnxq.samples.arrays import load_npy, load_npz
from onnxq.samples.choice import choose
from onnxq.samples.fitting import Arrays, fit_feeds
from onnxq.samples.image_plan import ImagePlan, plan_images
from onnxq.samples.images import load_image, require_pillow
from onnxq.samples.listing import IMAGE_SUFFIXES, Kind, Listing, SampleFile, list_samples
from onnxq.samples.options import ImageOptions, SampleOptions
from onnxq.samples.source import Entry
from onnxq.samples.tensor_files import load_test_set

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class SampleFolder:
    """The .npz and .npy samples of a folder and its sub-folders, in the order of their names.

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
            DataError: it is no folder, cannot be listed, or holds no samples.
        """
        listing = list_samples(path)
        files = tuple(one.path for one in listing.files if one.kind in (Kind.NPZ, Kind.NPY))
        if not files:
            raise DataError(f"{path}: holds no .npz or .npy samples; name the folder that does")
        return cls(path, files)

    @property
    def label(self) -> str:
        """How reports call it."""
        return str(self.path)

    @property
    def count(self) -> int:
        """How many samples there are."""
        return len(self.files)

    def read(self, inputs: Sequence[InputSignature]) -> Iterator[Feeds]:
        """Each sample as feeds for ``inputs``, one after the other.

        Raises:
            DataError: a file cannot be read, or does not fit the inputs.
        """
        for file in self.files:
            _refuse_irregular(file)
            load = load_npy if file.suffix.lower() == ".npy" else load_npz
            yield fit_feeds(str(file), load(file, inputs), inputs)


@dataclass(frozen=True)
class FolderSource:
    """Samples of every kind, as chosen.

    Attributes:
        path: the folder.
        files: those that were chosen.
        options: what was asked for.
        listing: everything that was found.
    """

    path: Path
    files: tuple[SampleFile, ...]
    options: SampleOptions
    listing: Listing

    @classmethod
    def open(cls, path: Path, options: SampleOptions) -> FolderSource:
        """List the samples in ``path`` and choose.

        Raises:
            DataError: it is no folder, cannot be listed, or holds no samples; there are images,
                but Pillow is not installed.
        """
        listing = list_samples(path)
        if not listing.files:
            raise DataError(_explain_nothing(path, listing))
        names = [file.name for file in listing.files]
        chosen = choose(names, options.limit, options.seed)
        files = tuple(listing.files[index] for index in chosen)
        image = next((file for file in files if file.kind is Kind.IMAGE), None)
        if image is not None:
            require_pillow(image.path)
        return cls(path, files, options, listing)

    @property
    def label(self) -> str:
        """The folder."""
        return str(self.path)

    @property
    def count(self) -> int:
        """How many were chosen."""
        return len(self.files)

    def describe(self, inputs: Sequence[InputSignature]) -> tuple[str, ...]:
        """What a user should know before the first is read.

        Raises:
            DataError: there are images, but the model takes none.
            UsageError: the options for images contradict the model.
        """
        notes = []
        found = len(self.listing.files)
        if self.count < found:
            notes.append(f"{self.count} of {found} samples, chosen with seed {self.options.seed}")
        if self.listing.passed_over:
            notes.append(
                f"{len(self.listing.passed_over)} files beside the input_*.pb of a test set are "
                f"not read, first {self.listing.passed_over[0]}"
            )
        plan = self._plan_images(inputs)
        if plan is not None:
            notes.append(plan.describe())
        elif self.options.images not in (None, ImageOptions()):
            notes.append("no sample is an image: options for images change nothing")
        return tuple(notes)

    def entries(self, inputs: Sequence[InputSignature]) -> Iterator[Entry]:
        """The chosen samples, each with the way to load it."""
        plan = self._plan_images(inputs)
        for file in self.files:
            yield Entry(file.name, str(file.path), partial(_load, file, inputs, plan))

    def fingerprint(self) -> str:
        """A hash of names and contents, and of the options where there are images.

        Raises:
            DataError: a file cannot be read.
        """
        total = hashlib.sha256()
        if any(file.kind is Kind.IMAGE for file in self.files):
            total.update(repr(self.options.images or ImageOptions()).encode())
        for file in self.files:
            for part in file.parts:
                name = f"{file.name}\0{part.name}"
                total.update(hashlib.sha256(os.fsencode(name)).digest() + _digest(part))
        return total.hexdigest()

    def _plan_images(self, inputs: Sequence[InputSignature]) -> ImagePlan | None:
        if all(file.kind is not Kind.IMAGE for file in self.files):
            return None
        return plan_images(inputs, self.options.images or ImageOptions())


def _load(file: SampleFile, inputs: Sequence[InputSignature], plan: ImagePlan | None) -> Arrays:
    for part in file.parts:
        _refuse_irregular(part)
    if file.kind is Kind.TEST_SET:
        return load_test_set(file.path, file.parts, inputs)
    if file.kind is Kind.IMAGE:
        assert plan is not None
        return load_image(file.path, plan)
    return (load_npz if file.kind is Kind.NPZ else load_npy)(file.path, inputs)


def _refuse_irregular(path: Path) -> None:
    """Opening a pipe would wait for ever."""
    if not path.is_file():
        if not os.path.lexists(path):
            raise DataError(f"{path}: is gone since the folder was listed; run again")
        raise DataError(f"{path}: no regular file, or a link to nothing; remove it")


def _digest(path: Path) -> bytes:
    _refuse_irregular(path)
    content = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                content.update(chunk)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return content.digest()


def _explain_nothing(path: Path, listing: Listing) -> str:
    kinds = f".npz, .npy, {', '.join(IMAGE_SUFFIXES)}, or folders with input_*.pb"
    if not listing.others:
        return f"{path}: holds no samples: no files at all; samples are {kinds}"
    ((suffix, count),) = listing.others.most_common(1)
    return (
        f"{path}: holds no samples, but {count} of {suffix}; samples are {kinds}; "
        "--reader module:function reads others"
    )
