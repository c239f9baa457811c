"""What a worker is told, and what it tells. Both go through pipes between processes of onnxq."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnxq.comparison.results import ComparisonReport
from onnxq.runs.jobs import ModelJob
from onnxq.runs.lock import LockEntry


@dataclass(frozen=True, kw_only=True)
class Task:
    """One model to see to.

    Attributes:
        job: what to do.
        folder: of the pipeline file; the worker goes there.
        recorded: what the lock has of it; None for nothing.
        force: do everything anew.
    """

    job: ModelJob
    folder: Path
    recorded: LockEntry | None
    force: bool


@dataclass(frozen=True)
class Step:
    """Something begins.

    Attributes:
        label: what, as 'calibrating'.
        total: of samples; None if unknown, or not of samples.
    """

    label: str
    total: int | None = None


@dataclass(frozen=True)
class Finished:
    """A model that was seen to.

    Attributes:
        entry: for the lock.
        report: the comparison, or what the lock has of it.
        is_changed: whether anything was done.
    """

    entry: LockEntry
    report: ComparisonReport
    is_changed: bool


@dataclass(frozen=True)
class Broken:
    """A model that could not be.

    Attributes:
        message: one line.
        exit_code: of the command for one model.
    """

    message: str
    exit_code: int


Message = Step | Finished | Broken
