"""The stages that make a result more accurate, as lists that can be read.

A stage proposes recipes. The best of them is kept only if it measures better than what there was,
on samples that calibration has not seen: what a search gains on its own samples is often chance.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from onnxq.algorithms.equalization import equalize, find_chains
from onnxq.algorithms.range_refinement import RangeSearch
from onnxq.algorithms.recipe import Recipe
from onnxq.algorithms.rounding import MOST_BITS_TO_SHRINK, Rounding, correct_only
from onnxq.algorithms.smoothing import observe_channels, smooth
from onnxq.algorithms.visits import Visit
from onnxq.errors import ExecutionError
from onnxq.pipelines.trials import Score
from onnxq.pipelines.workshop import Workshop

BETTER_BY_DB = 0.1
"""On a few samples held back, a smaller gain is chance."""

CLIPPING_BETTER_BY_DB = 1.0
"""As between methods for ranges. Measured on Magika: refined ranges gained 0.98 dB on samples held
back, and lost 2 dB on others."""

MOST_INPUTS = 1280
"""Layers with more, whose moments take the most time, average out more of their errors anyway."""

BIAS_CORRECTION = "bias correction"
SECOND_ORDER = "second-order rounding"

STRENGTHS: Mapping[str, float | None] = {
    "alpha 0.5": 0.5,
    "alpha 0.7": 0.7,
    "alpha 0.85": 0.85,
    "outliers only": None,
}
"""Of smoothing; the best alphas for transformers lie between (docs/static.md)."""


@dataclass(frozen=True)
class StageReport:
    """What a stage did.

    Attributes:
        name: of the stage.
        sqnr_db: of its best proposal on the samples held back; None where there is no figure.
        gain_db: over what there was before; None where there is no figure.
        kept: whether its proposal was taken.
        seconds: that it took.
        note: which proposal, or why there is none.
    """

    name: str
    sqnr_db: float | None
    gain_db: float | None
    kept: bool
    seconds: float
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return dict(vars(self))


Propose = Callable[[Workshop, Recipe], Mapping[str, Recipe]]


@dataclass(frozen=True)
class Stage:
    """One technique, or several that are tried together.

    Attributes:
        name: in reports.
        propose: recipes to try, by a name for each; raises ExecutionError where it cannot.
        are_steps: whether the recipes are steps that build on each other: each is reported by its
            own name, and kept if it is better than those before. Otherwise the best is proposed.
        clips: whether it clips what other samples may need; then more is asked of it. It has no
            steps then.
    """

    name: str
    propose: Propose
    are_steps: bool = False
    clips: bool = False

    @property
    def margin_db(self) -> float:
        """How much better than those before its recipes have to be."""
        return CLIPPING_BETTER_BY_DB if self.clips else BETTER_BY_DB

    def is_judged_late(self, recipe: Recipe) -> bool:
        """Whether what it is worth shows only once the stages behind it have run, too.

        With sixteen levels their width decides what weights can make up for: on
        `sample_models/cnn.onnx` refined ranges of 4 bits cost 0.4 dB by themselves and gain 0.8
        dB under weights that are tuned on them.
        """
        return self.clips and recipe.planner.options.activations.type.bits < 8


def _equalize(workshop: Workshop, recipe: Recipe) -> Mapping[str, Recipe]:
    chains = find_chains(recipe)
    if not chains:
        return {}
    planner = equalize(recipe, chains, workshop.folder / "equalized")
    return {"cross-layer equalization": workshop.observe(planner)}


def _refine_ranges(workshop: Workshop, recipe: Recipe) -> Mapping[str, Recipe]:
    if not recipe.ranges:
        return {}
    search = RangeSearch(recipe.plan, recipe.ranges)
    # Ranges are those of what comes in use.
    workshop.sweep(recipe, {"search": search}, "range refinement", uses_extra=False)
    if search.best == recipe.ranges:
        return {}
    return {"range refinement": replace(recipe, ranges=search.best)}


def _smooth(workshop: Workshop, recipe: Recipe) -> Mapping[str, Recipe]:
    feeds = workshop.progress("observing channels")(workshop.read_feeds(recipe), None)
    found = observe_channels(recipe, feeds, workshop.folder / "channels.onnx")
    return {
        name: smooth(recipe, found, alpha, workshop.folder / name.replace(" ", "-"))
        for name, alpha in STRENGTHS.items()
        if found
    }


def _tune_quickly(workshop: Workshop, recipe: Recipe) -> Mapping[str, Recipe]:
    rounding = Rounding(shift=_has_few_bits(recipe), sweeps=0, most_inputs=MOST_INPUTS)
    visits: dict[str, Visit] = {BIAS_CORRECTION: correct_only, SECOND_ORDER: rounding}
    return workshop.sweep(recipe, visits, "tuning layers")


def _tune_thoroughly(workshop: Workshop, recipe: Recipe) -> Mapping[str, Recipe]:
    """Weights that keep what a layer gives, and at few bits also undo errors of earlier layers.

    The latter is worth 3 dB at 4 bits. At 8 it loses up to 3 dB on other samples than those that
    it was learnt from and those held back, which are often alike (docs/decisions/0027).
    """
    visits: dict[str, Visit] = {BIAS_CORRECTION: correct_only, SECOND_ORDER: Rounding()}
    if _has_few_bits(recipe):
        visits["rounding against earlier errors"] = Rounding(shift=True)
        visits["AdaRound"] = Rounding(shift=True, adaptive=True)
    return workshop.sweep(recipe, visits, "tuning layers")


def _has_few_bits(recipe: Recipe) -> bool:
    return recipe.planner.options.weights.bits <= MOST_BITS_TO_SHRINK


EQUALIZATION = Stage("cross-layer equalization", _equalize)
RANGE_REFINEMENT = Stage("range refinement", _refine_ranges, clips=True)
SMOOTHING = Stage("smoothing", _smooth)
TUNING = Stage("tuning", _tune_quickly, are_steps=True)
THOROUGH_TUNING = Stage("tuning", _tune_thoroughly, are_steps=True)

LEVELS: Mapping[str, tuple[Stage, ...]] = {
    "fast": (),
    "balanced": (SMOOTHING, TUNING),
    "best": (EQUALIZATION, RANGE_REFINEMENT, SMOOTHING, THOROUGH_TUNING),
}
"""Stages by the level of accuracy, in their order."""


def run_stages(
    stages: tuple[Stage, ...], workshop: Workshop, recipe: Recipe, score: Score
) -> tuple[Recipe, Score, tuple[StageReport, ...]]:
    """Improve a recipe as long as it measures better.

    Args:
        stages: in their order.
        workshop: what they work with.
        recipe: to start from.
        score: of that recipe.
    """
    if not stages:
        return recipe, score, ()
    stage, *others = stages
    behind = tuple(others)
    if stage.is_judged_late(recipe):
        return _judge_late(stage, behind, workshop, recipe, score)
    recipe, score, first = _run_stage(stage, workshop, recipe, score, stage.margin_db)
    recipe, score, reports = run_stages(behind, workshop, recipe, score)
    return recipe, score, (*first, *reports)


def _judge_late(
    stage: Stage, behind: tuple[Stage, ...], workshop: Workshop, recipe: Recipe, score: Score
) -> tuple[Recipe, Score, tuple[StageReport, ...]]:
    """Run the stages behind with and without this one, and keep what is better at the end."""
    proposal, proposal_score, (report,) = _run_stage(stage, workshop, recipe, score, -math.inf)
    without = run_stages(behind, workshop, recipe, score)
    if proposal is recipe:
        return (*without[:2], (report, *without[2]))
    within = run_stages(behind, workshop, proposal, proposal_score)
    with_db, without_db = within[1].sqnr_db, without[1].sqnr_db
    note = f"judged at the end: {with_db:.2f} dB with it, {without_db:.2f} without"
    report = replace(report, kept=with_db > without_db, note=note)
    chosen = within if report.kept else without
    return (*chosen[:2], (report, *chosen[2]))


def _run_stage(
    stage: Stage, workshop: Workshop, recipe: Recipe, score: Score, margin_db: float
) -> tuple[Recipe, Score, tuple[StageReport, ...]]:
    started = time.monotonic()
    try:
        proposals = stage.propose(workshop, recipe)
        note = "nothing to do"
    except ExecutionError as error:
        proposals, note = {}, error.reason
    proposals, slower = _split_off_slower(proposals, recipe)
    if slower and not proposals:
        note = slower
    if all(one is recipe for one in proposals.values()):
        report = StageReport(stage.name, None, None, False, time.monotonic() - started, note)
        return recipe, score, (report,)
    scores = workshop.trials.measure(proposals, stage.name)
    seconds = time.monotonic() - started
    if not stage.are_steps:
        name = max(scores, key=lambda one: scores[one].sqnr_db)
        report = _compare(stage.name, scores[name], score, seconds, margin_db)
        told = ("" if name == stage.name else name, slower)
        report = replace(report, note="; ".join(filter(None, told)))
        return (*((proposals[name], scores[name]) if report.kept else (recipe, score)), (report,))
    reports = []
    for name, proposal in proposals.items():
        # They share what takes the time.
        share_s = seconds / len(proposals)
        reports.append(_compare(name, scores[name], score, share_s, margin_db))
        if reports[-1].kept:
            recipe, score = proposal, scores[name]
    if slower:
        reports.append(StageReport(stage.name, None, None, False, 0.0, slower))
    return recipe, score, tuple(reports)


def _split_off_slower(
    proposals: Mapping[str, Recipe], recipe: Recipe
) -> tuple[Mapping[str, Recipe], str]:
    """Those with as many layers in integers as before, and what is said of the others."""
    wanted = len(recipe.plan.integer_layers)
    missing = {name: wanted - len(one.plan.integer_layers) for name, one in proposals.items()}
    told = "; ".join(
        f"{name} would leave {count} more layer{'s' * (count > 1)} in float"
        for name, count in missing.items()
        if count > 0
    )
    return {name: one for name, one in proposals.items() if missing[name] <= 0}, told


def _compare(
    name: str, score: Score, before: Score, seconds: float, margin_db: float
) -> StageReport:
    gain_db = score.sqnr_db - before.sqnr_db
    return StageReport(
        name,
        score.finite_db,
        gain_db if math.isfinite(gain_db) else None,
        gain_db > margin_db,  # not where both are infinite
        seconds,
    )
