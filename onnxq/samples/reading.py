"""Samples, one after the other, each checked against the inputs of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxq.errors import DataError, UsageError
from onnxq.runtime.session import Feeds, InputSignature
from onnxq.samples.constant_inputs import ConstantInputs
from onnxq.samples.fitting import find_masked_inputs, fit_feeds, refuse_untyped_inputs
from onnxq.samples.folder import FolderSource
from onnxq.samples.options import SampleOptions
from onnxq.samples.reader import ReaderSource
from onnxq.samples.source import Entry, Source


@dataclass(frozen=True)
class Sample:
    """One sample.

    Attributes:
        name: of the file, relative to the folder, or 'reader sample 3'.
        feeds: an array for each input of the model.
    """

    name: str
    feeds: Feeds


class Samples:
    """Samples to calibrate and verify with, loaded when they are come to; none is kept."""

    def __init__(self, source: Source, *, skip_bad: bool = False) -> None:
        """Take samples from ``source``.

        Args:
            source: of them.
            skip_bad: leave bad ones out, and say so in ``skipped``.
        """
        self._source = source
        self._skip_bad = skip_bad
        self._skipped: dict[str, str] = {}
        self._notes: tuple[str, ...] = ()
        self._constant_inputs = ConstantInputs()

    @property
    def label(self) -> str:
        """How reports call the source."""
        return self._source.label

    @property
    def folder(self) -> Path | None:
        """Where the files are; None for a reader."""
        return self._source.path if isinstance(self._source, FolderSource) else None

    @property
    def reader(self) -> str | None:
        """The name of the function that gives them; None for a folder."""
        return self._source.name if isinstance(self._source, ReaderSource) else None

    @property
    def count(self) -> int | None:
        """How many samples there are, bad ones included; None for a reader."""
        return self._source.count

    @property
    def skipped(self) -> tuple[str, ...]:
        """A message for each bad sample that any read has come across."""
        return tuple(self._skipped.values())

    def count_entries(self, inputs: Sequence[InputSignature]) -> int:
        """How many samples there are, bad ones included; runs a reader to its end."""
        if self._source.count is not None:
            return self._source.count
        return sum(1 for _ in self._source.entries(inputs))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of the last read; those on single values come at its end."""
        return self._notes

    def fingerprint(self) -> str:
        """A hash that changes with the content of the files and the options that change feeds.

        For a reader only its name goes in, because what it gives cannot be seen without reading.

        Raises:
            DataError: a file cannot be read.
        """
        return self._source.fingerprint()

    def read(
        self, inputs: Sequence[InputSignature], *, keep: Callable[[int], bool] | None = None
    ) -> Iterator[Sample]:
        """The samples for ``inputs``; every call starts again.

        Args:
            inputs: of the model.
            keep: of the position of a sample, bad ones counted, whether it is wanted; the others
                are not even loaded. None for all.

        Raises:
            DataError: the source does not suit the model, at once; a sample is bad and they are
                not skipped, or all of them are, when it is come to.
            UsageError: the options for images contradict the model.
        """
        refuse_untyped_inputs(inputs)
        self._notes = self._source.describe(inputs)
        return self._read(inputs, self._notes, keep)

    def _read(
        self,
        inputs: Sequence[InputSignature],
        notes: tuple[str, ...],
        keep: Callable[[int], bool] | None,
    ) -> Iterator[Sample]:
        masked: Counter[str] = Counter()
        given = 0
        for index, entry in enumerate(self._source.entries(inputs)):
            if keep is not None and not keep(index):
                continue
            try:
                sample = _load(entry, inputs, masked)
            except DataError as error:
                if not self._skip_bad:
                    raise DataError(f"{error} (--skip-bad goes on without)") from error
                self._skipped[entry.where] = str(error)
                continue
            given += 1
            self._constant_inputs.add(sample.feeds)
            yield sample
        if not given and keep is None:
            raise DataError(self._explain_nothing())
        self._notes = (*notes, *_describe_masked(masked), *self._constant_inputs.describe())

    def _explain_nothing(self) -> str:
        if self.skipped:
            count = len(self.skipped)
            return f"{self.label}: all {count} samples are bad; the first: {self.skipped[0]}"
        return f"{self.label}: gave no samples; it must give them anew whenever it is called"


def open_samples(
    path: Path | None,
    *,
    reader: str | None = None,
    options: SampleOptions | None = None,
    folder_option: str = "--calib or --data DIR",
) -> Samples:
    """Samples of a folder, or of a function of the user.

    Args:
        path: the folder; None with ``reader``.
        reader: 'module:function' or 'path/to/file.py:function'; None with ``path``.
        options: None for the defaults.
        folder_option: that names the folder, for messages.

    Raises:
        UsageError: both are given, or none; the reader does not exist.
        DataError: the folder cannot be listed or holds no samples; the reader's module fails.
    """
    options = SampleOptions() if options is None else options
    if (path is None) == (reader is None):
        raise UsageError(
            f"samples come from a folder ({folder_option}) or from --reader: give one of both"
        )
    source: Source
    if reader is not None:
        source = ReaderSource.open(reader, limit=options.limit)
    else:
        assert path is not None
        source = FolderSource.open(path, options)
    return Samples(source, skip_bad=options.skip_bad)


def open_samples_if_named(
    path: Path | None, *, reader: str | None, options: SampleOptions
) -> Samples | None:
    """As ``open_samples``; None where neither folder nor function is named.

    Raises:
        UsageError: options for samples, and no samples.
        DataError: see ``open_samples``.
    """
    if path is None and reader is None:
        options.refuse_all("--calib or --reader")
        return None
    return open_samples(path, reader=reader, options=options)


def _load(entry: Entry, inputs: Sequence[InputSignature], masked: Counter[str]) -> Sample:
    feeds = fit_feeds(entry.where, entry.load(), inputs)
    masked.update(find_masked_inputs(entry.where, feeds))
    return Sample(entry.name, feeds)


def _describe_masked(masked: Counter[str]) -> Iterator[str]:
    for name, count in sorted(masked.items()):
        yield f"input '{name}' holds -inf in {count} samples; taken as it is, as in a mask"
