"""Ranges in a file: calibrate once, quantize many times."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxq.calibration.resolve import Range
from onnxq.errors import DataError
from onnxq.graph.output import write_whole
from onnxq.graph.small_files import read_small
from onnxq.ranges import METHODS

SCHEMA_VERSION = 1
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class SavedRanges:
    """What a calibration found.

    Attributes:
        model: fingerprint of the float model.
        data: fingerprint of the samples.
        method: that chose the ranges.
        extremes: smallest and largest value of each tensor.
        ranges: of each tensor.
        unreached: tensors that no sample reached.
        elements: of each tensor, over all samples.
    """

    model: str
    data: str
    method: str
    extremes: Mapping[str, Range]
    ranges: Mapping[str, Range]
    unreached: tuple[str, ...] = ()
    elements: Mapping[str, int] = field(default_factory=dict)


def fingerprint_model(files: tuple[Path, ...]) -> str:
    """A hash over the model and its external data, in the order given.

    Raises:
        DataError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in files:
        try:
            with path.open("rb") as stream:
                while chunk := stream.read(_CHUNK_BYTES):
                    digest.update(chunk)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def save_ranges(saved: SavedRanges, path: Path) -> None:
    """Write ranges as JSON, whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    content = {
        "schema_version": SCHEMA_VERSION,
        "model_sha256": saved.model,
        "data_sha256": saved.data,
        "method": saved.method,
        "tensors": {
            name: {
                "minimum": saved.extremes[name][0],
                "maximum": saved.extremes[name][1],
                "low": low,
                "high": high,
                **({"elements": saved.elements[name]} if name in saved.elements else {}),
            }
            for name, (low, high) in saved.ranges.items()
        },
        "unreached": list(saved.unreached),
    }
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_whole(path, text.encode("utf-8"))


def load_ranges(path: Path) -> SavedRanges:
    """Read ranges.

    Raises:
        DataError: it is no such file.
    """
    try:
        content = json.loads(read_small(path))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            f"{path}: cannot be read as saved ranges: {reason}; name a file of --save-ranges"
        ) from error
    try:
        return _parse(content)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{path}: holds no ranges as --save-ranges writes them ({type(error).__name__}: "
            f"{error}); calibrate again"
        ) from error


def _parse(content: dict[str, Any]) -> SavedRanges:
    if content["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema_version {content['schema_version']}, not {SCHEMA_VERSION}")
    if content["method"] not in METHODS:
        raise ValueError(f"unknown method '{content['method']}'")
    tensors: dict[str, dict[str, Any]] = content["tensors"]
    return SavedRanges(
        model=str(content["model_sha256"]),
        data=str(content["data_sha256"]),
        method=str(content["method"]),
        extremes={
            name: _parse_range(one["minimum"], one["maximum"]) for name, one in tensors.items()
        },
        ranges={name: _parse_range(one["low"], one["high"]) for name, one in tensors.items()},
        unreached=tuple(map(str, content["unreached"])),
        elements={name: int(one["elements"]) for name, one in tensors.items() if "elements" in one},
    )


def _parse_range(low: Any, high: Any) -> Range:
    parsed = float(low), float(high)
    if not (math.isfinite(parsed[0]) and math.isfinite(parsed[1]) and parsed[0] <= parsed[1]):
        raise ValueError(f"range {parsed} is no range")
    return parsed
