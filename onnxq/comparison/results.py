"""What a comparison finds, as plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxq.runtime.optimized import OptimizedGraph
from onnxq.verification.comparison import OutputComparison


@dataclass(frozen=True, kw_only=True)
class TaskMetric:
    """A figure of merit of both models; higher is better.

    Attributes:
        name: 'top-1', 'top-5', or the name of the user's function.
        float_value: of the float model.
        quantized_value: of the quantized model.
        samples: that it was measured on.
        is_share: whether it is a share of the samples, from 0 to 1, so that points make sense.
    """

    name: str
    float_value: float
    quantized_value: float
    samples: int
    is_share: bool = True

    @property
    def drop_points(self) -> float:
        """How many percentage points the quantized model loses; below 0 if it gains."""
        return 100.0 * (self.float_value - self.quantized_value)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**vars(self), "drop_points": self.drop_points if self.is_share else None}


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Times of one inference, both models measured in turns in one process.

    Attributes:
        threads: for one operator.
        rounds: of measurement.
        samples: that were run in a round.
        float_ms: median of the float model, milliseconds.
        quantized_ms: median of the quantized model.
        float_spread_ms: quartiles of the float model.
        quantized_spread_ms: quartiles of the quantized model.
    """

    threads: int
    rounds: int
    samples: int
    float_ms: float
    quantized_ms: float
    float_spread_ms: tuple[float, float]
    quantized_spread_ms: tuple[float, float]

    @property
    def speedup(self) -> float:
        """How many times as fast the quantized model is: the ratio of the medians."""
        return self.float_ms / self.quantized_ms if self.quantized_ms > 0.0 else math.inf

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            **vars(self),
            "float_spread_ms": list(self.float_spread_ms),
            "quantized_spread_ms": list(self.quantized_spread_ms),
            "speedup": self.speedup,
        }


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What one model takes.

    Attributes:
        size_bytes: of its files, external data included.
        load_ms: of the first load in a new process; None if not measured.
        peak_memory_bytes: of that process while it loads and runs one sample, over what the
            process takes without a model; None if not measured.
    """

    size_bytes: int
    load_ms: float | None = None
    peak_memory_bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How the runtime runs the quantized model at one level of optimisation.

    Attributes:
        level: 'all' (what users get) or 'none'.
        graph: its nodes.
        float_layers: labels of layers with a weight that compute in float.
        outputs: float against quantized at this level.
    """

    level: str
    graph: OptimizedGraph
    float_layers: tuple[str, ...]
    outputs: tuple[OutputComparison, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "level": self.level,
            "graph": self.graph.to_json(),
            "float_layers": list(self.float_layers),
            "outputs": [output.to_json() for output in self.outputs],
        }


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """The error at the output of one layer.

    Attributes:
        node: name of the layer.
        operator: its type.
        tensor: its output, which both models have.
        added_sqnr_db: with the float tensors as inputs of the quantized layer: what it adds by
            itself; infinite where nothing is lost.
        accumulated_sqnr_db: in the quantized model: with all that came before it.
    """

    node: str
    operator: str
    tensor: str
    added_sqnr_db: float
    accumulated_sqnr_db: float

    def to_json(self) -> dict[str, Any]:
        """Plain data; infinite is null."""
        return {
            **vars(self),
            "adds_nothing": self.added_sqnr_db == math.inf,
            "added_sqnr_db": _finite(self.added_sqnr_db),
            "accumulated_sqnr_db": _finite(self.accumulated_sqnr_db),
        }


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One limit, and whether it is met.

    Attributes:
        name: its option without dashes, as 'min-sqnr'.
        limit: what was asked.
        reached: what was measured; None where there was nothing to measure.
        unit: of both: 'dB', 'x', 'ms', 'points', '%' or ''.
        is_met: whether it holds.
        detail: which output or metric decided.
    """

    name: str
    limit: float
    reached: float | None
    unit: str
    is_met: bool
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        finite = self.reached is not None and math.isfinite(self.reached)
        return {**vars(self), "reached": self.reached if finite else None}


@dataclass(frozen=True, kw_only=True)
class ComparisonReport:
    """Everything that ``onnxq compare`` finds.

    Attributes:
        float_path: of the float model.
        quantized_path: of the quantized model.
        data: where the samples came from.
        samples: how many were run.
        outputs: accuracy of each output, as users get it (full optimisation).
        metrics: task metrics.
        latency: None if not measured.
        float_footprint: of the float model.
        quantized_footprint: of the quantized model.
        executions: how the runtime runs the quantized model.
        layers: worst first; empty if not asked for.
        gates: in the order of their options.
        verdict: one line on speed, and one on each thing that a user should look at.
        notes: what a user should know besides.
    """

    float_path: Path
    quantized_path: Path
    data: str
    samples: int
    outputs: tuple[OutputComparison, ...]
    float_footprint: Footprint
    quantized_footprint: Footprint
    metrics: tuple[TaskMetric, ...] = ()
    latency: Latency | None = None
    executions: tuple[Execution, ...] = ()
    layers: tuple[LayerError, ...] = ()
    gates: tuple[Gate, ...] = ()
    verdict: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def is_passed(self) -> bool:
        """Whether every gate is met."""
        return all(gate.is_met for gate in self.gates)

    @property
    def size_ratio(self) -> float:
        """Size of the quantized model over that of the float one: below 1 is smaller."""
        return self.quantized_footprint.size_bytes / max(1, self.float_footprint.size_bytes)

    def to_json(self) -> dict[str, Any]:
        """Plain data of everything; the fields are documented in docs/schema.md."""
        return {
            "schema_version": 1,
            "float_model": str(self.float_path),
            "quantized_model": str(self.quantized_path),
            "data": self.data,
            "samples": self.samples,
            "passed": self.is_passed,
            "outputs": [one.to_json() for one in self.outputs],
            "metrics": [one.to_json() for one in self.metrics],
            "latency": None if self.latency is None else self.latency.to_json(),
            "float_footprint": self.float_footprint.to_json(),
            "quantized_footprint": self.quantized_footprint.to_json(),
            "executions": [one.to_json() for one in self.executions],
            "layers": [one.to_json() for one in self.layers],
            "gates": [one.to_json() for one in self.gates],
            "verdict": list(self.verdict),
            "notes": list(self.notes),
        }


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
