"""Mixed precision to a budget: the cheapest blocks in float with which a result is good enough.

How much each block adds to the error is first estimated, with that block alone in integers. What is
chosen by the estimate is then written and measured on samples held back, and only that counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

from onnxq.algorithms.blocks import Block, Costs, count_elements, find_blocks
from onnxq.algorithms.layers import find_layers
from onnxq.algorithms.mixing import BlockFacts, choose_float_blocks
from onnxq.algorithms.recipe import Recipe
from onnxq.algorithms.rounding import correct_only
from onnxq.errors import BudgetError, UsageError
from onnxq.pipelines.stages import Workshop
from onnxq.pipelines.trials import Score

SENSITIVITY_SAMPLES = 8
MOST_TRIES = 8
TINY = 1e-30
REASON = "kept float for accuracy"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a result has to reach on the samples held back; None for no such limit.

    Attributes:
        min_sqnr_db: of all float outputs together, probabilities as logits.
        min_agreement: share of places with the same largest score, 0 to 1.
        time_limit_s: after which the search ends; None for never.
    """

    min_sqnr_db: float | None = None
    min_agreement: float | None = None
    time_limit_s: float | None = None

    @classmethod
    def parse(
        cls,
        *,
        min_sqnr_db: float | None = None,
        min_agreement_percent: float | None = None,
        time_limit_s: float | None = None,
    ) -> Budget:
        """A budget as users write it.

        Raises:
            UsageError: a limit has no meaning.
        """
        if min_agreement_percent is not None and not 0.0 < min_agreement_percent <= 100.0:
            raise UsageError(
                f"--min-agreement {min_agreement_percent:g} is no share in percent: 0 to 100"
            )
        if min_sqnr_db is not None and not math.isfinite(min_sqnr_db):
            raise UsageError(f"--min-sqnr {min_sqnr_db} is no number of dB")
        if time_limit_s is not None and not time_limit_s > 0.0:
            raise UsageError(f"--time-limit {time_limit_s:g} is no time in seconds: more than 0")
        share = None if min_agreement_percent is None else min_agreement_percent / 100.0
        return cls(min_sqnr_db=min_sqnr_db, min_agreement=share, time_limit_s=time_limit_s)

    @property
    def is_set(self) -> bool:
        """Whether there is a limit to reach."""
        return self.min_sqnr_db is not None or self.min_agreement is not None

    def is_met(self, score: Score) -> bool:
        """Whether a score is good enough."""
        if self.min_sqnr_db is not None and score.sqnr_db < self.min_sqnr_db:
            return False
        if self.min_agreement is None:
            return True
        return score.agreement is not None and score.agreement >= self.min_agreement

    @property
    def allowed_noise(self) -> float:
        """Error of the outputs as a share of their power; infinite where SQNR is no limit."""
        return math.inf if self.min_sqnr_db is None else float(10 ** (-self.min_sqnr_db / 10))

    def describe(self, score: Score) -> str:
        """What was reached, beside what is asked."""
        parts = []
        if self.min_sqnr_db is not None:
            parts.append(f"{score.sqnr_db:.2f} dB of {self.min_sqnr_db:g} dB")
        if self.min_agreement is not None:
            reached = "no scores" if score.agreement is None else f"{100 * score.agreement:.2f} %"
            parts.append(f"agreement {reached} of {100 * self.min_agreement:g} %")
        return ", ".join(parts)


@dataclass(frozen=True)
class TradeOff:
    """One point of the curve.

    Attributes:
        kept_float: names of the blocks in float.
        sqnr_db: on the samples held back; None where the model failed.
        agreement: likewise; None without scores.
        kept_gain: share of what integers save that is kept, as the target estimates it.
        is_met: whether the budget is.
    """

    kept_float: tuple[str, ...]
    sqnr_db: float | None
    agreement: float | None
    kept_gain: float
    is_met: bool

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**vars(self), "kept_float": list(self.kept_float)}


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
        BudgetError: no set of blocks that leaves anything in integers meets it.
    """
    search = _Search(budget, workshop, recipe, score)
    if budget.is_met(score):
        return recipe, ()
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
        self.curve = [self._describe((), score)]

    def run(self) -> Recipe:
        """Less and less error is allowed until the budget is met, then more again while it is."""
        facts = self._find_facts()
        # How much larger the real error is than the estimates add up to.
        factor = _noise(self._score) / max(sum(one.noise for one in facts), TINY)
        failing, meeting = _noise(self._score) / factor, 0.0
        allowed = min(0.7 * failing, self._budget.allowed_noise / factor)
        tried: set[tuple[int, ...]] = {()}
        found: tuple[float, Recipe] | None = None
        for _ in range(MOST_TRIES):
            if time.monotonic() > self._deadline or failing < 1.1 * meeting:
                break
            chosen = choose_float_blocks(facts, allowed)
            if chosen is None:
                break
            if chosen not in tried:
                tried.add(chosen)
                recipe, score, gain = self._try([self._blocks[at] for at in chosen])
                if gain <= 0.0:
                    break
                if self._budget.is_met(score):
                    meeting = allowed
                    if found is None or gain > found[0]:
                        found = gain, recipe
                else:
                    failing = allowed
                    factor = max(factor, _noise(score) / allowed)
            else:
                failing = allowed
            allowed = self._choose_next(failing, meeting, factor)
        if found is None:
            raise BudgetError(self._explain_failure())
        return found[1]

    def _choose_next(self, failing: float, meeting: float, factor: float) -> float:
        if meeting:
            return math.sqrt(failing * meeting)
        return min(0.7 * failing, self._budget.allowed_noise / factor)

    def _find_facts(self) -> list[BlockFacts]:
        noises = self._estimate_noises()
        return [
            BlockFacts(noises[block], *self._costs.describe(self._recipe.plan, block))
            for block in self._blocks
        ]

    def _estimate_noises(self) -> dict[Block, float]:
        """Share of error in the output that each block adds by itself."""
        workshop, recipe = self._workshop, self._recipe
        corrected = recipe
        if recipe.biases:
            corrected = workshop.sweep(
                replace(recipe, biases={}),
                correct_only,
                "correcting each block",
                restarts=_find_first_layers(recipe, self._blocks),
            )
        trials = replace(workshop.trials, evaluation=workshop.part, limit=SENSITIVITY_SAMPLES)
        noises = {}
        for block in workshop.progress("sensitivities")(self._blocks, len(self._blocks)):
            others = [one for one in self._blocks if one is not block]
            alone = _keep_float(corrected, others)
            noises[block] = _noise(trials.measure({"alone": alone}, "")["alone"])
        return noises

    def _try(self, kept: Sequence[Block]) -> tuple[Recipe, Score, float]:
        recipe = _keep_float(self._recipe, kept)
        if self._recipe.biases:
            recipe = self._workshop.sweep(recipe, correct_only, "bias correction")
        score = self._workshop.trials.measure({"kept": recipe}, "checking")["kept"]
        self.curve.append(self._describe(kept, score))
        return recipe, score, self.curve[-1].kept_gain

    def _describe(self, kept: Sequence[Block], score: Score) -> TradeOff:
        nodes = {node for block in kept for node in block.nodes}
        gain = self._costs.count_saved(self._recipe.plan, nodes) / self._full_gain
        return TradeOff(
            tuple(block.name for block in kept),
            score.finite_db,
            score.agreement,
            gain,
            self._budget.is_met(score),
        )

    def _explain_failure(self) -> str:
        worth = [one for one in self.curve if one.kept_gain > 0.0]
        best = max(worth, key=lambda one: one.sqnr_db or -math.inf)
        score = Score(best.sqnr_db or -math.inf, best.agreement)
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
