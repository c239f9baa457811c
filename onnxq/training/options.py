"""What a user can ask of training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnxq.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How to train.

    Attributes:
        epochs: passes over the samples; None for about ``DEFAULT_STEPS`` steps.
        batch_size: samples a step.
        learning_rate: factor on the learning rates; None to find it in a short trial.
        gradient_clipping: a gradient longer than so many times the usual one is cut; 0 for never.
        seed: of the order of the samples.
        time_limit_s: seconds after which the best so far is taken; None for no limit.
        device: 'auto', 'cpu' or 'cuda'.
        threads: of torch; 0 for its default.

    Raises:
        UsageError: a value that makes no sense.
    """

    epochs: int | None = None
    batch_size: int = 32
    learning_rate: float | None = None
    gradient_clipping: float = 4.0
    seed: int = 0
    time_limit_s: float | None = None
    device: str = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        for option, value, least in (
            ("--epochs", self.epochs, 1),
            ("--batch-size", self.batch_size, 1),
            ("--threads", self.threads, 0),
        ):
            if value is not None and value < least:
                raise UsageError(f"{option} {value}: give {least} or more")
        for option, number in (
            ("--learning-rate", self.learning_rate),
            ("--time-limit", self.time_limit_s),
        ):
            if number is not None and not (math.isfinite(number) and number > 0):
                raise UsageError(f"{option} {number}: give a number above 0")
        if not (math.isfinite(self.gradient_clipping) and self.gradient_clipping >= 0):
            raise UsageError(
                f"--gradient-clipping {self.gradient_clipping}: give 0, for none, or a number above"
            )


DEFAULT_STEPS = 600


def choose_epochs(options: TrainingOptions, steps_per_epoch: int) -> int:
    """How many passes over the samples to make.

    >>> choose_epochs(TrainingOptions(), steps_per_epoch=3)
    200
    >>> choose_epochs(TrainingOptions(epochs=5), steps_per_epoch=3)
    5
    """
    if options.epochs is not None:
        return options.epochs
    return max(2, -(-DEFAULT_STEPS // max(1, steps_per_epoch)))
