"""The choice of blocks against all choices there are."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.algorithms.mixing import STEPS, BlockFacts, choose_float_blocks

_COSTS = st.integers(0, 8).map(float)
_CHAINS = st.lists(
    st.builds(
        BlockFacts,
        # Whole steps of an allowed error of STEPS: nothing is rounded up.
        noise=st.integers(0, STEPS).map(float),
        saved=_COSTS,
        entering=_COSTS,
        leaving=_COSTS,
    ),
    min_size=1,
    max_size=6,
)


def _save(blocks: Sequence[BlockFacts], in_float: Collection[int]) -> float:
    """What is saved with some blocks in float, as the definition of the facts says."""
    saved = 0.0
    for at, one in enumerate(blocks):
        if at in in_float:
            continue
        saved += one.saved
        if at > 0 and at - 1 in in_float:
            saved -= one.entering
        if at == len(blocks) - 1 or at + 1 in in_float:
            saved -= one.leaving
        if at == 0:
            saved -= one.entering
    return saved


@given(blocks=_CHAINS)
@settings(max_examples=150, deadline=None)
def test_no_choice_saves_more(blocks: list[BlockFacts]) -> None:
    allowed = float(STEPS)
    positions = range(len(blocks))
    best = max(
        _save(blocks, kept)
        for count in range(len(blocks) + 1)
        for kept in itertools.combinations(positions, count)
        if sum(blocks[at].noise for at in positions if at not in kept) <= allowed
    )
    chosen = choose_float_blocks(blocks, allowed)
    kept = tuple(positions) if chosen is None else chosen
    assert sum(blocks[at].noise for at in positions if at not in kept) <= allowed
    assert _save(blocks, kept) == best


@given(blocks=_CHAINS, allowed=st.floats(0.1, 3.0 * STEPS))
@settings(max_examples=60, deadline=None)
def test_the_allowed_error_holds_also_where_steps_are_rounded(
    blocks: list[BlockFacts], allowed: float
) -> None:
    chosen = choose_float_blocks(blocks, allowed)
    if chosen is not None:
        left = sum(one.noise for at, one in enumerate(blocks) if at not in chosen)
        assert left <= allowed * (1 + 1e-9)


@pytest.mark.parametrize("allowed", [0.0, -1.0])
def test_without_any_error_nothing_can_stay_in_integers(allowed: float) -> None:
    assert choose_float_blocks([BlockFacts(1.0, 1.0, 0.0, 0.0)], allowed) is None
