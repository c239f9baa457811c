"""Reading files that are small where nobody means harm."""

from __future__ import annotations

import errno
from pathlib import Path

LARGEST_SMALL_FILE_BYTES = 256 << 20
"""Labels, ranges, a pipeline file or a lock; far above any that was ever seen."""


def read_small(path: Path) -> bytes:
    """The content of a file.

    Raises:
        OSError: it cannot be read, is too large, or is no regular file: opening a pipe would wait
            for ever, and a device may never end.
    """
    status = path.stat()
    if not path.is_file():
        number = errno.EISDIR if path.is_dir() else errno.EINVAL
        what = "is a directory" if path.is_dir() else "is not a regular file"
        raise OSError(number, what)
    if status.st_size > LARGEST_SMALL_FILE_BYTES:
        raise OSError(
            errno.EFBIG,
            f"has {status.st_size} bytes, at most {LARGEST_SMALL_FILE_BYTES} are read",
        )
    return path.read_bytes()
