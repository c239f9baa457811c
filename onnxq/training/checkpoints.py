"""Files from which training goes on.

One line says what it is, one holds the hash of all that follows, and then comes what torch writes:
torch itself does not notice when bytes of a tensor have changed.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from onnxq.errors import DataError
from onnxq.graph.output import write_whole

_FORMAT = b"onnxq checkpoint 3\n"
_ANEW = "leave out --resume to start anew"


def save_checkpoint(path: Path, state: dict[str, Any], fingerprint: str) -> None:
    """Write all that is needed to go on, whole or not at all.

    Args:
        path: of the file; one that is there is replaced.
        state: as the trainer gives it.
        fingerprint: of the model that training started from, and of what changes the steps.

    Raises:
        OutputError: it cannot be written.
    """
    content = io.BytesIO()
    torch.save({"fingerprint": fingerprint, "state": state}, content)
    body = content.getvalue()
    write_whole(path, _FORMAT + _hash(body) + body)


def load_checkpoint(path: Path, fingerprint: str) -> dict[str, Any]:
    """Read such a file.

    Raises:
        DataError: it is none, is damaged, or belongs to another training or another version.
    """
    body = _read_body(path)
    try:
        found = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
        own, state = found["fingerprint"], found["state"]
    except Exception as error:  # torch raises many types
        raise DataError(f"{path}: is a checkpoint that torch cannot read; {_ANEW}") from error
    if own != fingerprint:
        raise DataError(
            f"{path}: is of another model, other samples or other options; use those of the first "
            "run, or leave out --resume"
        )
    assert isinstance(state, dict)
    return state


def check_checkpoint(path: Path) -> None:
    """Refuse before the work what can be seen to be no such file, or not a whole one.

    Raises:
        DataError: as for ``load_checkpoint``.
    """
    _read_body(path)


def _read_body(path: Path) -> bytes:
    if not path.exists():
        raise DataError(f"{path}: no such checkpoint; {_ANEW}")
    if not path.is_file():  # opening a pipe would wait for ever
        raise DataError(f"{path}: cannot be read as a checkpoint: no regular file; name another")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read as a checkpoint: {error.strerror}") from error
    name, end = _FORMAT.rsplit(b" ", 1)[0], len(_FORMAT)
    body = content[end + len(_hash(b"")) :]
    if content.startswith(_FORMAT):
        if content[end : -len(body) or None] != _hash(body):
            raise DataError(f"{path}: is a damaged checkpoint, or only a part of one; {_ANEW}")
        return body
    if content.startswith((name, b"PK")):  # an archive of torch is what the first version wrote
        raise DataError(f"{path}: is of another version of onnxq, or no checkpoint; {_ANEW}")
    raise DataError(f"{path}: cannot be read as a checkpoint of onnxq qat; {_ANEW}")


def _hash(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode() + b"\n"
