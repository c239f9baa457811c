"""The search for the cheapest blocks in float with which a result is good enough.

How much each block adds to the error is first estimated, with that block alone in integers. What is
chosen by the estimate is then written and measured on samples held back, and only that counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from onnxq.algorithms.blocks import Block, Costs, count_elements, find_blocks
from onnxq.algorithms.layers import find_layers
from onnxq.algorithms.mixing import BlockFacts, choose_float_blocks
from onnxq.algorithms.recipe import Recipe
from onnxq.algorithms.rounding import correct_only
from onnxq.errors import BudgetError
from onnxq.pipelines.budget import Budget, TradeOff
from onnxq.pipelines.stages import BIAS_CORRECTION
from onnxq.pipelines.trials import Score
from onnxq.pipelines.workshop import Workshop

SENSITIVITY_SAMPLES = 8
MOST_TRIES = 8
"""Choices that are written and measured."""

MOST_STEPS = 100
"""Of the search; choices that were measured before cost next to nothing."""

TINY = 1e-30
CORRECT = {BIAS_CORRECTION: correct_only}
REASON = "kept float for accuracy"


def meet_budget(
    budget: Budget, workshop: Workshop, recipe: Recipe, score: Score
) -> tuple[Recipe, tuple[TradeOff, ...]]:
    """Keep as little as possible in float.

    Args:
        budget: to meet.
        workshop: what the search works with.
        recipe: the best one with everything in integers.
        score: of that recipe.

    Raises:
        BudgetError: no set of blocks that leaves anything in integers meets it, or nothing measures
            one of its limits.
    """
    unknown = budget.find_unmeasured(score)
    if unknown:
        raise BudgetError(f"{workshop.trials.file.path}: {unknown}")
    if budget.is_met(score):
        return recipe, ()
    search = _Search(budget, workshop, recipe, score)
    best = search.run()
    return best, tuple(search.curve)


class _Search:
    def __init__(self, budget: Budget, workshop: Workshop, recipe: Recipe, score: Score) -> None:
        self._budget = budget
        self._workshop = workshop
        self._recipe = recipe
        self._score = score
        feeds = next(iter(workshop.read_feeds(recipe)))
        elements = count_elements(recipe, feeds, workshop.folder / "elements.onnx")
        self._blocks = find_blocks(recipe.plan, elements)
        self._costs = Costs(elements, recipe.planner.target.crossing_multiplications)
        self._full_gain = max(1.0, self._costs.count_saved(recipe.plan))
        limit_s = math.inf if budget.time_limit_s is None else budget.time_limit_s
        self._deadline = time.monotonic() + limit_s
        self._best: tuple[float, Recipe] | None = None
        self.curve = [self._describe((), score)]

    def run(self) -> Recipe:
        """The recipe that meets the budget and keeps the most of the gain.

        Raises:
            BudgetError: none was found.
        """
        try:
            self._search()
        except KeyboardInterrupt:
            # What was found so far is kept.
            if self._best is None:
                raise
        if self._best is None:
            raise BudgetError(self._explain_failure())
        return self._best[1]

    def _search(self) -> None:
        """Allow less and less error until the budget is met, then more again while it is."""
        facts = self._find_facts()
        if not facts or len(facts) < len(self._blocks):
            return
        # How much larger the real error is than the estimates add up to.
        factor = _noise(self._score) / max(sum(one.noise for one in facts), TINY)
        failing, meeting = _noise(self._score) / factor, 0.0
        allowed = min(0.7 * failing, self._budget.allowed_noise / factor)
        is_met: dict[tuple[int, ...], bool] = {(): False}
        for _ in range(MOST_STEPS):
            if time.monotonic() > self._deadline or failing < 1.1 * meeting:
                break
            best = choose_float_blocks(facts, allowed)
            chosen = self._leave_least(facts) if best is None else best
            if chosen not in is_met:
                if len(is_met) > MOST_TRIES:
                    break
                score = self._try([self._blocks[at] for at in chosen])
                if self.curve[-1].kept_gain <= 0.0:
                    break
                is_met[chosen] = self._budget.is_met(score)
                if not is_met[chosen]:
                    factor = max(factor, _noise(score) / allowed)
            elif best is None and not is_met[chosen]:
                break
            if is_met[chosen]:
                meeting = allowed
            else:
                failing = allowed
            allowed = self._choose_next(failing, meeting, factor)

    def _leave_least(self, facts: Sequence[BlockFacts]) -> tuple[int, ...]:
        """All blocks but the one that saves the most for its error."""

        def worth(at: int) -> float:
            one = facts[at]
            return (one.saved - one.entering - one.leaving) / max(one.noise, TINY)

        stays = max(range(len(facts)), key=worth)
        return tuple(at for at in range(len(facts)) if at != stays)

    def _choose_next(self, failing: float, meeting: float, factor: float) -> float:
        if meeting:
            return math.sqrt(failing * meeting)
        return min(0.7 * failing, self._budget.allowed_noise / factor)

    def _find_facts(self) -> list[BlockFacts]:
        """Of all blocks, or of the first ones where time is up."""
        return [
            BlockFacts(noise, *self._costs.describe(self._recipe.plan, block))
            for block, noise in self._estimate_noises().items()
        ]

    def _estimate_noises(self) -> dict[Block, float]:
        """Share of error in the output that each block adds by itself."""
        workshop, recipe = self._workshop, self._recipe
        corrected = recipe
        if recipe.biases:
            corrected = workshop.sweep(
                replace(recipe, biases={}),
                CORRECT,
                "correcting each block",
                restarts=_find_first_layers(recipe, self._blocks),
            )[BIAS_CORRECTION]
        trials = replace(workshop.trials, evaluation=workshop.part, limit=SENSITIVITY_SAMPLES)
        noises = {}
        for block in workshop.progress("sensitivities")(self._blocks, len(self._blocks)):
            if time.monotonic() > self._deadline:
                break
            others = [one for one in self._blocks if one is not block]
            alone = _keep_float(corrected, others)
            noises[block] = _noise(trials.measure({"alone": alone}, "")["alone"])
        return noises

    def _try(self, kept: Sequence[Block]) -> Score:
        recipe = _keep_float(self._recipe, kept)
        if self._recipe.biases:
            recipe = self._workshop.sweep(recipe, CORRECT, BIAS_CORRECTION)[BIAS_CORRECTION]
        score = self._workshop.trials.measure({"kept": recipe}, "checking")["kept"]
        point = self._describe(kept, score)
        self.curve.append(point)
        best_gain = 0.0 if self._best is None else self._best[0]
        if point.is_met and point.kept_gain > best_gain:
            self._best = point.kept_gain, recipe
        return score

    def _describe(self, kept: Sequence[Block], score: Score) -> TradeOff:
        nodes = {node for block in kept for node in block.nodes}
        gain = self._costs.count_saved(self._recipe.plan, nodes) / self._full_gain
        return TradeOff(
            tuple(block.name for block in kept),
            score.finite_db,
            score.agreement,
            score.accuracy_drop,
            gain,
            self._budget.is_met(score),
        )

    def _explain_failure(self) -> str:
        worth = [one for one in self.curve if one.kept_gain > 0.0]
        best = max(worth, key=lambda one: one.sqnr_db or -math.inf, default=self.curve[0])
        score = Score(best.sqnr_db or -math.inf, best.agreement, best.accuracy_drop)
        return (
            f"{self._workshop.trials.file.path}: the budget cannot be met by anything faster than "
            f"float: {self._budget.describe(score)}, with {len(best.kept_float)} of "
            f"{len(self._blocks)} blocks in float and {100 * best.kept_gain:.0f} % of the gain "
            "kept; allow more error, or more time"
        )


def _keep_float(recipe: Recipe, blocks: Sequence[Block]) -> Recipe:
    """The same numbers for a plan with some blocks in float; biases have to be found anew."""
    kept = {node: REASON for block in blocks for node in block.nodes}
    planner = recipe.planner.keep_float(kept)
    plan = planner.plan()
    ranges = {
        member: recipe.ranges[one.value]
        for one in recipe.plan.decisions.activations
        for member in one.members
    }
    used = {one.constant.value for one in plan.changes if one.scheme is not None}
    return replace(
        recipe,
        planner=planner,
        plan=plan,
        ranges={one.value: ranges[one.value] for one in plan.decisions.activations},
        weights={
            value: weight
            for value, weight in recipe.weights.items()
            if value in used and not any(reader in kept for reader, _ in value.uses())
        },
        biases={place: bias for place, bias in recipe.biases.items() if place[0] not in kept},
    )


def _find_first_layers(recipe: Recipe, blocks: Sequence[Block]) -> set[ir.Node]:
    layers = {layer.node for layer in find_layers(recipe.plan, recipe.model.graph)}
    firsts = (next((node for node in block.nodes if node in layers), None) for block in blocks)
    return {node for node in firsts if node is not None}


def _noise(score: Score) -> float:
    """Error of the outputs, as a share of their power."""
    return (
        float(10 ** (-score.sqnr_db / 10))
        if math.isfinite(score.sqnr_db)
        else (0.0 if score.sqnr_db > 0 else 1e6)
    )
