"""The loop: steps, validation, the best so far."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from onnxq.errors import DataError
from onnxq.training.averaging import Average
from onnxq.training.examples import Example, Examples, make_batches
from onnxq.training.history import History, Point, Report, Status
from onnxq.training.losses import Loss
from onnxq.training.mixtures import Mixtures
from onnxq.training.optimizer import Optimizer
from onnxq.training.options import BATCH_SIZE, TrainingOptions
from onnxq.training.student import Student

FACTORS = (0.3, 1.0, 3.0, 10.0)
"""Of the learning rates; tried from 1 on, as long as the next one gets further. Smaller ones look
better than they are in a few steps: what moves little loses little at first."""

TRIAL_SHARE = 0.05
"""Of all steps, for each factor."""

FEWEST_TRIAL_STEPS = 8
MOST_TRIAL_STEPS = 40

MOST_TRIAL_TIME = 0.2
"""Share of a time limit in which trials may begin."""

LEAST_GAIN = 1e-3
"""A relative improvement below this is not worth another model."""

FEWEST_VALIDATIONS = 20
"""Over the whole training, where there are as many epochs."""


@dataclass
class Trainer:
    """Trains one student.

    Attributes:
        student: to train.
        train: examples to learn from.
        validation: examples to choose by.
        outputs: names that SQNR is measured at.
        loss: to make smaller.
        options: how; settled.
        report: is told of each step.
        mixtures: makes new samples of those of each batch; None to learn from them as they are.
        more: examples to choose by besides, as few are soon met by chance; None for none.
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
    mixtures: Mixtures | None = None
    more: Examples | None = None
    save: Callable[[dict[str, Any]], None] | None = None
    resumed: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.history = History()
        self._best: list[torch.Tensor] = self.student.quantities.save()
        self._began = time.monotonic()

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
        history = self.history
        size = self._batch_size
        steps_per_epoch = -(-self.train.count // size)
        epochs = self.options.epochs or 1
        history.steps = epochs * steps_per_epoch
        if resumed is None:
            self._validate(0, 0, math.nan)
            history.factor = self.options.learning_rate or self._find_factor()
        optimizer, average = self._prepare(history.factor, history.steps)
        first_epoch = 0 if resumed is None else self._resume(resumed, optimizer, average)
        losses: list[float] = []
        validated = int(first_epoch / epochs * FEWEST_VALIDATIONS)
        for epoch in range(first_epoch, epochs):
            for at, batch in enumerate(self._batches(epoch), start=1):
                losses.append(self._step(optimizer, average, batch))
                self._tell(epoch * steps_per_epoch + at, losses[-1])
                if self._elapsed() >= 1.0:
                    history.stopped = "time limit"
                    break
            progress = max((epoch + 1) / epochs, self._elapsed())
            if history.stopped or int(progress * FEWEST_VALIDATIONS) > validated:
                validated = int(progress * FEWEST_VALIDATIONS)
                with average.applied():
                    self._validate((epoch + 1) * steps_per_epoch, epoch + 1, _mean(losses))
                losses = []
                self._checkpoint(optimizer, average, epoch + 1)
            if history.stopped:
                return

    @property
    def _batch_size(self) -> int:
        """Samples a step, such that no batch is much smaller than others."""
        batches = -(-self.train.count // (self.options.batch_size or BATCH_SIZE))
        return -(-self.train.count // batches)

    def _prepare(self, factor: float, steps: int) -> tuple[Optimizer, Average]:
        quantities, clipping = self.student.quantities, self.options.gradient_clipping
        optimizer = Optimizer(quantities, factor=factor, steps=steps, clipping=clipping)
        return optimizer, Average(quantities, steps=steps)

    def _batches(self, epoch: int) -> Iterable[Sequence[Example]]:
        generator = np.random.default_rng((self.options.seed, epoch))
        for batch in make_batches(self.train.shuffled(generator), self._batch_size):
            yield batch if self.mixtures is None else self.mixtures.renew(batch, generator)

    def _step(self, optimizer: Optimizer, average: Average, batch: Sequence[Example]) -> float:
        optimizer.clear()
        loss = self.student.backward(batch, self.loss)
        if not optimizer.step(self._elapsed()):
            self.history.skipped += 1
        average.add()
        return loss

    def _find_factor(self) -> float:
        """Which of a few learning rates gets furthest in a few steps."""
        best = FACTORS.index(1.0)
        self._try(FACTORS[best])
        for way in (-1, 1):
            at, before = best + way, best
            while 0 <= at < len(FACTORS) and self._elapsed() < MOST_TRIAL_TIME:
                if not self._try(FACTORS[at]) < self.history.trials[FACTORS[best]]:
                    break
                best, at = at, at + way
            if best != before:
                break
        return FACTORS[best]

    def _try(self, factor: float) -> float:
        """The loss after a few steps, infinite where it is no number; they are undone."""
        steps = round(TRIAL_SHARE * self.history.steps)
        steps = min(MOST_TRIAL_STEPS, max(FEWEST_TRIAL_STEPS, steps))
        optimizer, average = self._prepare(factor, steps)
        for batch in self._take(steps):
            self._step(optimizer, average, batch)
            if self._elapsed() >= MOST_TRIAL_TIME:
                break
        with average.applied():
            _, loss = self._measure()
        self.history.trials[factor] = loss if math.isfinite(loss) else math.inf
        self.student.quantities.restore(self._best)
        return self.history.trials[factor]

    def _take(self, steps: int) -> Iterable[Sequence[Example]]:
        taken = 0
        while taken < steps:
            for batch in self._batches(taken):
                if taken < steps:
                    yield batch
                taken += 1

    def _measure(self) -> tuple[float, float]:
        """SQNR in dB on the samples held back, and the loss on all that is chosen by."""
        sqnr_db, loss = self._measure_on(self.validation)
        if self.more is None:
            return sqnr_db, loss
        own, others = self.validation.count, self.more.count
        _, found = self._measure_on(self.more)
        return sqnr_db, (own * loss + others * found) / (own + others)

    def _measure_on(self, examples: Examples) -> tuple[float, float]:
        batches = make_batches(examples.in_order(), self._batch_size)
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

    def _elapsed(self) -> float:
        """Share of the time limit that is over; 0 without one."""
        limit = self.options.time_limit_s
        return 0.0 if limit is None else (time.monotonic() - self._began) / limit

    def _checkpoint(self, optimizer: Optimizer, average: Average, epoch: int) -> None:
        if self.save is None:
            return
        history = self.history
        self.save(
            {
                "epoch": epoch,
                "learned": self.student.quantities.save(),
                "best_learned": self._best,
                "optimizer": optimizer.save(),
                "average": average.save(),
                "points": [vars(point) for point in history.points],
                "best": history.best,
                "factor": history.factor,
                "trials": dict(history.trials),
                "skipped": history.skipped,
            }
        )

    def _resume(self, saved: dict[str, Any], optimizer: Optimizer, average: Average) -> int:
        """Go on from a checkpoint; returns how many epochs are done."""
        try:
            return self._restore(saved, optimizer, average)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise DataError(
                "the checkpoint lacks something or does not fit "
                f"({type(error).__name__}: {error}); leave out --resume to start anew"
            ) from error

    def _restore(self, saved: dict[str, Any], optimizer: Optimizer, average: Average) -> int:
        history = self.history
        history.points = [Point(**point) for point in saved["points"]]
        history.best, history.factor = saved["best"], saved["factor"]
        history.trials, history.skipped = saved["trials"], saved["skipped"]
        self._began -= history.points[-1].seconds
        self._best = saved["best_learned"]
        self.student.quantities.restore(saved["learned"])
        optimizer.restore(saved["optimizer"])
        average.restore(saved["average"])
        return int(saved["epoch"])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
