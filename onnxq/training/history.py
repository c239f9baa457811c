"""What training did: the learning curve, the trial of learning rates, what was kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field


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
    def gained(self) -> bool:
        """Whether a later point is better than the start."""
        return self.best > 0
