"""Samples from a function of the user."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np

from onnxq.errors import DataError, UsageError
from onnxq.runtime.session import InputSignature
from onnxq.samples.fitting import Arrays
from onnxq.samples.source import Entry


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
        module_name, _, function_name = name.rpartition(":")
        if not module_name or not function_name:
            raise UsageError(f"--reader {name}: give module:function, or path/to/file.py:function")
        is_file = module_name.endswith(".py")
        folder = Path(module_name).resolve().parent if is_file else Path.cwd()
        with _importable(folder), _user_errors_named(f"--reader {name}: its import"):
            module = _load_file(name, module_name) if is_file else _load_module(name, module_name)
        function = getattr(module, function_name, None)
        if not callable(function):
            raise UsageError(f"--reader {name}: '{module_name}' has no function '{function_name}'")
        return cls(name, function, folder, limit)

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
        with _importable(self.folder), _user_errors_named(f"{self.label}: the call"):
            iterator = self._call()
        index = 0
        while self.limit is None or index < self.limit:
            name = f"reader sample {index}"
            with _importable(self.folder), _user_errors_named(f"{self.label}: sample {index}"):
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


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """The user's code may import what lies beside it, as if it was started there."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:  # the user's code may have changed it
            sys.path.remove(str(folder))


@contextmanager
def _user_errors_named(what: str) -> Iterator[None]:
    try:
        yield
    except (DataError, UsageError):
        raise
    except (Exception, SystemExit) as error:  # scripts without a guard around main() exit
        raise DataError(f"{what} failed: {type(error).__name__}: {error}") from error


def _load_module(name: str, module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        parents = module_name.split(".")
        tried = {".".join(parents[: end + 1]) for end in range(len(parents))}
        if error.name not in tried:
            raise
        raise UsageError(
            f"--reader {name}: no module '{error.name}' here or on Python's path; for a file give "
            "path/to/file.py:function"
        ) from error


def _load_file(name: str, file_name: str) -> ModuleType:
    path = Path(file_name).resolve()
    if not path.is_file():
        raise UsageError(f"--reader {name}: no file {file_name}")
    # A name of its own, so that a file like random.py hides no other module.
    spec = importlib.util.spec_from_file_location(f"onnxq_reader_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses in the user's code look their module up
    spec.loader.exec_module(module)
    return module


def _to_arrays(where: str, given: object) -> Arrays:
    if not isinstance(given, Mapping):
        raise DataError(
            f"{where}: a {type(given).__name__}; give a dictionary with an array for every input"
        )
    try:
        return {str(name): np.asarray(array) for name, array in given.items()}
    except Exception as error:  # tensors of other libraries raise their own
        raise DataError(f"{where}: cannot be made numpy arrays: {error}") from error
