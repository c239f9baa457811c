"""The loop, on a small network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch")

from onnxq.training.binding import bind  # noqa: E402
from onnxq.training.examples import Example, Examples  # noqa: E402
from onnxq.training.history import History, Status  # noqa: E402
from onnxq.training.interpreter import run  # noqa: E402
from onnxq.training.losses import Distillation  # noqa: E402
from onnxq.training.optimizer import Optimizer  # noqa: E402
from onnxq.training.options import TrainingOptions  # noqa: E402
from onnxq.training.program import compile_model  # noqa: E402
from onnxq.training.student import Student  # noqa: E402
from onnxq.training.trainer import FACTORS, Trainer  # noqa: E402
from tests.training.quantized_models import load, quantize, samples  # noqa: E402

OPTIONS = TrainingOptions(epochs=6, batch_size=4, learning_rate=1.0, threads=1)


def teach(count: int, offset: int) -> list[Example]:
    program = compile_model(ir.from_proto(onnx.load_from_string(quantize()[0])))
    found = []
    for at, feeds in enumerate(samples(count + offset)[offset:]):
        with torch.no_grad():
            found.append(Example(str(at), feeds, {"y": run(program, feeds)["y"].numpy()}))
    return found


def make_trainer(
    options: TrainingOptions = OPTIONS,
    *,
    report: Callable[[Status], None] = lambda _status: None,
    save: Callable[[dict[str, Any]], None] | None = None,
    resumed: dict[str, Any] | None = None,
    more: Examples | None = None,
) -> Trainer:
    model = load()
    quantities = bind(model)
    student = Student(compile_model(model, trained=quantities.values), quantities, stacks=True)
    loss = Distillation({"y": 1.0})
    train, validation = teach(12, 0), teach(4, 12)
    loss.measure(train)
    return Trainer(
        student=student,
        train=Examples(lambda: iter(train)),
        validation=Examples(lambda: iter(validation)),
        outputs=("y",),
        loss=loss,
        options=options,
        report=report,
        save=save,
        resumed=resumed,
        more=more,
    )


def learned(trainer: Trainer) -> list[np.ndarray]:
    return [one.detach().numpy().copy() for one in trainer.student.quantities.learned]


@dataclass(frozen=True)
class Run:
    """A training that ran to its end."""

    trainer: Trainer
    history: History
    told: list[Status]
    saved: list[dict[str, Any]]


@pytest.fixture(scope="module")
def whole() -> Run:
    """One for all tests that look at it."""
    told: list[Status] = []
    saved: list[dict[str, Any]] = []
    trainer = make_trainer(report=told.append, save=saved.append)
    return Run(trainer, trainer.fit(), told, saved)


def test_training_gains_and_the_best_point_is_kept(whole: Run) -> None:
    trainer, history = whole.trainer, whole.history
    losses = [point.validation_loss for point in history.points]
    assert history.gained
    assert losses[history.best] == min(losses)
    assert losses[history.best] < 0.8 * losses[0]
    sqnr_db, loss = trainer._measure()
    assert loss == pytest.approx(losses[history.best], rel=1e-6)
    assert sqnr_db == pytest.approx(history.points[history.best].sqnr_db, abs=1e-6)


def test_the_same_seed_gives_the_same_numbers(whole: Run) -> None:
    second = make_trainer()
    second.fit()
    for a, b in zip(learned(whole.trainer), learned(second), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_gains_nothing_leaves_the_start() -> None:
    trainer = make_trainer(replace(OPTIONS, learning_rate=1e4, epochs=2))
    history = trainer.fit()
    assert not history.gained
    assert all(not one.any() for one in learned(trainer))


def test_the_trial_takes_the_rate_that_got_furthest() -> None:
    trainer = make_trainer(replace(OPTIONS, learning_rate=None, epochs=2))
    history = trainer.fit()
    assert {0.3, 1.0} <= set(history.trials) <= set(FACTORS)
    assert history.trials[history.factor] == min(history.trials.values())


def test_of_rates_none_is_tried_behind_one_that_got_less_far() -> None:
    trainer = make_trainer(replace(OPTIONS, learning_rate=None))
    losses = {0.3: 4.0, 1.0: 3.0, 3.0: 2.0, 10.0: 2.5}

    def give(factor: float) -> float:
        trainer.history.trials[factor] = losses[factor]
        return losses[factor]

    trainer._try = give  # type: ignore[method-assign]
    assert trainer._find_factor() == 3.0
    assert list(trainer.history.trials) == [1.0, 0.3, 3.0, 10.0]


def test_an_interrupt_takes_the_best_so_far() -> None:
    def interrupt(status: Status) -> None:
        if status.step == 8:
            raise KeyboardInterrupt

    trainer = make_trainer(report=interrupt)
    history = trainer.fit()
    assert history.stopped == "interrupted"
    assert len(history.points) == 3
    _, loss = trainer._measure()
    assert loss == pytest.approx(min(point.validation_loss for point in history.points), rel=1e-6)


def test_the_time_limit_ends_it() -> None:
    trainer = make_trainer(replace(OPTIONS, epochs=1000, time_limit_s=1e-6))
    history = trainer.fit()
    assert history.stopped == "time limit"
    assert history.points[-1].epoch == 1


def test_it_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(whole: Run) -> None:
    resumed = make_trainer(resumed=whole.saved[2])
    again = resumed.fit()
    for a, b in zip(learned(whole.trainer), learned(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [point.validation_loss for point in again.points] == [
        point.validation_loss for point in whole.history.points
    ]


def test_steps_are_told_in_order(whole: Run) -> None:
    assert [one.step for one in whole.told] == list(range(1, 19))
    assert {one.steps for one in whole.told} == {18}


def test_a_time_limit_ends_the_schedule_and_not_only_the_steps() -> None:
    quantities = bind(load())
    optimizer = Optimizer(quantities, factor=1.0, steps=100000, clipping=0.0)
    moved = []
    for elapsed in (0.5, 1.0):
        before = quantities.save()
        for one in quantities.learned:
            one.grad = torch.ones_like(one)
        optimizer.step(elapsed)
        moved.append(float((quantities.save()[0] - before[0]).abs().max()))
    # At the end of the time the cosine is over, though a hundred thousand steps were planned.
    assert moved[0] > 0
    assert moved[1] < 1e-6 * moved[0]


def test_what_is_chosen_by_counts_each_example_alike_and_sqnr_the_samples_alone() -> None:
    others = teach(12, 16)
    alone, with_more = make_trainer(), make_trainer(more=Examples(lambda: iter(others)))
    sqnr_db, loss = alone._measure()
    _, loss_of_others = alone._measure_on(Examples(lambda: iter(others)))
    measured_db, both = with_more._measure()
    assert measured_db == sqnr_db
    assert both == pytest.approx((4 * loss + 12 * loss_of_others) / 16)
