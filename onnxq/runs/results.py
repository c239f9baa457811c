"""What became of a pipeline, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from onnxq.comparison.results import ComparisonReport, Footprint, Gate
from onnxq.errors import EXIT_DONE, EXIT_ERROR, EXIT_NO
from onnxq.runs.jobs import ModelJob
from onnxq.runs.lock import LockEntry


class State(Enum):
    """What became of one model."""

    DONE = "done"
    UP_TO_DATE = "up to date"
    GATE_FAILED = "gate failed"
    DIFFERS = "differs from the lock"
    REFUSED = "not quantized"
    BROKEN = "broke"


EXIT_CODES = {
    State.DONE: EXIT_DONE,
    State.UP_TO_DATE: EXIT_DONE,
    State.GATE_FAILED: EXIT_NO,
    State.DIFFERS: EXIT_NO,
    State.REFUSED: EXIT_NO,
    State.BROKEN: EXIT_ERROR,
}


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """What became of one model.

    Attributes:
        job: what was to be done.
        state: in a word.
        is_changed: whether it was quantized or compared just now.
        entry: what the lock would have of it; None where it broke.
        report: the comparison; None where it broke.
        differences: from the lock, where it is checked.
        error: one line; empty where it did not break.
    """

    job: ModelJob
    state: State
    is_changed: bool = False
    entry: LockEntry | None = None
    report: ComparisonReport | None = None
    differences: tuple[str, ...] = ()
    error: str = ""

    @property
    def exit_code(self) -> int:
        """As if it was the only one."""
        return EXIT_CODES[self.state]

    @property
    def failed_gates(self) -> tuple[Gate, ...]:
        """Limits that are not met."""
        return () if self.report is None else tuple(g for g in self.report.gates if not g.is_met)

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for each thing that is wrong."""
        gates = tuple(describe_gate(gate) for gate in self.failed_gates)
        return (*((self.error,) if self.error else ()), *gates, *self.differences)

    def describe(self) -> str:
        """One line on everything."""
        numbers = None if self.entry is None else self.entry.numbers
        told = [self.state.value]
        if numbers is not None:
            ratio = numbers.float_size_bytes / max(1, numbers.size_bytes)
            told[0] += f", {ratio:.2f}x smaller"
            if numbers.worst_sqnr_db is not None:
                told[0] += f", {numbers.worst_sqnr_db:.1f} dB"
        return "; ".join((*told, *self.problems))

    def make_report(self) -> ComparisonReport:
        """A report even of a model that broke, with all that is wrong as gates that are not met."""
        report = self.report or ComparisonReport(
            float_path=self.job.source,
            quantized_path=self.job.output,
            data="not run",
            samples=0,
            outputs=(),
            float_footprint=Footprint(size_bytes=0),
            quantized_footprint=Footprint(size_bytes=0),
        )
        broken = ((self.state.value, self.error),) if self.error else ()
        told = (*broken, *(("locked", difference) for difference in self.differences))
        extra = tuple(
            Gate(name=name, limit=0.0, reached=None, unit="", is_met=False, detail=detail)
            for name, detail in told
        )
        return replace(report, gates=(*report.gates, *extra))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "name": self.job.name,
            "mode": self.job.mode,
            "source": self.job.source.as_posix(),
            "output": self.job.output.as_posix(),
            "state": self.state.value,
            "changed": self.is_changed,
            "error": self.error or None,
            "differences": list(self.differences),
        } | ({} if self.entry is None else self.entry.to_json())


@dataclass(frozen=True)
class PipelineResult:
    """What became of all.

    Attributes:
        path: of the pipeline file.
        models: in its order.
        lock_error: why the lock could not be written; empty if it was.
    """

    path: Path
    models: tuple[ModelResult, ...]
    lock_error: str = ""

    @property
    def exit_code(self) -> int:
        """The worst of all."""
        own = EXIT_ERROR if self.lock_error else EXIT_DONE
        return max((own, *(one.exit_code for one in self.models)))

    @property
    def reports(self) -> tuple[ComparisonReport, ...]:
        """One for each model."""
        return tuple(one.make_report() for one in self.models)

    def to_json(self) -> dict[str, Any]:
        """Plain data of everything; the fields are documented in docs/schema.md."""
        return {
            "schema_version": 1,
            "pipeline": str(self.path),
            "exit_code": self.exit_code,
            "lock_error": self.lock_error or None,
            "models": [one.to_json() for one in self.models],
        }


def describe_gate(gate: Gate) -> str:
    """One line on a limit that is not met."""
    unit = f" {gate.unit}" if gate.unit else ""
    limit = f"{gate.name} {gate.limit:g}{unit}"
    if gate.reached is None:
        return f"{limit}: not measured: {gate.detail}"
    return f"{limit}: reached {gate.reached:.4g}{unit}" + (f" ({gate.detail})" * bool(gate.detail))
