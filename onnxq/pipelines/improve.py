"""From calibrated ranges to the best recipe: the method first, then the stages of a level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnxq.algorithms.recipe import Recipe
from onnxq.errors import UsageError
from onnxq.pipelines.budget import Budget, TradeOff
from onnxq.pipelines.budget_search import meet_budget
from onnxq.pipelines.stages import LEVELS, StageReport, run_stages
from onnxq.pipelines.trials import Score, Trials
from onnxq.pipelines.workshop import Workshop
from onnxq.samples import Part, Samples, calibration_part

DEFAULT_LEVEL = "balanced"

BETTER_BY_DB = 1.0
"""Of two methods that are this close on a few samples held back, either may be the better one; then
the earlier of ``AUTO_METHODS`` stays, which clips less of what other samples may need."""


@dataclass(frozen=True)
class Improved:
    """The best recipe, and how it was found.

    Attributes:
        recipe: to write.
        method: that chose its ranges.
        tried: SQNR in dB on the samples held back of each method that was tried; None where the
            model failed.
        stages: what each stage did.
        curve: what was tried to meet a budget, everything in integers first.
    """

    recipe: Recipe
    method: str
    tried: tuple[tuple[str, float | None], ...] = ()
    stages: tuple[StageReport, ...] = ()
    curve: tuple[TradeOff, ...] = ()


def choose_level(accuracy: str | None, *, has_ranges: bool) -> str:
    """The level of accuracy.

    Args:
        accuracy: as the user asked; None for the default.
        has_ranges: whether ranges come from a file, so that nothing is to be learnt from samples.

    Raises:
        UsageError: there is no such level.
    """
    if accuracy is None:
        return "fast" if has_ranges else DEFAULT_LEVEL
    if accuracy not in LEVELS:
        raise UsageError(f"no accuracy '{accuracy}'; known levels: {', '.join(LEVELS)}")
    return accuracy


def check_measured(level: str, budget: Budget, samples: Samples | None) -> None:
    """Refuse a level or a budget that nothing can be measured for.

    Raises:
        UsageError: there are no samples.
    """
    if samples is None and (LEVELS[level] or budget.is_set):
        option = "a limit of accuracy" if budget.is_set else f"--accuracy {level}"
        raise UsageError(
            f"{option} needs samples to measure on: give --calib DIR or --reader MODULE:FUNCTION"
        )


def improve(
    recipes: Mapping[str, Recipe],
    trials: Trials | None,
    samples: Samples | None,
    level: str,
    budget: Budget,
    *,
    percentile: float,
    folder: Path,
    extra: Part | None = None,
) -> Improved:
    """Choose a method, then run the stages, then keep in float what a budget asks for.

    Args:
        recipes: by the method that chose the ranges, the preferred one first.
        trials: measures recipes; None without samples.
        samples: to learn from; None without.
        level: a key of ``LEVELS``.
        budget: that the result has to meet.
        percentile: for the method of that name, in percent.
        folder: for temporary files.
        extra: more samples to tune layers on; None for none.

    Raises:
        BudgetError: it cannot be met.
    """
    first = next(iter(recipes))
    if trials is None or samples is None:
        return Improved(recipes[first], first)
    stages = LEVELS[level] if trials.evaluation.is_held_back else ()
    calibrated = bool(recipes[first].ranges)
    if (len(recipes) == 1 or not calibrated) and not stages and not budget.is_set:
        return Improved(recipes[first], first)
    scores: Mapping[str, Score] = {}
    method = first
    if len(recipes) > 1 and calibrated:
        scores = _measure_methods(recipes, trials)
        method = _choose_method(scores)
    found = tuple((name, one.finite_db) for name, one in scores.items())
    if not stages and not budget.is_set:
        return Improved(recipes[method], method, found)
    score = trials.measure({method: recipes[method]}, "measuring")[method]
    workshop = Workshop(
        part=calibration_part(samples),
        method=method,
        percentile=percentile,
        trials=trials,
        folder=folder,
        progress=trials.progress,
        extra=extra,
    )
    recipe, score, reports = run_stages(stages, workshop, recipes[method], score)
    recipe, curve = meet_budget(budget, workshop, recipe, score)
    return Improved(recipe, method, found, reports, curve)


def _measure_methods(recipes: Mapping[str, Recipe], trials: Trials) -> Mapping[str, Score]:
    """Of the activations alone, where these can be told apart from the weights."""
    scores = trials.measure_activations(recipes, "choosing ranges")
    if all(score.finite_db is None for score in scores.values()):
        return trials.measure(recipes, "choosing ranges")
    return scores


def _choose_method(scores: Mapping[str, Score]) -> str:
    best = next(iter(scores))
    for method, score in scores.items():
        if score.sqnr_db > scores[best].sqnr_db + BETTER_BY_DB:
            best = method
    return best
