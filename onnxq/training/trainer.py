"""The loop: steps, validation, the best so far."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from onnxq.errors import DataError
from onnxq.training.examples import Example, Examples, make_batches
from onnxq.training.losses import Loss
from onnxq.training.optimizer import Optimizer
from onnxq.training.options import TrainingOptions, choose_epochs
from onnxq.training.student import Student

FACTORS = (0.3, 1.0, 3.0)
"""Of the learning rates, tried in this order."""

TRIAL_SHARE = 0.05
FEWEST_TRIAL_STEPS = 8
MOST_TRIAL_STEPS = 40

LEAST_GAIN = 1e-3
"""A relative improvement below this is not worth another model."""

FEWEST_VALIDATIONS = 20
"""Over the whole training, where there are as many epochs."""


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


@dataclass
class Trainer:
    """Trains one student.

    Attributes:
        student: to train.
        train: examples to learn from.
        validation: examples to choose by.
        outputs: names that SQNR is measured at.
        loss: to make smaller.
        options: how.
        report: is told of each step.
        save: is called after each validation with all that is needed to go on.
        resumed: what it was called with, to go on; None to begin.
    """

    student: Student
    train: Examples
    validation: Examples
    outputs: Sequence[str]
    loss: Loss
    options: TrainingOptions
    report: Report
    save: Callable[[dict[str, Any]], None] | None = None
    resumed: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.history = History()
        self._best: list[torch.Tensor] = self.student.quantities.save()
        self._began = time.monotonic()
        self._validation: list[Sequence[Example]] = []

    def fit(self) -> History:
        """Train, and leave the student at its best.

        An interrupt or the time limit ends it early; what was best by then is kept.
        """
        quantities = self.student.quantities
        try:
            self._run(self.resumed)
        except KeyboardInterrupt:
            self.history.stopped = "interrupted"
        quantities.restore(self._best)
        return self.history

    def _run(self, resumed: dict[str, Any] | None) -> None:
        history, size = self.history, self.options.batch_size
        steps_per_epoch = -(-self.train.count // size)
        epochs = choose_epochs(self.options, steps_per_epoch)
        history.steps = epochs * steps_per_epoch
        every = max(1, epochs // FEWEST_VALIDATIONS)
        first_epoch = 0
        if resumed is None:
            self._validate(0, 0, math.nan)
            history.factor = self.options.learning_rate or self._find_factor()
            optimizer = self._make_optimizer(history.factor)
        else:
            optimizer, first_epoch = self._resume(resumed)
        losses: list[float] = []
        for epoch in range(first_epoch, epochs):
            for batch in self._batches(epoch):
                losses.append(self._step(optimizer, batch))
                self._tell(epoch * steps_per_epoch + len(losses), losses[-1])
                if self._is_late():
                    history.stopped = "time limit"
                    break
            done = history.stopped or epoch == epochs - 1
            if done or (epoch + 1) % every == 0:
                self._validate((epoch + 1) * steps_per_epoch, epoch + 1, _mean(losses))
                losses = []
                self._checkpoint(optimizer, epoch + 1)
            if history.stopped:
                return

    def _make_optimizer(self, factor: float) -> Optimizer:
        return Optimizer(
            self.student.quantities,
            factor=factor,
            steps=self.history.steps,
            clipping=self.options.gradient_clipping,
        )

    def _batches(self, epoch: int) -> Iterable[list[Example]]:
        generator = np.random.default_rng((self.options.seed, epoch))
        return make_batches(self.train.shuffled(generator), self.options.batch_size)

    def _step(self, optimizer: Optimizer, batch: Sequence[Example]) -> float:
        optimizer.clear()
        loss = self.student.backward(batch, self.loss)
        if not optimizer.step():
            self.history.skipped += 1
        return loss

    def _find_factor(self) -> float:
        """Which of a few learning rates gets furthest in a few steps."""
        steps = round(TRIAL_SHARE * self.history.steps)
        steps = min(MOST_TRIAL_STEPS, max(FEWEST_TRIAL_STEPS, steps))
        for factor in FACTORS:
            optimizer = Optimizer(
                self.student.quantities,
                factor=factor,
                steps=steps,
                clipping=self.options.gradient_clipping,
            )
            for _ in self._take(steps):
                self._step(optimizer, _)
            _, loss = self._measure()
            self.history.trials[factor] = loss
            self.student.quantities.restore(self._best)
        finite = {key: one for key, one in self.history.trials.items() if math.isfinite(one)}
        return min(finite, key=lambda key: finite[key]) if finite else FACTORS[0]

    def _take(self, steps: int) -> Iterable[list[Example]]:
        taken = 0
        while taken < steps:
            for batch in self._batches(taken):
                if taken < steps:
                    yield batch
                taken += 1

    def _measure(self) -> tuple[float, float]:
        batches = make_batches(self.validation.in_order(), self.options.batch_size)
        return self.student.measure(batches, self.outputs, self.loss)

    def _validate(self, step: int, epoch: int, loss: float) -> None:
        sqnr_db, validation_loss = self._measure()
        seconds = time.monotonic() - self._began
        points = self.history.points
        points.append(Point(step, epoch, loss, validation_loss, sqnr_db, seconds))
        best = points[self.history.best]
        if len(points) > 1 and validation_loss < best.validation_loss * (1 - LEAST_GAIN):
            self.history.best = len(points) - 1
            self._best = self.student.quantities.save()

    def _tell(self, step: int, loss: float) -> None:
        best = self.history.points[self.history.best]
        seconds = time.monotonic() - self._began
        self.report(Status(step, self.history.steps, loss, best.sqnr_db, seconds))

    def _is_late(self) -> bool:
        limit = self.options.time_limit_s
        return limit is not None and time.monotonic() - self._began > limit

    def _checkpoint(self, optimizer: Optimizer, epoch: int) -> None:
        if self.save is None:
            return
        history = self.history
        self.save(
            {
                "epoch": epoch,
                "learned": self.student.quantities.save(),
                "best_learned": self._best,
                "optimizer": optimizer.save(),
                "points": [vars(point) for point in history.points],
                "best": history.best,
                "factor": history.factor,
                "trials": dict(history.trials),
                "skipped": history.skipped,
            }
        )

    def _resume(self, saved: dict[str, Any]) -> tuple[Optimizer, int]:
        try:
            return self._restore(saved)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise DataError(
                "the checkpoint lacks something or does not fit "
                f"({type(error).__name__}: {error}); leave out --resume to start anew"
            ) from error

    def _restore(self, saved: dict[str, Any]) -> tuple[Optimizer, int]:
        history = self.history
        history.points = [Point(**point) for point in saved["points"]]
        history.best, history.factor = saved["best"], saved["factor"]
        history.trials, history.skipped = saved["trials"], saved["skipped"]
        self._began -= history.points[-1].seconds
        self._best = saved["best_learned"]
        self.student.quantities.restore(saved["learned"])
        optimizer = self._make_optimizer(history.factor)
        optimizer.restore(saved["optimizer"])
        return optimizer, int(saved["epoch"])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
