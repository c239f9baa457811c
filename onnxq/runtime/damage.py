"""Whose fault it is where work on a model fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onnxq.errors import ExecutionError, InvalidModelError, OnnxqError
from onnxq.graph.check import find_fault
from onnxq.runtime.session import Session


@contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Say what is wrong with a model where working on it fails in an unforeseen way.

    Raises:
        InvalidModelError: the checker of onnx or onnxruntime refuses ``path``; where neither does
            the failure is ours, and passes.
    """
    try:
        yield
    except (OnnxqError, MemoryError):
        raise
    except Exception as error:
        fault = find_fault(path) or _find_refusal(path)
        if fault is None:
            raise
        raise InvalidModelError(f"{path}: not a valid model: {fault}") from error


def _find_refusal(path: Path) -> str | None:
    """What onnxruntime says: the checker looks at single nodes, not at the shapes between them."""
    try:
        Session(path)
    except ExecutionError as error:
        return f"onnxruntime cannot load it: {error.reason}"
    return None
