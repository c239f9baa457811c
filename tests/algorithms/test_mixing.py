"""The choice of widths against all choices there are."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.algorithms.mixing import STEPS, BlockFacts, Width, choose_widths

FLOAT, WIDE, INTEGER = Width.FLOAT, Width.WIDE, Width.INTEGER

_COSTS = st.integers(0, 8).map(float)
_NOISES = st.integers(0, STEPS).map(float)
"""Whole steps of an allowed error of STEPS: nothing is rounded up."""

_NARROW = st.builds(BlockFacts, noise=_NOISES, saved=_COSTS, entering=_COSTS, leaving=_COSTS)
_WIDE = st.builds(
    BlockFacts,
    noise=_NOISES,
    saved=_COSTS,
    entering=_COSTS,
    leaving=_COSTS,
    wide_noise=_NOISES | st.just(math.inf),
    wide_saved=_COSTS,
)
_CHAINS = st.lists(_NARROW, min_size=1, max_size=6) | st.lists(_WIDE, min_size=1, max_size=5)


def _save(blocks: Sequence[BlockFacts], widths: Sequence[Width]) -> float:
    """What is saved by a choice, as the definition of the facts says."""
    padded = (FLOAT, *widths, FLOAT)
    saved = 0.0
    for at, one in enumerate(blocks):
        before, own, behind = padded[at : at + 3]
        if own is FLOAT:
            continue
        saved += one.saved if own is INTEGER else one.wide_saved
        if before is FLOAT:
            saved -= one.entering
        elif before is not own:
            saved -= min(blocks[at - 1].leaving, one.entering)
        if behind is FLOAT:
            saved -= one.leaving
    return saved


def _sum_noises(blocks: Sequence[BlockFacts], widths: Sequence[Width]) -> float:
    return sum(
        {FLOAT: 0.0, WIDE: one.wide_noise, INTEGER: one.noise}[width]
        for one, width in zip(blocks, widths, strict=True)
    )


@given(blocks=_CHAINS)
@settings(max_examples=150, deadline=None)
def test_no_choice_saves_more(blocks: list[BlockFacts]) -> None:
    allowed = float(STEPS)
    best = max(
        _save(blocks, widths)
        for widths in itertools.product(Width, repeat=len(blocks))
        if _sum_noises(blocks, widths) <= allowed
    )
    chosen = choose_widths(blocks, allowed) or (FLOAT,) * len(blocks)
    assert _sum_noises(blocks, chosen) <= allowed
    assert _save(blocks, chosen) == best


@given(blocks=_CHAINS, allowed=st.floats(0.1, 3.0 * STEPS))
@settings(max_examples=60, deadline=None)
def test_the_allowed_error_holds_also_where_steps_are_rounded(
    blocks: list[BlockFacts], allowed: float
) -> None:
    chosen = choose_widths(blocks, allowed)
    if chosen is not None:
        assert _sum_noises(blocks, chosen) <= allowed * (1 + 1e-9)


@given(blocks=st.lists(_NARROW, min_size=1, max_size=6), allowed=st.floats(0.1, 3.0 * STEPS))
@settings(max_examples=60, deadline=None)
def test_without_16_bits_there_are_two_widths(blocks: list[BlockFacts], allowed: float) -> None:
    assert WIDE not in (choose_widths(blocks, allowed) or ())


@pytest.mark.parametrize("allowed", [0.0, -1.0])
def test_without_any_error_nothing_can_stay_in_integers(allowed: float) -> None:
    assert choose_widths([BlockFacts(1.0, 1.0, 0.0, 0.0, 0.5, 0.5)], allowed) is None


def test_of_widths_that_save_the_same_the_most_exact_is_chosen() -> None:
    same = BlockFacts(1.0, 2.0, 0.0, 0.0, wide_noise=0.5, wide_saved=2.0)
    assert choose_widths([same], 10.0) == (WIDE,)
    nothing = BlockFacts(1.0, 0.0, 0.0, 0.0, wide_noise=0.5, wide_saved=0.0)
    assert choose_widths([nothing], 10.0) is None


def test_16_bits_pay_where_their_borders_cost_less_than_they_save() -> None:
    loud = BlockFacts(9.0, 8.0, 1.0, 1.0, wide_noise=0.5, wide_saved=4.0)
    quiet = BlockFacts(1.0, 8.0, 1.0, 1.0, wide_noise=0.5, wide_saved=4.0)
    assert choose_widths([quiet, loud, quiet], 5.0) == (INTEGER, WIDE, INTEGER)
    assert choose_widths([quiet, loud, quiet], 20.0) == (INTEGER,) * 3
    little = BlockFacts(9.0, 8.0, 1.0, 1.0, wide_noise=0.5, wide_saved=1.0)
    # All in 16 bits save 9, and lose 2 where they meet floats.
    assert choose_widths([quiet, little, quiet], 5.0) == (INTEGER, WIDE, INTEGER)
    dear = BlockFacts(1.0, 8.0, 7.0, 7.0, wide_noise=0.5, wide_saved=6.0)
    alone = BlockFacts(9.0, 8.0, 7.0, 7.0, wide_noise=0.5, wide_saved=4.0)
    # Two borders inside would cost 14, and save 4 of the outer blocks.
    assert choose_widths([dear, alone, dear], 5.0) == (WIDE,) * 3
