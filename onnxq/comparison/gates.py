"""Limits that a quantized model has to keep, and whether it does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from onnxq.comparison.results import ComparisonReport, Gate
from onnxq.errors import UsageError

ROUNDING = 1e-9
"""Share by which a limit may be missed: neither 48.7 % nor 487 of 1000 is exact in binary."""

Measurement = tuple[float | None, str]
"""What was reached, and which output or metric that was."""


@dataclass(frozen=True, kw_only=True)
class GateRule:
    """One kind of limit.

    Attributes:
        name: its option without dashes.
        unit: of the limit.
        is_minimum: whether more is better.
        measure: finds what was reached.
        is_share: whether limits are shares, which may be given in percent, too.
    """

    name: str
    unit: str
    is_minimum: bool
    measure: Callable[[ComparisonReport], Measurement]
    is_share: bool = False

    def check(self, report: ComparisonReport, limit: float) -> Gate:
        """The gate for a limit."""
        reached, detail = self.measure(report)
        if reached is None:
            return Gate(
                name=self.name,
                limit=limit,
                reached=None,
                unit=self.unit,
                is_met=False,
                detail=detail,
            )
        slack = ROUNDING * max(1.0, abs(limit))
        met = reached >= limit - slack if self.is_minimum else reached <= limit + slack
        return Gate(
            name=self.name, limit=limit, reached=reached, unit=self.unit, is_met=met, detail=detail
        )


def check_gates(report: ComparisonReport, limits: Mapping[str, float]) -> tuple[Gate, ...]:
    """A gate for each limit, in the order of ``GATE_RULES``.

    Args:
        report: what was measured.
        limits: by the name of their rule.

    Raises:
        UsageError: there is no such rule, or the limit is no number that it can take.
    """
    check_limits(limits)
    return tuple(
        rule.check(report, read_limit(rule, limits[name], is_share=_is_share(rule, report)))
        for name, rule in GATE_RULES.items()
        if name in limits
    )


def check_limits(limits: Mapping[str, float]) -> None:
    """Refuse limits that nothing could be measured against.

    Raises:
        UsageError: there is no such rule, or the limit is no number that it can take.
    """
    for name, limit in limits.items():
        if name not in GATE_RULES:
            raise UsageError(f"no gate is called '{name}'; known gates: {', '.join(GATE_RULES)}")
        if not math.isfinite(limit):
            raise UsageError(f"--{name} {limit}: is no limit; give a finite number")
        rule = GATE_RULES[name]
        # That of accuracy may be a value of the user's metric, which can be any number.
        read_limit(rule, limit, is_share=rule.is_share and rule.measure is not _accuracy)


def read_limit(rule: GateRule, limit: float, *, is_share: bool) -> float:
    """A limit as it is compared: shares from 0 to 1.

    Raises:
        UsageError: a share over 100 %, or negative.

    >>> read_limit(GATE_RULES["min-agreement"], 98.0, is_share=True)
    0.98
    """
    if not is_share:
        return limit
    if not 0.0 <= limit <= 100.0:
        raise UsageError(f"--{rule.name} {limit}: is no share; give 0.98 or 98")
    return limit / 100.0 if limit > 1.0 else limit


def _is_share(rule: GateRule, report: ComparisonReport) -> bool:
    """Whether a limit is a share: that of accuracy is not where the user's metric is none."""
    own_metric = rule.measure is _accuracy and any(not one.is_share for one in report.metrics[:1])
    return rule.is_share and not own_metric


def _worst_sqnr(report: ComparisonReport) -> Measurement:
    found = ((one.sqnr_db, one.name) for one in report.outputs)
    return _find_worst(found, "no output of floats was compared")


def _worst_cosine(report: ComparisonReport) -> Measurement:
    found = ((one.cosine, one.name) for one in report.outputs)
    return _find_worst(found, "no output of floats was compared")


def _worst_agreement(report: ComparisonReport) -> Measurement:
    found = ((one.agreement, one.name) for one in report.outputs)
    return _find_worst(found, "no output looks like scores")


def _find_worst(figures: Iterable[tuple[float | None, str]], nothing: str) -> Measurement:
    measured = [(figure, name) for figure, name in figures if figure is not None]
    if not measured:
        return None, nothing
    figure, name = min(measured)
    return figure, f"output '{name}'"


def _accuracy(report: ComparisonReport) -> Measurement:
    for metric in report.metrics:
        return metric.quantized_value, metric.name
    return None, "there are no labels and no --metric"


def _accuracy_drop(report: ComparisonReport) -> Measurement:
    for metric in report.metrics:
        if metric.is_share:
            return metric.drop_points, metric.name
    return None, "there are no labels"


def _speedup(report: ComparisonReport) -> Measurement:
    if report.latency is None:
        return None, "latency was not measured"
    return report.latency.speedup, _name_threads(report.latency.threads)


def _latency(report: ComparisonReport) -> Measurement:
    if report.latency is None:
        return None, "latency was not measured"
    return report.latency.quantized_ms, _name_threads(report.latency.threads)


def _name_threads(threads: int) -> str:
    return {0: "all threads", 1: "1 thread"}.get(threads, f"{threads} threads")


def _size_ratio(report: ComparisonReport) -> Measurement:
    return report.size_ratio, "quantized / float"


_RULES = (
    GateRule(
        name="min-sqnr",
        unit="dB",
        is_minimum=True,
        measure=_worst_sqnr,
    ),
    GateRule(
        name="min-cosine",
        unit="",
        is_minimum=True,
        measure=_worst_cosine,
    ),
    GateRule(
        name="min-agreement",
        unit="",
        is_minimum=True,
        measure=_worst_agreement,
        is_share=True,
    ),
    GateRule(
        name="min-accuracy",
        unit="",
        is_minimum=True,
        measure=_accuracy,
        is_share=True,
    ),
    GateRule(
        name="max-accuracy-drop",
        unit="points",
        is_minimum=False,
        measure=_accuracy_drop,
    ),
    GateRule(
        name="min-speedup",
        unit="x",
        is_minimum=True,
        measure=_speedup,
    ),
    GateRule(
        name="max-size-ratio",
        unit="",
        is_minimum=False,
        measure=_size_ratio,
    ),
    GateRule(
        name="max-latency-ms",
        unit="ms",
        is_minimum=False,
        measure=_latency,
    ),
)

GATE_RULES: Mapping[str, GateRule] = {rule.name: rule for rule in _RULES}
"""Every kind of limit by the name of its option."""
