"""How long a training is that nobody set the length of."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from onnxq.training.binding import bind  # noqa: E402
from onnxq.training.examples import Example  # noqa: E402
from onnxq.training.options import (  # noqa: E402
    BATCH_SIZE,
    DEFAULT_STEPS,
    FEWEST_STEPS,
    MOST_OPERATIONS,
    SMALL_BATCH_SIZE,
    STEPS_AT_FEW_LEVELS,
    Effort,
    TrainingOptions,
    settle,
)
from onnxq.training.program import compile_model  # noqa: E402
from onnxq.training.student import Student  # noqa: E402
from tests.training.quantized_models import CHANNELS, load, samples  # noqa: E402


def count_steps(options: TrainingOptions, count: int) -> int:
    assert options.epochs is not None and options.batch_size is not None
    return options.epochs * -(-count // options.batch_size)


@pytest.mark.parametrize("operations", [1e3, 1e7, 1e8, 1e9, 1e10])
def test_a_training_stays_within_what_it_may_take(operations: float) -> None:
    settled = settle(TrainingOptions(), samples=64, effort=Effort(operations))
    steps = count_steps(settled, 64)
    assert settled.batch_size is not None
    total = steps * settled.batch_size * operations
    # An epoch more than planned, as the last one is whole; or the fewest steps that there are.
    assert total <= MOST_OPERATIONS + 64 * operations or steps < FEWEST_STEPS + 8
    assert steps < DEFAULT_STEPS + 8


def test_a_large_model_takes_small_batches() -> None:
    small = settle(TrainingOptions(), samples=64, effort=Effort(1e6))
    large = settle(TrainingOptions(), samples=64, effort=Effort(1e9))
    assert (small.batch_size, large.batch_size) == (BATCH_SIZE, SMALL_BATCH_SIZE)


def test_more_steps_are_taken_where_they_are_wanted_and_can_be_afforded() -> None:
    def count(operations: float, **given: int) -> int:
        effort = Effort(operations)
        return count_steps(settle(TrainingOptions(), samples=64, effort=effort, **given), 64)

    assert count(1e6) == DEFAULT_STEPS
    assert count(1e6, steps=STEPS_AT_FEW_LEVELS) == STEPS_AT_FEW_LEVELS
    assert count(1e9, steps=STEPS_AT_FEW_LEVELS) == count(1e9)


def test_what_a_user_sets_stays() -> None:
    wanted = TrainingOptions(epochs=7, batch_size=5)
    assert settle(wanted, samples=64, effort=Effort(1e12)) == wanted


def test_many_calls_are_an_effort_without_operations() -> None:
    short = settle(TrainingOptions(), samples=64, effort=Effort(1e6, 1000))
    long = settle(TrainingOptions(), samples=64, effort=Effort(1e6, 300_000))
    assert count_steps(long, 64) < count_steps(short, 64)


def test_the_effort_of_a_network_is_counted() -> None:
    model = load()
    quantities = bind(model)
    student = Student(compile_model(model, trained=quantities.values), quantities)
    effort = student.measure_effort(Example("one", samples(1)[0], {}))
    # Two operations for each weight and place: 8x8 of the first layer, 4x4 of the second, the Gemm.
    assert effort.operations == 2 * (64 * 32 * CHANNELS * 9 + 16 * 32 * 32 + 12 * 32)
    assert effort.calls > len(student.program.block.steps)
