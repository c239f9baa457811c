"""Samples from a function of the user."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from onnxq.errors import DataError
from onnxq.runtime.session import InputSignature
from onnxq.samples.fitting import Arrays
from onnxq.samples.source import Entry
from onnxq.samples.user_code import importable, load_function, user_errors_named


@dataclass(frozen=True)
class ReaderSource:
    """A function that gives feeds, called without arguments at every read.

    Attributes:
        name: as given, 'module:function' or 'path/to/file.py:function'.
        function: of the user.
        folder: from which its code may import.
        limit: the first so many samples are taken; None for all.
    """

    name: str
    function: Callable[[], object]
    folder: Path
    limit: int | None

    @classmethod
    def open(cls, name: str, *, limit: int | None) -> ReaderSource:
        """Import the function ``name``.

        Args:
            name: of the module, or path of the file, and of the function, with a colon between.
            limit: the first so many samples are taken; None for all.

        Raises:
            UsageError: there is no such module or function.
            DataError: the module fails.
        """
        found = load_function("--reader", name)
        return cls(name, found.function, found.folder, limit)

    @property
    def label(self) -> str:
        """Its name."""
        return f"reader {self.name}"

    @property
    def count(self) -> None:
        """Not known before the end."""
        return

    def describe(self, inputs: Sequence[InputSignature]) -> tuple[str, ...]:  # noqa: ARG002
        """That only the first samples are taken, if so: choosing would need all of them."""
        return () if self.limit is None else (f"the first {self.limit} samples of the reader",)

    def entries(self, inputs: Sequence[InputSignature]) -> Iterator[Entry]:  # noqa: ARG002
        """The samples of a new call.

        Raises:
            DataError: the function fails, or gives something else.
        """
        with importable(self.folder), user_errors_named(f"{self.label}: the call"):
            iterator = self._call()
        index = 0
        while self.limit is None or index < self.limit:
            name = f"reader sample {index}"
            with importable(self.folder), user_errors_named(f"{self.label}: sample {index}"):
                given = next(iterator, _END)
            if given is _END:
                return
            where = f"{self.label}: sample {index}"
            yield Entry(name, where, partial(_to_arrays, where, given))
            index += 1

    def fingerprint(self) -> str:
        """A hash of its name."""
        return hashlib.sha256(self.name.encode()).hexdigest()

    def _call(self) -> Iterator[object]:
        given = self.function()
        if isinstance(given, Mapping) or not hasattr(given, "__iter__"):
            raise DataError(
                f"{self.label}: gives one {type(given).__name__}; it has to give an iterable of "
                "dictionaries, each with an array for every input"
            )
        iterator: Iterator[object] = iter(given)
        return iterator


_END = object()


def _to_arrays(where: str, given: object) -> Arrays:
    if not isinstance(given, Mapping):
        raise DataError(
            f"{where}: is of type {type(given).__name__}; give a dictionary with an array for "
            "every input"
        )
    try:
        return {str(name): np.asarray(array) for name, array in given.items()}
    except Exception as error:  # tensors of other libraries raise their own
        raise DataError(f"{where}: cannot be made numpy arrays: {error}") from error
