"""The numbers of a comparison, as the lock keeps them: enough to check any gate again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnxq.comparison.gates import check_gates
from onnxq.comparison.results import ComparisonReport, Footprint, Latency, TaskMetric
from onnxq.pipelines import QuantizationResult
from onnxq.verification.comparison import OutputComparison

FROM_LOCK = "the numbers are those of an earlier run: nothing has changed since"


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What was measured.

    Attributes:
        data: what on.
        samples: how many.
        float_size_bytes: of the float model.
        size_bytes: of the quantized model.
        outputs: accuracy of each output.
        metrics: task metrics.
        latency: None if not measured.
    """

    data: str
    samples: int
    float_size_bytes: int
    size_bytes: int
    outputs: tuple[OutputComparison, ...]
    metrics: tuple[TaskMetric, ...] = ()
    latency: Latency | None = None

    @classmethod
    def of_report(cls, report: ComparisonReport) -> Numbers:
        """Those of a comparison."""
        return cls(
            data=report.data,
            samples=report.samples,
            float_size_bytes=report.float_footprint.size_bytes,
            size_bytes=report.quantized_footprint.size_bytes,
            outputs=report.outputs,
            metrics=report.metrics,
            latency=report.latency,
        )

    @classmethod
    def of_verification(cls, result: QuantizationResult) -> Numbers:
        """Those of the verification of a mode."""
        found = result.verification
        return cls(
            data="" if found is None else found.data,
            samples=0 if found is None else found.samples,
            float_size_bytes=result.float_size_bytes,
            size_bytes=result.size_bytes or 0,
            outputs=() if found is None else found.outputs,
        )

    @property
    def worst_sqnr_db(self) -> float | None:
        """Of all outputs; None if none is of floats."""
        return min((one.sqnr_db for one in self.outputs if one.sqnr_db is not None), default=None)

    def recall(self, source: Path, output: Path, limits: Mapping[str, float]) -> ComparisonReport:
        """A report with these numbers and new limits.

        Raises:
            UsageError: a limit is no limit.
        """
        report = ComparisonReport(
            float_path=source,
            quantized_path=output,
            data=self.data,
            samples=self.samples,
            outputs=self.outputs,
            float_footprint=Footprint(size_bytes=self.float_size_bytes),
            quantized_footprint=Footprint(size_bytes=self.size_bytes),
            metrics=self.metrics,
            latency=self.latency,
            notes=(FROM_LOCK,),
        )
        return replace(report, gates=check_gates(report, limits))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "data": self.data,
            "samples": self.samples,
            "float_size_bytes": self.float_size_bytes,
            "size_bytes": self.size_bytes,
            "outputs": [_make_finite(one.to_json()) for one in self.outputs],
            "metrics": [_make_finite(one.to_json()) for one in self.metrics],
            "latency": None if self.latency is None else _make_finite(self.latency.to_json()),
        }


def parse_numbers(content: Mapping[str, Any]) -> Numbers:
    """The numbers in plain data.

    Raises:
        KeyError, TypeError, ValueError, OverflowError, AttributeError: they are none.
    """
    latency = content["latency"]
    return Numbers(
        data=str(content["data"]),
        samples=int(content["samples"]),
        float_size_bytes=int(content["float_size_bytes"]),
        size_bytes=int(content["size_bytes"]),
        outputs=tuple(_parse_output(one) for one in content["outputs"]),
        metrics=tuple(
            TaskMetric(
                name=str(one["name"]),
                float_value=float(one["float_value"]),
                quantized_value=float(one["quantized_value"]),
                samples=int(one["samples"]),
                is_share=bool(one["is_share"]),
            )
            for one in content["metrics"]
        ),
        latency=None if latency is None else _parse_latency(latency),
    )


def _parse_output(one: Mapping[str, Any]) -> OutputComparison:
    sqnr_db, equal = parse_optional(one["sqnr_db"]), parse_optional(one["equal"])
    if sqnr_db is None and equal is None and one["identical"]:
        sqnr_db = math.inf
    return OutputComparison(
        name=str(one["name"]),
        sqnr_db=sqnr_db,
        cosine=parse_optional(one["cosine"]),
        max_abs_error=parse_optional(one["max_abs_error"]),
        equal=equal,
        compared=int(one["compared"]),
        agreement=parse_optional(one["agreement"]),
    )


def _parse_latency(one: Mapping[str, Any]) -> Latency:
    float_low, float_high = map(float, one["float_spread_ms"])
    low, high = map(float, one["quantized_spread_ms"])
    return Latency(
        threads=int(one["threads"]),
        rounds=int(one["rounds"]),
        samples=int(one["samples"]),
        float_ms=float(one["float_ms"]),
        quantized_ms=float(one["quantized_ms"]),
        float_spread_ms=(float_low, float_high),
        quantized_spread_ms=(low, high),
    )


def parse_optional(value: Any) -> float | None:
    """A number, or None.

    Raises:
        TypeError, ValueError, OverflowError: it is neither.
    """
    return None if value is None else float(value)


def _make_finite(data: Mapping[str, Any]) -> dict[str, Any]:
    """``data`` with null for numbers that JSON does not have."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in data.items()
    }
