"""What training did: the learning curve, the trial of learning rates, what was kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

LEAST_GAIN = 1e-3
"""A relative improvement below this is not worth another model."""

RECENT = 6
"""Points in which is seen by how much they differ by chance."""

MOST_CHANCE = 0.1
"""What differs by more is worse, whatever the points before did."""


@dataclass(frozen=True)
class Point:
    """One point of the learning curve.

    Attributes:
        step: how many were taken before.
        epoch: likewise.
        loss: mean over the steps since the last point; NaN at the start.
        validation_loss: on the samples held back.
        sqnr_db: on the same, mean over the outputs.
        seconds: since training began.
    """

    step: int
    epoch: int
    loss: float
    validation_loss: float
    sqnr_db: float
    seconds: float

    def to_json(self) -> dict[str, float | None]:
        """Plain data; null for what is no finite number."""
        return {name: value if math.isfinite(value) else None for name, value in vars(self).items()}


@dataclass(frozen=True)
class Status:
    """What is shown while training runs."""

    step: int
    steps: int
    loss: float
    best_sqnr_db: float
    seconds: float


Report = Callable[[Status], None]


@dataclass
class History:
    """What training did.

    Attributes:
        points: the learning curve; the first one is the start.
        best: index of the point that was kept.
        factor: on the learning rates.
        trials: validation loss that each factor reached in the trial.
        steps: that were planned.
        stopped: why it ended early: 'time limit', 'interrupted', or ''.
        skipped: steps without a finite gradient.
    """

    points: list[Point] = field(default_factory=list)
    best: int = 0
    factor: float = 1.0
    trials: dict[float, float] = field(default_factory=dict)
    steps: int = 0
    stopped: str = ""
    skipped: int = 0

    @property
    def chance(self) -> float:
        """By what share of the loss recent points differ from the one before; 0 if there are few.

        >>> losses = (9.0, 5.0, 4.8, 5.0, 4.9)
        >>> curve = [Point(at, at, 0.0, loss, 0.0, 0.0) for at, loss in enumerate(losses)]
        >>> round(History(curve).chance, 2)
        0.04
        """
        losses = [point.validation_loss for point in self.points[1:]][-RECENT:]
        pairs = [(before, after) for before, after in pairwise(losses) if before > 0]
        changes = [abs(after / before - 1) for before, after in pairs]
        return min(MOST_CHANCE, median(changes)) if len(changes) > 1 else 0.0

    def is_last_best(self) -> bool:
        """Whether the last point is to be kept: better than the start, and as good as any.

        Of points that differ by no more than chance the last is the best: the loss that is trained
        still falls, and learning rates end at 0 (docs/decisions/0034).
        """
        *earlier, last = [point.validation_loss for point in self.points]
        if not earlier or not last < earlier[0] * (1 - LEAST_GAIN):
            return False
        return last < min(earlier) * (1 + (self.chance or -LEAST_GAIN))

    @property
    def gained(self) -> bool:
        """Whether a later point is better than the start."""
        return self.best > 0
