from __future__ import annotations

import inspect
import re

import pytest

import onnxq
from onnxq import errors
from onnxq.errors import OnnxqError

CLASSES = [
    one
    for _, one in inspect.getmembers(errors, inspect.isclass)
    if issubclass(one, Exception) and one.__module__ == errors.__name__
]

every_error = pytest.mark.parametrize("error", CLASSES, ids=lambda one: one.__name__)


def _read_tree() -> dict[str, tuple[str | None, int]]:
    """Parent and exit code of each class, as the docstring draws them."""
    tree: dict[str, tuple[str | None, int]] = {}
    open_parents: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^[ |]*(?:\+-- )?(\w+Error)\s+(\d+)", line)
        if found is None:
            continue
        column = found.start(1)
        while open_parents and open_parents[-1][0] >= column:
            open_parents.pop()
        tree[found[1]] = (open_parents[-1][1] if open_parents else None, int(found[2]))
        open_parents.append((column, found[1]))
    return tree


def test_the_drawing_is_the_tree() -> None:
    actual = {
        one.__name__: (
            None if one is OnnxqError else one.__mro__[1].__name__,
            one.exit_code,
        )
        for one in CLASSES
    }
    assert _read_tree() == actual


@every_error
def test_message_is_one_line(error: type[OnnxqError]) -> None:
    assert str(error("first\n  second\t third ")) == "first second third"


@every_error
def test_has_a_documented_exit_code(error: type[OnnxqError]) -> None:
    assert issubclass(error, OnnxqError)
    assert error.exit_code in (errors.EXIT_NO, errors.EXIT_USAGE, errors.EXIT_ERROR)
    assert error.__doc__


def test_exit_codes() -> None:
    assert (errors.EXIT_DONE, errors.EXIT_NO, errors.EXIT_USAGE) == (0, 1, 2)
    assert (errors.EXIT_ERROR, errors.EXIT_INTERRUPTED) == (3, 130)


def test_the_base_is_public() -> None:
    assert onnxq.OnnxqError is OnnxqError
