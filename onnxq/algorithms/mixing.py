"""Which blocks of a chain to keep in float: the least loss of speed for an allowed error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STEPS = 400
"""Of error that are told apart; each block's is rounded up to one."""


@dataclass(frozen=True)
class BlockFacts:
    """What is known of one block.

    Attributes:
        noise: error that it adds in integers, in any unit.
        saved: by integers inside, in any unit of time.
        entering: cost of the border where what is before it is float.
        leaving: cost of the border where what is behind it is float.
    """

    noise: float
    saved: float
    entering: float
    leaving: float


def choose_float_blocks(
    blocks: Sequence[BlockFacts], allowed_noise: float
) -> tuple[int, ...] | None:
    """The cheapest choice, by dynamic programming over the chain.

    Args:
        blocks: in the order of the graph; integers are handed from one to the next.
        allowed_noise: sum of the errors of the blocks that stay in integers.

    Returns:
        Positions of the blocks to keep in float; None where only all of them would do.

    >>> cheap, dear = BlockFacts(5.0, 1.0, 0.5, 0.5), BlockFacts(1.0, 9.0, 0.5, 0.5)
    >>> choose_float_blocks([cheap, dear, dear], 3.0)
    (0,)
    """
    if allowed_noise <= 0.0:
        return None
    steps = [min(STEPS + 1, math.ceil(STEPS * one.noise / allowed_noise)) for one in blocks]
    # Best saving with so many steps of noise, by whether the last block is in integers.
    best = {False: np.full(STEPS + 1, -np.inf), True: np.full(STEPS + 1, -np.inf)}
    best[False][0] = 0.0
    choices: list[dict[bool, np.ndarray[tuple[int], np.dtype[np.bool_]]]] = []
    for position, (one, step) in enumerate(zip(blocks, steps, strict=True)):
        before = blocks[position - 1].leaving if position else 0.0
        in_float = np.maximum(best[False], best[True] - before)
        from_integers = best[True] > best[False] - one.entering
        in_integers = np.full(STEPS + 1, -np.inf)
        if step <= STEPS:
            source = np.maximum(best[True], best[False] - one.entering) + one.saved
            in_integers[step:] = source[: STEPS + 1 - step]
        choices.append({False: best[True] - before > best[False], True: from_integers})
        best = {False: in_float, True: in_integers}
    last = blocks[-1].leaving if blocks else 0.0
    ends = {False: best[False], True: best[True] - last}
    state = bool(ends[True].max() > ends[False].max())
    used = int(np.argmax(ends[state]))
    chosen = []
    for position in reversed(range(len(blocks))):
        if not state:
            chosen.append(position)
            state = bool(choices[position][False][used])
        else:
            used -= steps[position]
            state = bool(choices[position][True][used])
    return None if len(chosen) == len(blocks) else tuple(reversed(chosen))
