"""What the process does that loads one model, to see what that takes.

It imports the runtime and nothing else of this program: the rest would take longer than the load of
a small model, and hide its memory.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxq.runtime.session import Feeds, Session


def main(arguments: list[str]) -> None:
    """Load the model, run it, and say in JSON what that took.

    Args:
        arguments: path of the model; then, with feeds, path of the arrays and a list in JSON of
            their names and types.
    """
    feeds = load_feeds(Path(arguments[1]), json.loads(arguments[2])) if arguments[1:] else None
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


def load_feeds(path: Path, kinds: list[list[str]]) -> Feeds:
    """The arrays that the parent has stored.

    Args:
        path: of an archive of arrays.
        kinds: name and type of each, in their order.
    """
    with np.load(path, allow_pickle=False) as arrays:
        return {
            name: _with_type(arrays[f"arr_{index}"], kind)
            for index, (name, kind) in enumerate(kinds)
        }


def _with_type(array: npt.NDArray[Any], kind: str) -> npt.NDArray[Any]:
    if array.dtype.kind == "V":  # a type that only ml_dtypes knows is saved as plain bytes
        return array.view(np.dtype(kind))
    return array.astype(np.object_) if kind == "object" else array
