"""Block after block: each learns to give what the float model gives at its end.

As BRECQ (Li et al. 2021, arXiv:2102.05426), with learned scales and without its second-order
weights. A block reads what the trained blocks before it give, so it also takes their errors back.
Only one block is trained at a time; memory does not grow with the number of blocks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import onnx_ir as ir
import torch

from onnxq.training.blocks import Segment, choose_quantities, make_part
from onnxq.training.examples import Example, Examples, make_batches
from onnxq.training.history import History, Point, Report, Status
from onnxq.training.interpreter import run
from onnxq.training.losses import Distillation, Loss
from onnxq.training.options import BATCH_SIZE, TrainingOptions
from onnxq.training.quantities import Quantities
from onnxq.training.student import Student
from onnxq.training.tensors import to_numpy
from onnxq.training.trainer import LEAST_GAIN, Trainer

STEPS_OF_A_BLOCK = 200
UNIT_SAMPLES = 64
"""From which the unit of the loss of a block is found."""


@dataclass
class BlockwiseTrainer:
    """Trains the segments of one student in their order.

    Attributes:
        student: the whole model.
        segments: of it.
        train: examples of the whole model to learn from, with the targets of all segments.
        validation: likewise, to choose by.
        outputs: names that SQNR of the whole model is measured at.
        loss: of the whole model, to choose by.
        options: how.
        report: is told of each step.
    """

    student: Student
    segments: Sequence[Segment]
    train: Examples
    validation: Examples
    outputs: Sequence[str]
    loss: Loss
    options: TrainingOptions
    report: Report

    def fit(self) -> History:
        """Train, and leave the student at its best."""
        history = History(factor=self.options.learning_rate or 1.0)
        quantities = self.student.quantities
        began = time.monotonic()
        best = quantities.save()
        self._validate(history, 0, math.nan, began)
        settled: set[ir.Value] = set()
        train, validation = self.train, self.validation
        try:
            for at, segment in enumerate(self.segments):
                options = self._options(train, len(self.segments) - at, began)
                part = self._fit_segment(
                    history, segment, settled, train, validation, began, options
                )
                self._validate(
                    history, history.steps, part.points[part.best].validation_loss, began
                )
                if history.best == len(history.points) - 1:
                    best = quantities.save()
                if self._remaining(began) <= 0:
                    history.stopped = "time limit"
                if history.stopped or at == len(self.segments) - 1:
                    break
                train, validation = (
                    self._behind(segment, examples) for examples in (train, validation)
                )
        except KeyboardInterrupt:
            history.stopped = "interrupted"
        quantities.restore(best)
        return history

    def _fit_segment(
        self,
        history: History,
        segment: Segment,
        settled: set[ir.Value],
        train: Examples,
        validation: Examples,
        began: float,
        options: TrainingOptions,
    ) -> History:
        program = make_part(self.student.program, segment)
        chosen = choose_quantities(self.student.quantities, program.trained)
        own = tuple(one for one in chosen if one.value not in settled and one.learned is not None)
        frozen = {id(one.learned) for one in chosen if one.value in settled}
        settled |= {one.value for one in own}
        name = segment.output.name or ""
        loss = Distillation({name: 1.0})
        loss.measure([_only(one, segment) for one in islice(train.in_order(), UNIT_SAMPLES)])
        # Shapes that pass a cut cannot be stacked.
        stacks = self.student.stacks and len(segment.inputs) <= 1
        part = Student(program, _Partial(chosen, frozen), (), stacks)
        offset = history.steps

        def report(status: Status) -> None:
            steps = status.steps * len(self.segments)
            best = history.points[history.best].sqnr_db
            seconds = time.monotonic() - began
            self.report(Status(offset + status.step, steps, status.loss, best, seconds))

        trainer = Trainer(
            student=part,
            train=_restricted(train, segment),
            validation=_restricted(validation, segment),
            outputs=(name,),
            loss=loss,
            options=options,
            report=report,
        )
        found = trainer.fit()
        history.steps += found.steps
        if found.stopped == "interrupted":
            raise KeyboardInterrupt
        return found

    def _options(self, train: Examples, waiting: int, began: float) -> TrainingOptions:
        """Of one block: an equal part of the time that is left."""
        options = self.options
        size = options.batch_size or BATCH_SIZE
        epochs = options.epochs or -(-STEPS_OF_A_BLOCK * size // train.count)
        limit = None
        if options.time_limit_s is not None:
            limit = max(1e-3, self._remaining(began) / waiting)
        return replace(options, epochs=max(1, epochs), time_limit_s=limit)

    def _remaining(self, began: float) -> float:
        limit = self.options.time_limit_s
        return math.inf if limit is None else limit - (time.monotonic() - began)

    def _behind(self, segment: Segment, examples: Examples) -> Examples:
        """Examples whose feeds are what a trained segment gives."""
        program = make_part(self.student.program, segment)
        chosen = choose_quantities(self.student.quantities, program.trained)
        with torch.no_grad():
            known = Quantities(chosen).compute()

        def read() -> Iterator[Example]:
            for example in examples.in_order():
                with torch.no_grad():
                    given = run(program, example.feeds, known)
                passed = {value.name or "" for value in segment.inputs}
                feeds = {name: one for name, one in example.feeds.items() if name not in passed}
                feeds |= {name: to_numpy(one) for name, one in given.items()}
                yield Example(example.name, feeds, example.targets, example.labels)

        return Examples(read)

    def _validate(self, history: History, step: int, loss: float, began: float) -> None:
        batches = make_batches(self.validation.in_order(), self.options.batch_size or BATCH_SIZE)
        sqnr_db, found = self.student.measure(batches, self.outputs, self.loss)
        points, seconds = history.points, time.monotonic() - began
        points.append(Point(step, len(points), loss, found, sqnr_db, seconds))
        if found < points[history.best].validation_loss * (1 - LEAST_GAIN):
            history.best = len(points) - 1


@dataclass(frozen=True)
class _Partial(Quantities):
    """Quantities of which some are settled and only computed."""

    frozen: set[int]

    def of_kind(self, kind: str) -> list[torch.Tensor]:
        return [one for one in super().of_kind(kind) if id(one) not in self.frozen]

    @property
    def learned(self) -> list[torch.Tensor]:
        return [one for one in super().learned if id(one) not in self.frozen]


def _restricted(examples: Examples, segment: Segment) -> Examples:
    return Examples(lambda: (_only(one, segment) for one in examples.in_order()))


def _only(example: Example, segment: Segment) -> Example:
    """An example with the target of one segment, under the name that the student gives it."""
    targets = {segment.output.name or "": example.targets[segment.target]}
    return Example(example.name, example.feeds, targets)
