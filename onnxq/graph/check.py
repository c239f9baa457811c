"""The checker of onnx, with its complaint in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx

from onnxq.errors import InvalidModelError, OnnxqError


def find_fault(path: Path) -> str | None:
    """What onnx.checker says against a model file, or None."""
    try:
        onnx.checker.check_model(str(path))
    except Exception as error:  # ValidationError, and others from malformed files
        return " ".join(str(error).split())
    return None


@contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Say what is wrong with a model where working on it fails in an unforeseen way.

    Raises:
        InvalidModelError: the checker of onnx finds fault with ``path``; without such a fault the
            failure is ours, and passes.
    """
    try:
        yield
    except (OnnxqError, MemoryError):
        raise
    except Exception as error:
        fault = find_fault(path)
        if fault is None:
            raise
        raise InvalidModelError(f"{path}: not a valid model: {fault}") from error
