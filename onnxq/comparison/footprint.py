"""Size on disk, time to load, and memory, the last two seen in a process of their own."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxq.comparison.results import Footprint
from onnxq.errors import ModelError
from onnxq.graph.files import load_model
from onnxq.runtime.session import Feeds, Session

LONGEST_CHILD_S = 600.0

# The child looks for modules where its parent does, and not first where the user happens to be.
_CHILD = (
    "import sys; sys.path[:] = sys.argv.pop(1).split('\\n'); "
    "from onnxq.comparison.footprint import run_child; run_child(sys.argv[1:])"
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


def run_child(arguments: list[str]) -> None:
    """What the process does that loads the model: measure, and say so in JSON.

    Args:
        arguments: path of the model; then, with feeds, path of the arrays and a list in JSON of
            their names and types.
    """
    feeds = _load_feeds(Path(arguments[1]), json.loads(arguments[2])) if arguments[1:] else None
    before = peak_memory()
    start = time.perf_counter()
    session = Session(Path(arguments[0]))
    load_ms = 1000.0 * (time.perf_counter() - start)
    if feeds is not None:
        session.run(feeds)
    after = peak_memory()
    peak = None if before is None or after is None else after - before
    sys.stdout.write(json.dumps({"load_ms": load_ms, "peak_memory_bytes": peak}) + "\n")


def peak_memory() -> int | None:
    """Most bytes of memory that this process has held so far; None where nothing tells."""
    try:
        # On Linux getrusage hands the peak of the parent on to the child that it starts, which
        # hides every model that is smaller; this figure begins anew with the program.
        for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    # In bytes on macOS, in KiB everywhere else.
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


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


def _load_feeds(path: Path, kinds: list[list[str]]) -> Feeds:
    with np.load(path, allow_pickle=False) as arrays:
        return {
            name: _with_type(arrays[f"arr_{index}"], kind)
            for index, (name, kind) in enumerate(kinds)
        }


def _without_objects(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Strings that are objects would be pickled."""
    return array.astype(np.str_) if array.dtype == np.object_ else array


def _with_type(array: npt.NDArray[Any], kind: str) -> npt.NDArray[Any]:
    if array.dtype.kind == "V":  # a type that only ml_dtypes knows is saved as plain bytes
        return array.view(np.dtype(kind))
    return array.astype(np.object_) if kind == "object" else array


def _read_number(measured: dict[str, Any], key: str) -> float | None:
    found = measured.get(key)
    return float(found) if isinstance(found, (int, float)) and math.isfinite(found) else None


def _read_bytes(measured: dict[str, Any]) -> int | None:
    found = _read_number(measured, "peak_memory_bytes")
    return None if found is None else int(found)
