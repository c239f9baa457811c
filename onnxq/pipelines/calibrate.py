"""Calibration as a part of a mode: observe, settle the plan, choose the best ranges."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxq.calibration import (
    Range,
    add_probes,
    choose_ranges,
    find_overloaded_nodes,
    load_ranges,
    observe,
    write_probed,
)
from onnxq.errors import DataError, ExecutionError, VerificationError
from onnxq.plan import CalibrationPlan, Plan
from onnxq.ranges import DEFAULT_PERCENTILE, Observation, check_percentile, find_method
from onnxq.runtime.session import Session
from onnxq.samples import Part
from onnxq.verification import Evaluation
from onnxq.verification.comparison import Comparison

AUTO = "auto"
AUTO_METHODS = ("minmax", "percentile", "mse")
"""Entropy is not among them: it is the worst on most real models (docs/static.md)."""

BETTER_BY_DB = 0.25
"""Of two methods that are this close on a few samples held back, either may be the better one; then
the earlier of ``AUTO_METHODS`` stays."""

Progress = Callable[[str], Callable[[Iterable[Any], int | None], Iterable[Any]]]
"""Shows progress over samples under a label."""

MakePlan = Callable[[Mapping[ir.Node, str]], Plan]
Ranges = Mapping[ir.Value, Range]


@dataclass(frozen=True, kw_only=True)
class RangeOptions:
    """How ranges are chosen.

    Attributes:
        method: a key of ``METHODS``, or 'auto'.
        percentile: for the method of that name, in percent.

    Raises:
        UsageError: there is no such method, or the percentile is out of range.
    """

    method: str = AUTO
    percentile: float = DEFAULT_PERCENTILE

    def __post_init__(self) -> None:
        check_percentile(self.percentile)
        if self.method != AUTO:
            find_method(self.method, percentile=self.percentile)

    @property
    def methods(self) -> tuple[str, ...]:
        """Those to try."""
        return AUTO_METHODS if self.method == AUTO else (self.method,)


@dataclass(frozen=True, kw_only=True)
class RangeFiles:
    """Files that ranges are read from or written to; None for none."""

    load: Path | None = None
    save: Path | None = None


@dataclass(frozen=True)
class Calibration:
    """What is known of the activations of a model.

    Attributes:
        plan: settled: no tensor in it is asked to carry what one scale cannot.
        extremes: smallest and largest value of each activation.
        candidates: ranges of each activation, by the method that chose them.
        samples: how many were run; 0 where the ranges come from a file.
        unreached: names of tensors that no sample reached.
    """

    plan: Plan
    extremes: Ranges
    candidates: Mapping[str, Ranges]
    samples: int
    unreached: tuple[str, ...] = ()


def calibrate_on_samples(
    model: ir.Model,
    plan: Plan,
    make_plan: MakePlan,
    part: Part,
    options: RangeOptions,
    *,
    source: Path,
    folder: Path,
    progress: Progress,
) -> Calibration:
    """Observe what a plan asks for, and choose ranges.

    Args:
        model: the float model, simplified.
        plan: made for it.
        make_plan: the plan with some nodes left float, each with the reason.
        part: the samples to run.
        options: the methods.
        source: file of the model, for messages.
        folder: for temporary files.
        progress: shows it.

    Raises:
        DataError: a sample is bad, or an activation is NaN.
        ExecutionError: the model does not load.
    """
    observer = _Observer(model, part, options, source, folder, progress)
    plan, extremes = _settle(plan, make_plan, observer.find_extremes)
    activations = _decisions(plan).activations
    candidates = {
        method: choose_ranges(
            activations, observer.observations, method, percentile=options.percentile
        )
        for method in options.methods
    }
    return Calibration(plan, extremes, candidates, observer.samples, observer.unreached)


def calibrate_from_file(
    path: Path, model_fingerprint: str, plan: Plan, make_plan: MakePlan
) -> Calibration:
    """Take ranges from a file.

    Args:
        path: as ``save_ranges`` wrote it.
        model_fingerprint: of the model to quantize.
        plan: as above.
        make_plan: as above.

    Raises:
        DataError: it is no such file, or was saved for another model or other options.
    """
    saved = load_ranges(path)
    if saved.model != model_fingerprint:
        raise DataError(f"{path}: was saved for another model; calibrate again")

    def find(known: Mapping[str, Range], decisions: CalibrationPlan) -> Ranges:
        found = {one.value: known[one.name] for one in decisions.activations if one.name in known}
        for one in decisions.activations:
            if one.value not in found and one.name not in saved.unreached:
                raise DataError(f"{path}: has no range of tensor '{one.name}'; calibrate again")
        return found

    plan, extremes = _settle(plan, make_plan, partial(find, saved.extremes))
    ranges = find(saved.ranges, _decisions(plan))
    return Calibration(plan, extremes, {saved.method: ranges}, 0, saved.unreached)


class _Observer:
    """Runs the float model for the activations that were not observed yet."""

    def __init__(
        self,
        model: ir.Model,
        part: Part,
        options: RangeOptions,
        source: Path,
        folder: Path,
        progress: Progress,
    ) -> None:
        self._model = model
        self._part = part
        self._sampled = options.methods != ("minmax",)
        self._source = source
        self._folder = folder
        self._progress = progress
        self.observations: dict[ir.Value, Observation] = {}
        self.samples = 0
        self.unreached: tuple[str, ...] = ()

    def find_extremes(self, decisions: CalibrationPlan) -> Ranges:
        missing = [one for one in decisions.activations if one.value not in self.observations]
        if missing:
            probed = add_probes(self._model, missing, sampled=self._sampled)
            session = self._open(write_probed(probed, self._folder))
            samples = self._part.read_samples(session.inputs)
            tracked = self._progress("calibrating")(samples, self._part.count)
            found = observe(session, probed.probes, tracked)
            self.observations.update(found.by_value)
            self.samples = found.samples
        empty = {value for value, one in self.observations.items() if one.is_empty}
        self.unreached = tuple(
            dict.fromkeys(
                (
                    *self.unreached,
                    *(one.name for one in decisions.activations if one.value in empty),
                )
            )
        )
        reached = [one for one in decisions.activations if one.value not in empty]
        return choose_ranges(reached, self.observations, "minmax")

    def _open(self, path: Path) -> Session:
        try:
            return Session(path, lean=True)
        except ExecutionError as error:
            raise ExecutionError(
                f"{self._source}: onnxruntime cannot load it: {error.reason}", reason=error.reason
            ) from error


def _settle(
    plan: Plan, make_plan: MakePlan, find_extremes: Callable[[CalibrationPlan], Ranges]
) -> tuple[Plan, Ranges]:
    """Plan again, with more nodes left float, until every tensor can be carried by one scale."""
    refused: dict[ir.Node, str] = {}
    while True:
        extremes = find_extremes(_decisions(plan))
        overloaded = find_overloaded_nodes(_decisions(plan), extremes)
        if not overloaded:
            return plan, extremes
        refused.update(overloaded)
        plan = make_plan(refused)


def _decisions(plan: Plan) -> CalibrationPlan:
    return plan.calibration or CalibrationPlan()


def choose_method(
    methods: tuple[str, ...],
    write: Callable[[str], Path],
    reference: Path,
    evaluation: Evaluation,
    progress: Progress,
) -> tuple[str, tuple[tuple[str, float | None], ...]]:
    """Try methods on samples and keep the one that measures best.

    Args:
        methods: to try, the preferred one first.
        write: writes the quantized model with the ranges of a method.
        reference: the float model.
        evaluation: the samples.
        progress: shows it.

    Returns:
        The method, and the SQNR in dB of each: None where the model failed.
    """
    session = Session(reference, lean=True)
    comparisons = {}
    for method in methods:
        try:
            comparisons[method] = Comparison(session, Session(write(method), lean=True))
        except ExecutionError:
            continue
    found: dict[str, float | None] = dict.fromkeys(methods)
    for feeds in progress("choosing ranges")(evaluation.read(session.inputs), evaluation.count):
        expected = session.run(feeds)
        for method, comparison in list(comparisons.items()):
            try:
                comparison.add(feeds, expected)
            except VerificationError:
                del comparisons[method]
    for method, comparison in comparisons.items():
        found[method] = comparison.mean_sqnr_db
    best = methods[0]
    for method in methods[1:]:
        if _value(found[method]) > _value(found[best]) + BETTER_BY_DB:
            best = method
    finite = {method: _finite(sqnr_db) for method, sqnr_db in found.items()}
    return best, tuple(finite.items())


def _value(sqnr_db: float | None) -> float:
    return -math.inf if sqnr_db is None else sqnr_db


def _finite(sqnr_db: float | None) -> float | None:
    return sqnr_db if sqnr_db is not None and math.isfinite(sqnr_db) else None
