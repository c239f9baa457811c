"""Whether models fit into memory, asked before the machine begins to swap."""

from __future__ import annotations

from pathlib import Path

from onnxq.errors import UnsupportedModelError

_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)
"""Files that tell the limit of a container and what it uses, of both versions of cgroups."""


def refuse_beyond_memory(path: Path, weights_bytes: int, *, advice: str) -> None:
    """Refuse to load weights that cannot fit: the runtime needs at least their bytes.

    Args:
        path: of the model, for the message.
        weights_bytes: of all models that are held at once.
        advice: what to do about it.

    Raises:
        UnsupportedModelError: so much memory is not available; where nothing tells, nothing is
            refused.
    """
    available_bytes = read_available_memory()
    if available_bytes is not None and weights_bytes > available_bytes:
        raise UnsupportedModelError(
            f"{path}: running it takes at least {weights_bytes / 1e9:.1f} GB of memory, and "
            f"{available_bytes / 1e9:.1f} GB are available; {advice}"
        )


def read_available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that can be taken without swapping; None where nothing tells.

    Args:
        root: of the file system, where the kernel shows its figures.
    """
    found = [_read_meminfo(root / "proc/meminfo")]
    for limit, used in _LIMITS:
        most, now = (_read_number(root / name.lstrip("/")) for name in (limit, used))
        if most is not None and now is not None:
            found.append(max(0, most - now))
    return min((one for one in found if one is not None), default=None)


def _read_meminfo(path: Path) -> int | None:
    try:
        for line in path.read_text("ascii", "replace").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return None


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text("ascii"))  # "max" where there is no limit
    except (OSError, ValueError):
        return None
