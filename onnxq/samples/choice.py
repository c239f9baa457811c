"""Which samples are taken, and which of those are kept out of calibration."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

HELD_BACK_EVERY = 5
MOST_HELD_BACK = 32
"""More would take from calibration and make the verification slower, not surer."""


def choose(names: Sequence[str], limit: int | None, seed: int) -> tuple[int, ...]:
    """Positions in ``names`` of at most ``limit`` of them, in the order that they have.

    The smallest hashes win, so that the choice is the same with every version of every library,
    and hardly changes when a file is added.
    """
    if limit is None or limit >= len(names):
        return tuple(range(len(names)))
    ranked = sorted(range(len(names)), key=lambda index: _rank(names[index], seed))
    return tuple(sorted(ranked[:limit]))


def held_back(index: int) -> bool:
    """Whether the sample at ``index`` is kept out of calibration, to verify on.

    Every fifth, and not the last fifth: samples often lie in one folder a class, and a block at
    either end would hold only some of the classes.

    >>> [index for index in range(16) if held_back(index)]
    [4, 9, 14]
    """
    group, place = divmod(index, HELD_BACK_EVERY)
    return place == HELD_BACK_EVERY - 1 and group < MOST_HELD_BACK


def _rank(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:".encode() + os.fsencode(name)).digest()
