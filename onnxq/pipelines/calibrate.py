"""Calibration as a part of a mode: observe, settle the plan, choose the best ranges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxq.calibration import (
    Range,
    SavedRanges,
    add_probes,
    choose_ranges,
    find_overloaded_nodes,
    find_unprofitable_nodes,
    load_ranges,
    observe,
    write_probed,
)
from onnxq.errors import DataError, ExecutionError
from onnxq.pipelines.range_options import RangeOptions
from onnxq.plan import ActivationPlan, CalibrationPlan, Plan
from onnxq.ranges import Observation
from onnxq.runtime.session import Session
from onnxq.samples import Part
from onnxq.targets import Target

Progress = Callable[[str], Callable[[Iterable[Any], int | None], Iterable[Any]]]
"""Shows progress over samples under a label."""

MakePlan = Callable[[Mapping[ir.Node, str]], Plan]
Ranges = Mapping[ir.Value, Range]
Facts = tuple[Ranges, Mapping[ir.Value, int]]


@dataclass(frozen=True)
class Settled:
    """A plan that can stay, and what it rests on.

    Attributes:
        plan: no tensor in it is asked to carry what one scale cannot, and every region pays.
        asked: activations that were looked at, also for what stays float after all.
        extremes: smallest and largest value of each of them that a sample reached.
        elements: of each of them, over all samples.
        refused: nodes that stay float for what was found in them.
    """

    plan: Plan
    asked: tuple[ActivationPlan, ...]
    extremes: Ranges
    elements: Mapping[ir.Value, int]
    refused: Mapping[ir.Node, str]


@dataclass(frozen=True)
class Calibration:
    """What is known of the activations of a model.

    Attributes:
        settled: the plan.
        candidates: ranges of each activation, by the method that chose them.
        samples: how many were run; 0 where the ranges come from a file.
        unreached: names of tensors that no sample reached.
    """

    settled: Settled
    candidates: Mapping[str, Ranges]
    samples: int
    unreached: tuple[str, ...] = ()

    @property
    def plan(self) -> Plan:
        """What to do with the model."""
        return self.settled.plan


def calibrate_on_samples(
    model: ir.Model,
    plan: Plan,
    make_plan: MakePlan,
    part: Part,
    options: RangeOptions,
    *,
    target: Target,
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
        target: to quantize for.
        source: file of the model, for messages.
        folder: for temporary files.
        progress: shows it.

    Raises:
        DataError: a sample is bad, or an activation is NaN.
        ExecutionError: the model does not load.
    """
    observer = _Observer(model, part, options, source, folder, progress)
    settled = _settle(plan, make_plan, target, observer.find_facts)
    activations = settled.plan.decisions.activations
    candidates = {
        method: choose_ranges(
            activations, observer.observations, method, percentile=options.percentile
        )
        for method in options.methods
    }
    return Calibration(settled, candidates, observer.samples, observer.unreached)


def calibrate_from_file(
    path: Path, model_fingerprint: str, plan: Plan, make_plan: MakePlan, target: Target
) -> Calibration:
    """Take ranges from a file.

    Args:
        path: as ``save_ranges`` wrote it.
        model_fingerprint: of the model to quantize.
        plan: as above.
        make_plan: as above.
        target: as above.

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

    def find_facts(decisions: CalibrationPlan) -> Facts:
        elements = {one.value: saved.elements.get(one.name, 0) for one in decisions.activations}
        return find(saved.extremes, decisions), elements

    settled = _settle(plan, make_plan, target, find_facts)
    ranges = find(saved.ranges, settled.plan.decisions)
    return Calibration(settled, {saved.method: ranges}, 0, saved.unreached)


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
        self.elements: dict[ir.Value, int] = {}

    def find_facts(self, decisions: CalibrationPlan) -> Facts:
        missing = [one for one in decisions.activations if one.value not in self.observations]
        if missing:
            probed = add_probes(self._model, missing, sampled=self._sampled)
            session = self._open(write_probed(probed, self._folder))
            samples = self._part.read_samples(session.inputs)
            tracked = self._progress("calibrating")(samples, self._part.count)
            found = observe(session, probed.probes, tracked)
            self.observations.update(found.by_value)
            self.elements.update(found.elements)
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
        return choose_ranges(reached, self.observations, "minmax"), self.elements

    def _open(self, path: Path) -> Session:
        try:
            return Session(path, lean=True)
        except ExecutionError as error:
            raise ExecutionError(
                f"{self._source}: onnxruntime cannot load it: {error.reason}", reason=error.reason
            ) from error


def _settle(
    plan: Plan, make_plan: MakePlan, target: Target, find_facts: Callable[[CalibrationPlan], Facts]
) -> Settled:
    """Plan again, with more nodes left float, until all can be carried by one scale and pays."""
    refused: dict[ir.Node, str] = {}
    asked: dict[ir.Value, ActivationPlan] = {}
    extremes: dict[ir.Value, Range] = {}
    while True:
        decisions = plan.decisions
        asked |= {one.value: one for one in decisions.activations}
        found_extremes, elements = find_facts(decisions)
        extremes |= found_extremes
        found = find_overloaded_nodes(decisions, found_extremes)
        found = found or find_unprofitable_nodes(decisions, elements, target)
        if not found:
            return Settled(plan, tuple(asked.values()), extremes, dict(elements), refused)
        refused.update(found)
        plan = make_plan(refused)


def describe_ranges(calibration: Calibration, method: str, *, model: str, data: str) -> SavedRanges:
    """What a file needs to give the same result again.

    Args:
        calibration: on samples.
        method: whose ranges were taken.
        model: fingerprint of the float model.
        data: fingerprint of the samples.
    """
    settled = calibration.settled
    ranges = {**settled.extremes, **calibration.candidates[method]}
    # Under other options a moved tensor may need the range that it shares now.
    names = {
        name: one.value for one in settled.asked if one.value in ranges for name in one.member_names
    }
    return SavedRanges(
        model=model,
        data=data,
        method=method,
        extremes={name: settled.extremes[value] for name, value in names.items()},
        ranges={name: ranges[value] for name, value in names.items()},
        unreached=calibration.unreached,
        elements={name: settled.elements.get(value, 0) for name, value in names.items()},
    )
