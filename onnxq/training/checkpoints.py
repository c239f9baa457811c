"""Files from which training goes on."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from onnxq.errors import DataError
from onnxq.graph.output import write_whole

_VERSION = 2


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
    torch.save({"version": _VERSION, "fingerprint": fingerprint, "state": state}, content)
    write_whole(path, content.getvalue())


def load_checkpoint(path: Path, fingerprint: str) -> dict[str, Any]:
    """Read such a file.

    Raises:
        DataError: it is none, or belongs to another training.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        version, own, state = found["version"], found["fingerprint"], found["state"]
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such checkpoint; leave out --resume to start anew") from error
    except Exception as error:  # torch raises many types for files that are none of its own
        raise DataError(f"{path}: cannot be read as a checkpoint of onnxq qat") from error
    if version != _VERSION or own != fingerprint:
        raise DataError(
            f"{path}: is of another model, other samples or other options; use those of the first "
            "run, or leave out --resume"
        )
    assert isinstance(state, dict)
    return state
