"""The search for the cheapest blocks in float or 16 bits with which a result is good enough.

How much each block adds to the error is first estimated, with that block alone in integers. What is
chosen by the estimate is then written and measured on samples held back, and only that counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from onnxq.algorithms.blocks import Block, Costs, count_elements, find_blocks
from onnxq.algorithms.layers import find_layers
from onnxq.algorithms.mixes import Mixable
from onnxq.algorithms.mixing import BlockFacts, Width, choose_widths
from onnxq.algorithms.recipe import Recipe
from onnxq.algorithms.rounding import correct_only
from onnxq.errors import BudgetError, ExecutionError, UnsupportedModelError
from onnxq.pipelines.budget import Budget, TradeOff
from onnxq.pipelines.stages import BIAS_CORRECTION
from onnxq.pipelines.trials import Score, Trials
from onnxq.pipelines.workshop import Workshop

SENSITIVITY_SAMPLES = 8
MOST_TRIES = 8
"""Choices that are written and measured."""

MOST_STEPS = 100
"""Of the search; choices that were measured before cost next to nothing."""

TINY = 1e-30
CORRECT = {BIAS_CORRECTION: correct_only}


def meet_budget(
    budget: Budget, workshop: Workshop, recipe: Recipe, score: Score
) -> tuple[Recipe, tuple[TradeOff, ...]]:
    """Keep as little as possible in float, or in 16 bits where the target has them.

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
        self._narrow = Mixable(recipe, self._blocks)
        self._wide: Mixable | None = None
        target = recipe.planner.target
        self._costs = Costs(elements, target.crossing_multiplications, target.wide_gain)
        self._full_gain = max(1.0, self._costs.count_saved(recipe.plan))
        limit_s = math.inf if budget.time_limit_s is None else budget.time_limit_s
        self._deadline = time.monotonic() + limit_s
        self._best: tuple[float, Recipe] | None = None
        self.curve = [self._describe(self._in_integers, score)]

    @property
    def _in_integers(self) -> tuple[Width, ...]:
        return (Width.INTEGER,) * len(self._blocks)

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
        is_met: dict[tuple[Width, ...], bool] = {self._in_integers: False}
        for _ in range(MOST_STEPS):
            if time.monotonic() > self._deadline or failing < 1.1 * meeting:
                break
            best = choose_widths(facts, allowed)
            chosen = self._leave_least(facts) if best is None else best
            if chosen not in is_met:
                if len(is_met) > MOST_TRIES:
                    break
                score = self._try(chosen)
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

    def _leave_least(self, facts: Sequence[BlockFacts]) -> tuple[Width, ...]:
        """All blocks in float but the one that saves the most for its error."""

        def worth(choice: tuple[int, Width]) -> float:
            one, width = facts[choice[0]], choice[1]
            saved = one.find_saved(width) - one.entering - one.leaving
            return saved / max(one.find_noise(width), TINY)

        choices = [(at, Width.INTEGER) for at in range(len(facts))]
        choices += [(at, Width.WIDE) for at, one in enumerate(facts) if one.can_widen]
        stays, width = max(choices, key=worth)
        return tuple(width if at == stays else Width.FLOAT for at in range(len(facts)))

    def _choose_next(self, failing: float, meeting: float, factor: float) -> float:
        if meeting:
            return math.sqrt(failing * meeting)
        return min(0.7 * failing, self._budget.allowed_noise / factor)

    def _find_facts(self) -> list[BlockFacts]:
        """Of all blocks, or of the first ones where time is up."""
        noises = self._estimate_noises()
        if len(noises) == len(self._blocks):
            self._wide = self._prepare_wide()
        wide_noises = self._estimate_wide_noises(noises)
        facts = []
        for block, noise in noises.items():
            saved, entering, leaving = self._costs.describe(self._recipe.plan, block)
            own = wide_noises.get(block, math.inf), self._costs.count_wide(saved)
            facts.append(BlockFacts(noise, saved, entering, leaving, *own))
        return facts

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
        mixable = Mixable(corrected, self._blocks)
        noises = {}
        for block in workshop.progress("sensitivities")(self._blocks, len(self._blocks)):
            if time.monotonic() > self._deadline:
                break
            alone = mixable.mix(
                [Width.INTEGER if one is block else Width.FLOAT for one in self._blocks]
            )
            noises[block] = _noise(self._sensitivities.measure({"alone": alone}, "")["alone"])
        return noises

    @property
    def _sensitivities(self) -> Trials:
        """Trials on a few of the samples to learn from."""
        workshop = self._workshop
        return replace(workshop.trials, evaluation=workshop.part, limit=SENSITIVITY_SAMPLES)

    def _prepare_wide(self) -> Mixable | None:
        """The same blocks where they can have 16 bits; None where there are none."""
        planner, workshop = self._recipe.planner, self._workshop
        is_open = any(self._narrow.can_widen(block) for block in self._blocks)
        if not is_open or not planner.options.can_widen(planner.target):
            return None
        try:
            extremes = replace(workshop, method="minmax").observe(planner).ranges
            return self._narrow.follow(extremes, workshop.trials.file.path)
        except (ExecutionError, UnsupportedModelError):
            return None

    def _estimate_wide_noises(self, noises: Mapping[Block, float]) -> dict[Block, float]:
        """Of each block that can have 16 bits.

        They are measured together: beside one alone the others would be stored as fp16, which adds
        more. It is so little that it hardly matters how it is shared out: as in 8 bits.
        """
        if self._wide is None:
            return {}
        own = {block: noises[block] for block in self._blocks if self._narrow.can_widen(block)}
        start = replace(self._wide, recipe=replace(self._wide.recipe, biases={}))
        together = start.mix([Width.WIDE if one in own else Width.FLOAT for one in self._blocks])
        noise = _noise(self._sensitivities.measure({"wide": together}, "")["wide"])
        total = sum(own.values())
        return {block: noise * one / max(total, TINY) for block, one in own.items()}

    def _try(self, widths: Sequence[Width]) -> Score:
        start = self._wide if Width.WIDE in widths and self._wide else self._narrow
        recipe = start.mix(widths)
        if self._recipe.biases:
            recipe = self._workshop.sweep(recipe, CORRECT, BIAS_CORRECTION)[BIAS_CORRECTION]
        score = self._workshop.trials.measure({"kept": recipe}, "checking")["kept"]
        point = self._describe(widths, score)
        self.curve.append(point)
        best_gain = 0.0 if self._best is None else self._best[0]
        if point.is_met and point.kept_gain > best_gain:
            self._best = point.kept_gain, recipe
        return score

    def _describe(self, widths: Sequence[Width], score: Score) -> TradeOff:
        kept, wide = (self._find_blocks(widths, one) for one in (Width.FLOAT, Width.WIDE))
        gain = self._costs.count_mixed(self._recipe.plan, kept, wide) / self._full_gain
        return TradeOff(
            tuple(block.name for block in kept),
            score.finite_db,
            score.agreement,
            score.accuracy_drop,
            gain,
            self._budget.is_met(score),
            tuple(block.name for block in wide),
        )

    def _find_blocks(self, widths: Sequence[Width], width: Width) -> list[Block]:
        return [block for block, own in zip(self._blocks, widths, strict=True) if own is width]

    def _explain_failure(self) -> str:
        worth = [one for one in self.curve if one.kept_gain > 0.0]
        best = max(worth, key=lambda one: one.sqnr_db or -math.inf, default=self.curve[0])
        score = Score(best.sqnr_db or -math.inf, best.agreement, best.accuracy_drop)
        wide = f", {len(best.wide)} in 16 bits" if best.wide else ""
        return (
            f"{self._workshop.trials.file.path}: the budget cannot be met by anything faster than "
            f"float: {self._budget.describe(score)}, with {len(best.kept_float)} of "
            f"{len(self._blocks)} blocks in float{wide} and {100 * best.kept_gain:.0f} % of the "
            "gain kept; allow more error, or more time"
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
