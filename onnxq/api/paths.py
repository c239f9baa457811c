"""Paths as users give them."""

from __future__ import annotations

import os
from pathlib import Path

from onnxq.errors import UsageError


def required_path(path: str | os.PathLike[str]) -> Path:
    """A path; an empty one, as of a variable that is not set, would be the current folder.

    Raises:
        UsageError: it is empty.
    """
    if not os.fspath(path):
        raise UsageError("a path is empty; name a file, or a folder of samples")
    return Path(path)


def optional_path(path: str | os.PathLike[str] | None) -> Path | None:
    """A path, or None for none.

    Raises:
        UsageError: it is empty.
    """
    return None if path is None else required_path(path)
