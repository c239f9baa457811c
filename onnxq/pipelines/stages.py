"""The stages that make a result more accurate, as lists that can be read.

A stage proposes recipes. The best of them is kept only if it measures better than what there was,
on samples that calibration has not seen: what a search gains on its own samples is often chance.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxq.algorithms import rounding
from onnxq.algorithms.recipe import Recipe
from onnxq.algorithms.smoothing import observe_channels, smooth
from onnxq.algorithms.sweep import Visit, sweep
from onnxq.errors import ExecutionError
from onnxq.pipelines.calibrate import Progress
from onnxq.pipelines.trials import Score, Trials
from onnxq.runtime.session import Feeds
from onnxq.runtime.signatures import read_signatures
from onnxq.samples import Part

MOST_SAMPLES = 32
"""A sweep looks at so many: what it learns of a layer hardly changes with more."""

BETTER_BY_DB = 0.1
"""On a few samples held back, a smaller gain is chance."""


MOST_INPUTS = 1280
"""Layers with more, whose moments take the most time, average out more of their errors anyway."""

ALPHAS = (0.5, 0.7, 0.85)
"""Of SmoothQuant; the best ones for transformers lie between (docs/static.md)."""


@dataclass(frozen=True)
class StageReport:
    """What a stage did.

    Attributes:
        name: of the stage.
        sqnr_db: of its best proposal on the samples held back; None where there is no figure.
        gain_db: over what there was before.
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


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What stages work with.

    Attributes:
        part: samples to learn from.
        trials: measures recipes on other samples.
        folder: for temporary files.
        progress: shows it.
    """

    part: Part
    trials: Trials
    folder: Path
    progress: Progress

    def read_feeds(self, recipe: Recipe) -> Iterable[Feeds]:
        """Some of the samples, from all over the part."""
        feeds = self.part.read(read_signatures(recipe.model))
        count = self.part.count or 0
        step = max(1, -(-count // MOST_SAMPLES))
        return islice(feeds, 0, step * MOST_SAMPLES, step)

    def sweep(
        self, recipe: Recipe, visit: Visit, label: str, *, restarts: Collection[ir.Node] = ()
    ) -> Recipe:
        """One sweep over the layers."""
        folder = self.folder / "sweep"
        folder.mkdir()
        try:
            return sweep(
                recipe,
                self.read_feeds(recipe),
                visit,
                folder=folder,
                track=self.progress(label),
                restarts=restarts,
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)


Propose = Callable[[Workshop, Recipe], Mapping[str, Recipe]]


@dataclass(frozen=True)
class Stage:
    """One technique.

    Attributes:
        name: in reports.
        propose: recipes to try, by a name for each; raises ExecutionError where it cannot.
    """

    name: str
    propose: Propose


def _propose_sweep(name: str, visit: Visit) -> Stage:
    return Stage(name, lambda workshop, recipe: {name: workshop.sweep(recipe, visit, name)})


def _propose_smoothing(workshop: Workshop, recipe: Recipe) -> Mapping[str, Recipe]:
    feeds = workshop.progress("observing channels")(workshop.read_feeds(recipe), None)
    found = observe_channels(recipe, feeds, workshop.folder / "channels.onnx")
    return {
        f"alpha {alpha}": smooth(recipe, found, alpha, workshop.folder / f"alpha-{alpha}")
        for alpha in ALPHAS
        if found
    }


def _propose_rounding(workshop: Workshop, recipe: Recipe) -> Mapping[str, Recipe]:
    """Weights that keep what a layer gives, and weights that also undo errors of earlier layers.

    The latter is worth 3 dB at 4 bits, and with few samples loses 2 dB at 8 (docs/static.md).
    """
    return {
        "of its own errors": workshop.sweep(recipe, rounding.round_weight, "rounding"),
        "of earlier errors, too": workshop.sweep(
            recipe, partial(rounding.round_weight, shift=True), "rounding"
        ),
    }


SMOOTHING = Stage("smoothing", _propose_smoothing)
BIAS_CORRECTION = _propose_sweep("bias correction", rounding.correct_only)
FAST_SECOND_ORDER = _propose_sweep(
    "second-order rounding",
    partial(rounding.round_weight, sweeps=2, most_inputs=MOST_INPUTS),
)
SECOND_ORDER = Stage("second-order rounding", _propose_rounding)

LEVELS: Mapping[str, tuple[Stage, ...]] = {
    "fast": (),
    "balanced": (SMOOTHING, BIAS_CORRECTION, FAST_SECOND_ORDER),
    "best": (SMOOTHING, BIAS_CORRECTION, SECOND_ORDER),
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
    reports = []
    for stage in stages:
        recipe, score, report = _run_stage(stage, workshop, recipe, score)
        reports.append(report)
    return recipe, score, tuple(reports)


def _run_stage(
    stage: Stage, workshop: Workshop, recipe: Recipe, score: Score
) -> tuple[Recipe, Score, StageReport]:
    started = time.monotonic()
    try:
        proposals = stage.propose(workshop, recipe)
    except ExecutionError as error:
        seconds = time.monotonic() - started
        return recipe, score, StageReport(stage.name, None, None, False, seconds, error.reason)
    if not proposals or all(one is recipe for one in proposals.values()):
        seconds = time.monotonic() - started
        return recipe, score, StageReport(stage.name, None, None, False, seconds, "nothing to do")
    scores = workshop.trials.measure(proposals, stage.name)
    name = max(scores, key=lambda one: scores[one].sqnr_db)
    gain_db = scores[name].sqnr_db - score.sqnr_db
    kept = gain_db > BETTER_BY_DB
    report = StageReport(
        stage.name,
        scores[name].finite_db,
        gain_db,
        kept,
        time.monotonic() - started,
        "" if name == stage.name else name,
    )
    return (proposals[name], scores[name], report) if kept else (recipe, score, report)
