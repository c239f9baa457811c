"""The checker of onnx, with its complaint in one line."""

from __future__ import annotations

from pathlib import Path

import onnx


def find_fault(path: Path) -> str | None:
    """What onnx.checker says against a model file, or None."""
    try:
        onnx.checker.check_model(str(path))
    except Exception as error:  # ValidationError, and others from malformed files
        return " ".join(str(error).split())
    return None
