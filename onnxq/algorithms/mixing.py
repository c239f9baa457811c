"""What each block of a chain computes in: the least loss of speed for an allowed error."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxq.numerics.affine import Array

STEPS = 400
"""Of error that are told apart; each block's is rounded up to one."""


class Width(enum.Enum):
    """What a block computes in; of those that save the same, the first one here is chosen."""

    FLOAT = "float"
    WIDE = "16 bits"
    INTEGER = "as asked for"


@dataclass(frozen=True)
class BlockFacts:
    """What is known of one block.

    Attributes:
        noise: error that it adds in integers, in any unit.
        saved: by integers inside, in any unit of time.
        entering: cost of the border where what is before it is float.
        leaving: cost of the border where what is behind it is float.
        wide_noise: error that it adds in 16 bits; infinite where it cannot have them.
        wide_saved: by 16 bits inside.
    """

    noise: float
    saved: float
    entering: float
    leaving: float
    wide_noise: float = math.inf
    wide_saved: float = 0.0

    @property
    def can_widen(self) -> bool:
        """Whether there are 16 bits for it."""
        return math.isfinite(self.wide_noise)

    def find_noise(self, width: Width) -> float:
        """The error that it adds."""
        return {Width.FLOAT: 0.0, Width.WIDE: self.wide_noise, Width.INTEGER: self.noise}[width]

    def find_saved(self, width: Width) -> float:
        """What is saved inside."""
        return {Width.FLOAT: 0.0, Width.WIDE: self.wide_saved, Width.INTEGER: self.saved}[width]


def count_border(
    before: BlockFacts | None, one: BlockFacts | None, from_width: Width, to_width: Width
) -> float:
    """What the border between two neighbours costs.

    Between 8 and 16 bits what one block gives and the other reads is rounded anew, in one pass over
    it. That takes no more than either side of it takes beside floats.

    Args:
        before: the block before it; None at the start, before which all is float.
        one: the block behind it; None at the end, likewise.
        from_width: of the block before it.
        to_width: of the block behind it.
    """
    leaving = math.inf if before is None else before.leaving
    entering = math.inf if one is None else one.entering
    if from_width is to_width:
        return 0.0
    if from_width is Width.FLOAT:
        return entering
    return leaving if to_width is Width.FLOAT else min(leaving, entering)


def choose_widths(blocks: Sequence[BlockFacts], allowed_noise: float) -> tuple[Width, ...] | None:
    """The cheapest choice, by dynamic programming over the chain.

    Args:
        blocks: in the order of the graph; integers are handed from one to the next.
        allowed_noise: sum of the errors of the blocks.

    Returns:
        What each block computes in; None where only all of them in float would do.

    >>> cheap, dear = BlockFacts(5.0, 1.0, 0.5, 0.5), BlockFacts(1.0, 9.0, 0.5, 0.5)
    >>> [one.name for one in choose_widths([cheap, dear, dear], 3.0)]
    ['FLOAT', 'INTEGER', 'INTEGER']
    """
    if allowed_noise <= 0.0:
        return None
    has_wide = any(one.can_widen for one in blocks)
    widths = tuple(one for one in Width if has_wide or one is not Width.WIDE)
    # Best saving with so many steps of noise, by the width of the last block.
    best = np.full((len(widths), STEPS + 1), -np.inf)
    best[0, 0] = 0.0
    steps = [[_count_steps(one, width, allowed_noise) for width in widths] for one in blocks]
    sources: list[Array] = []
    before: BlockFacts | None = None
    for one, own_steps in zip(blocks, steps, strict=True):
        best, source = _add_block(best, before, one, widths, own_steps)
        sources.append(source)
        before = one
    ends = best - np.array([[count_border(before, None, one, Width.FLOAT)] for one in widths])
    state = int(ends.max(axis=1).argmax())
    used = int(ends[state].argmax())
    chosen: list[Width] = []
    for own_steps, source in zip(reversed(steps), reversed(sources), strict=True):
        chosen.append(widths[state])
        used -= own_steps[state]
        state = int(source[state, used])
    return None if all(one is Width.FLOAT for one in chosen) else tuple(reversed(chosen))


def _count_steps(one: BlockFacts, width: Width, allowed_noise: float) -> int:
    """Steps of noise; more than there are where it is too loud."""
    return math.ceil(min(STEPS + 1, STEPS * one.find_noise(width) / allowed_noise))


def _add_block(
    best: Array,
    before: BlockFacts | None,
    one: BlockFacts,
    widths: Sequence[Width],
    steps: Sequence[int],
) -> tuple[Array, Array]:
    """One block more.

    Args:
        best: saving with so many steps of noise, by the width of the block before it.
        before: that block; None for the first one.
        one: the block to add.
        widths: that there are.
        steps: of noise that it adds in each of them.

    Returns:
        The same as ``best`` with the block; and, by its width, at the steps without its own, which
        width of the block before it that is reached from.
    """
    added, sources = np.full_like(best, -np.inf), np.zeros(best.shape, np.intp)
    for at, (width, step) in enumerate(zip(widths, steps, strict=True)):
        borders = [[count_border(before, one, source, width)] for source in widths]
        reached = best - np.array(borders)
        sources[at] = reached.argmax(axis=0)
        if step <= STEPS:
            saved = one.find_saved(width)
            added[at, step:] = reached.max(axis=0)[: STEPS + 1 - step] + saved
    return added, sources
