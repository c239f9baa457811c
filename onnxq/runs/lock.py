"""``onnxq.lock``: what went into each result and what came out. It is read, never executed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxq.comparison.results import Gate
from onnxq.errors import DataError
from onnxq.graph.output import write_whole
from onnxq.graph.small_files import read_small
from onnxq.runs.fingerprints import Fingerprints
from onnxq.runs.numbers import Numbers, parse_numbers, parse_optional

SCHEMA_VERSION = 1

_BROKEN = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True)
class LockedRanges:
    """Ranges of activations.

    Attributes:
        method: that chose them.
        tensors: smallest and largest value that is kept, by the name of the tensor.
    """

    method: str
    tensors: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class LockEntry:
    """One model.

    Attributes:
        fingerprints: of what went in.
        output: hash of the quantized model and its external data.
        ranges: None without calibration.
        numbers: what was measured.
        gates: as they were checked last.
    """

    fingerprints: Fingerprints
    output: str
    ranges: LockedRanges | None
    numbers: Numbers
    gates: tuple[Gate, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        went_in, ranges = self.fingerprints, self.ranges
        return {
            "model_sha256": went_in.model,
            "calibration_sha256": went_in.calibration,
            "options_sha256": went_in.options,
            "evaluation_sha256": went_in.evaluation,
            "measures_sha256": went_in.measures,
            "versions": dict(went_in.versions),
            "output_sha256": self.output,
            "ranges": None
            if ranges is None
            else {
                "method": ranges.method,
                "tensors": {name: list(pair) for name, pair in ranges.tensors.items()},
            },
            "numbers": self.numbers.to_json(),
            "gates": [gate.to_json() for gate in self.gates],
        }


Lock = Mapping[str, LockEntry]
"""Entries by the output of their model."""


def read_lock(path: Path) -> dict[str, LockEntry]:
    """The lock of an earlier run; empty if there is none.

    Raises:
        DataError: it cannot be read.
    """
    try:
        content = json.loads(read_small(path))
        if content["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema_version {content['schema_version']}, not {SCHEMA_VERSION}")
        return {str(name): _parse_entry(one) for name, one in content["models"].items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except _BROKEN as error:
        raise DataError(
            f"{path}: is no lock of onnxq run ({type(error).__name__}: {error}); restore it, or "
            "delete it to run everything again"
        ) from error


def write_lock(lock: Lock, path: Path) -> None:
    """Write the lock, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    content = {
        "schema_version": SCHEMA_VERSION,
        "models": {name: entry.to_json() for name, entry in lock.items()},
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(path, text.encode("utf-8"))


def _parse_entry(content: Mapping[str, Any]) -> LockEntry:
    ranges = content["ranges"]
    return LockEntry(
        fingerprints=Fingerprints(
            model=str(content["model_sha256"]),
            calibration=str(content["calibration_sha256"]),
            options=str(content["options_sha256"]),
            evaluation=str(content["evaluation_sha256"]),
            measures=str(content["measures_sha256"]),
            versions={str(name): str(one) for name, one in content["versions"].items()},
        ),
        output=str(content["output_sha256"]),
        ranges=None if ranges is None else _parse_ranges(ranges),
        numbers=parse_numbers(content["numbers"]),
        gates=tuple(
            Gate(
                name=str(one["name"]),
                limit=float(one["limit"]),
                reached=parse_optional(one["reached"]),
                unit=str(one["unit"]),
                is_met=bool(one["is_met"]),
                detail=str(one["detail"]),
            )
            for one in content["gates"]
        ),
    )


def _parse_ranges(content: Mapping[str, Any]) -> LockedRanges:
    tensors = {}
    for name, (low, high) in content["tensors"].items():
        tensors[str(name)] = (float(low), float(high))
    return LockedRanges(str(content["method"]), tensors)
