"""Size on disk, time to load, and memory, the last two seen in a process of their own."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxq.comparison.results import Footprint
from onnxq.errors import ModelError
from onnxq.graph.files import load_model
from onnxq.runtime.session import Feeds

LONGEST_CHILD_S = 600.0

# The child looks for modules where its parent does, and not first where the user happens to be.
_CHILD = (
    "import sys; sys.path[:] = sys.argv.pop(1).split('\\n'); "
    "from onnxq.comparison.footprint_child import main; main(sys.argv[1:])"
)


def measure_footprint(path: Path, feeds: Feeds | None) -> Footprint:
    """What a model takes.

    Args:
        path: of the model.
        feeds: one sample, run after the load to see the memory that inference takes; None to load
            the model only.

    Raises:
        ModelError: there is no such file.
    """
    with _stored(feeds) as arguments:
        measured = _ask_child([str(path.absolute()), *arguments])
    return Footprint(
        size_bytes=size_on_disk(path),
        load_ms=_read_number(measured, "load_ms"),
        peak_memory_bytes=_read_bytes(measured),
    )


def size_on_disk(path: Path) -> int:
    """Bytes of a model and of its external data.

    Raises:
        ModelError: there is no such file.
    """
    try:
        return load_model(path).size_bytes
    except ModelError:
        if not path.is_file():
            raise
        # onnxruntime runs some models that onnxq does not take.
        return path.stat().st_size


def _ask_child(arguments: list[str]) -> dict[str, Any]:
    """What the child says; nothing if it fails: a figure less, but no reason to stop."""
    try:
        result = subprocess.run(
            [sys.executable, "-c", _CHILD, "\n".join(sys.path), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=LONGEST_CHILD_S,
            check=True,
        )
        found = json.loads(result.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def _stored(feeds: Feeds | None) -> Iterator[list[str]]:
    """Arguments for the child that name ``feeds`` in a file for the time being."""
    if feeds is None:
        yield []
        return
    with tempfile.TemporaryDirectory(prefix="onnxq-") as folder:
        path = Path(folder) / "feeds.npz"
        # By position: an input may be called 'file', as the first parameter of savez is.
        np.savez(path, *map(_without_objects, feeds.values()))
        kinds = [[name, array.dtype.name] for name, array in feeds.items()]
        yield [str(path), json.dumps(kinds)]


def _without_objects(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Strings that are objects would be pickled."""
    return array.astype(np.str_) if array.dtype == np.object_ else array


def _read_number(measured: dict[str, Any], key: str) -> float | None:
    found = measured.get(key)
    return float(found) if isinstance(found, (int, float)) and math.isfinite(found) else None


def _read_bytes(measured: dict[str, Any]) -> int | None:
    found = _read_number(measured, "peak_memory_bytes")
    return None if found is None else int(found)
