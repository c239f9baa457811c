"""Paths as users give them."""

from __future__ import annotations

import os
from pathlib import Path


def optional_path(path: str | os.PathLike[str] | None) -> Path | None:
    """A path, or None for none."""
    return None if path is None else Path(path)
