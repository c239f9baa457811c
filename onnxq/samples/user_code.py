"""Functions of the user, named on the command line."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from onnxq.errors import DataError, UsageError


@dataclass(frozen=True)
class UserFunction:
    """A function of the user.

    Attributes:
        name: as given, 'module:function' or 'path/to/file.py:function'.
        function: the function itself.
        folder: from which its code may import.
    """

    name: str
    function: Callable[..., Any]
    folder: Path


def load_function(option: str, name: str) -> UserFunction:
    """Import the function ``name``.

    Args:
        option: that names it, for messages.
        name: of the module, or path of the file, and of the function, with a colon between.

    Raises:
        UsageError: there is no such module or function.
        DataError: the module fails.
    """
    what = f"{option} {name}"
    module_name, _, function_name = name.rpartition(":")
    if not module_name or not function_name or module_name.startswith("."):
        raise UsageError(f"{what}: give module:function, or path/to/file.py:function")
    is_file = module_name.endswith(".py")
    folder = Path(module_name).resolve().parent if is_file else Path.cwd()
    with importable(folder), user_errors_named(f"{what}: its import"):
        module = _load_file(what, module_name) if is_file else _load_module(what, module_name)
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UsageError(f"{what}: '{module_name}' has no function '{function_name}'")
    return UserFunction(name, function, folder)


def find_source(name: str, folder: Path) -> Path | None:
    """The file with the code of a function, found without running any of it.

    Args:
        name: 'module:function' or 'path/to/file.py:function'.
        folder: that a path is relative to, and from which modules are imported first.

    Returns:
        None where there is none; a function may also be built in.
    """
    module = name.rpartition(":")[0]
    if module.endswith(".py"):
        return folder / module
    places: list[str] = [str(folder.resolve()), *sys.path]
    spec = None
    for part in module.split("."):
        spec = PathFinder.find_spec(part, places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or ())
    return None if spec is None or spec.origin is None else Path(spec.origin)


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """The user's code may import what lies beside it, as if it was started there."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:  # the user's code may have changed it
            sys.path.remove(str(folder))


@contextmanager
def user_errors_named(what: str) -> Iterator[None]:
    """Whatever the user's code raises becomes a DataError that says where."""
    try:
        yield
    except (DataError, UsageError):
        raise
    except (Exception, SystemExit) as error:  # scripts without a guard around main() exit
        raise DataError(f"{what} failed: {type(error).__name__}: {error}") from error


def _load_module(what: str, module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        parents = module_name.split(".")
        tried = {".".join(parents[: end + 1]) for end in range(len(parents))}
        if error.name not in tried:
            raise
        raise UsageError(
            f"{what}: no module '{error.name}' here or on Python's path; for a file give "
            "path/to/file.py:function"
        ) from error


def _load_file(what: str, file_name: str) -> ModuleType:
    path = Path(file_name).resolve()
    if not path.is_file():
        raise UsageError(f"{what}: no file {file_name}")
    # A name of its own, so that a file like random.py hides no other module.
    spec = importlib.util.spec_from_file_location(f"onnxq_user_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses in the user's code look their module up
    spec.loader.exec_module(module)
    return module
