"""What a user can ask of training."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from onnxq.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How to train.

    Attributes:
        epochs: passes over the samples; None for as many as ``settle`` finds.
        batch_size: samples a step; None likewise.
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
    batch_size: int | None = None
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


DEFAULT_STEPS = 3000

STEPS_AT_FEW_LEVELS = 6000
"""Where activations have sixteen levels, which training has to find its way around: the small CNN
gains 0.15 dB by twice as many steps, three times alike (benchmarks/results/qat.md)."""

FEWEST_STEPS = 100

BATCH_SIZE = 32
SMALL_BATCH_SIZE = 8
"""Where not all steps of the larger size can be afforded."""

MOST_OPERATIONS = 5e12
"""Of the forward passes of a whole training whose length nobody has set. EfficientNet-Lite0, of
0.8e9 a sample, gets 780 steps of 8, about 25 minutes of one core (x86-64 Zen 3)."""


OPERATIONS_OF_A_CALL = 1e5
"""What a call of torch takes, gradient included, in operations of the same time: 30 microseconds.
A recurrent layer of many steps is many calls with little to compute."""


@dataclass(frozen=True)
class Effort:
    """What a forward pass of one sample takes.

    Attributes:
        operations: additions and products.
        calls: of torch; as many for a batch.
    """

    operations: float
    calls: int = 0

    def of_step(self, size: int) -> float:
        """Of a batch, in operations."""
        return max(1.0, size * self.operations + OPERATIONS_OF_A_CALL * self.calls)


def settle(
    options: TrainingOptions, *, samples: int, effort: Effort, steps: int = DEFAULT_STEPS
) -> TrainingOptions:
    """Options with a batch size and a number of epochs.

    The same model and samples give the same numbers on every machine, so no time is measured.

    Args:
        options: of the user.
        samples: to learn from.
        effort: of one sample.
        steps: where they can be afforded.

    >>> few = settle(TrainingOptions(), samples=80, effort=Effort(1e6, 1000))
    >>> few.batch_size, few.epochs
    (32, 1000)
    >>> large = settle(TrainingOptions(), samples=80, effort=Effort(1e9))
    >>> large.batch_size, large.epochs
    (8, 63)
    """
    affordable = MOST_OPERATIONS / effort.of_step(BATCH_SIZE)
    is_large = options.epochs is None and affordable < steps
    size = options.batch_size or (SMALL_BATCH_SIZE if is_large else BATCH_SIZE)
    affordable = MOST_OPERATIONS / effort.of_step(size)
    wanted = min(steps, max(FEWEST_STEPS, int(affordable)))
    steps_per_epoch = -(-samples // size)
    epochs = options.epochs or max(2, -(-wanted // steps_per_epoch))
    return replace(options, batch_size=size, epochs=epochs)
