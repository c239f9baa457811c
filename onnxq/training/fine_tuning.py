"""From a quantized model and samples to the same model with better numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch

from onnxq.comparison.labels import Labels
from onnxq.errors import DataError, UsageError
from onnxq.samples import Part
from onnxq.samples.user_code import load_function
from onnxq.training.binding import bind
from onnxq.training.checkpoints import load_checkpoint, save_checkpoint
from onnxq.training.device import choose_device
from onnxq.training.examples import Example, Examples
from onnxq.training.losses import CrossEntropy, Distillation, FunctionLoss, Loss
from onnxq.training.masters import find_masters
from onnxq.training.options import TrainingOptions
from onnxq.training.program import compile_model
from onnxq.training.quantities import Quantities
from onnxq.training.student import Student
from onnxq.training.teacher import Teacher
from onnxq.training.trainer import History, Report, Trainer
from onnxq.training.writing import write_back

LAYER_SHARE = 0.5
"""Of the loss, all layers inside together; the other half is that of the outputs."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What to learn, and from what.

    Attributes:
        teacher: the float model.
        train: samples to learn from.
        validation: samples to choose by.
        labels: classes; None to learn from the float model alone.
        loss_function: 'module:function' of the user; None for the losses above.
        layers: tensors inside that are compared, too; they have the same name on both sides.
        bits: of weights.
        float_model: simplified, whose weights the integers came from; None if it is not known.
        checkpoint: file to write after each validation, and to go on from; None for none.
        resume: whether to go on from it.
        fingerprint: of everything that the steps depend on.
    """

    teacher: Teacher
    train: Part
    validation: Part
    labels: Labels | None = None
    loss_function: str | None = None
    layers: tuple[str, ...] = ()
    bits: int = 8
    float_model: ir.Model | None = None
    checkpoint: Path | None = None
    resume: bool = False
    fingerprint: str = ""


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What came of it.

    Attributes:
        history: of the training.
        trained: how many tensors of each kind were trained.
        samples: how many were learnt from, and how many chosen by.
        device: where.
        notes: what a user should know.
    """

    history: History
    trained: Mapping[str, int]
    samples: tuple[int, int]
    device: str
    notes: tuple[str, ...] = field(default_factory=tuple)

    def to_json(self) -> dict[str, Any]:
        """Plain data of everything above."""
        history = self.history
        return {
            "device": self.device,
            "samples": self.samples[0],
            "held_back": self.samples[1],
            "trained_tensors": dict(self.trained),
            "learning_rate": history.factor,
            "steps": history.steps,
            "stopped": history.stopped,
            "best": history.best,
            "curve": [point.to_json() for point in history.points],
        }


def fine_tune(
    model: ir.Model, lesson: Lesson, options: TrainingOptions, report: Report
) -> Tuned:
    """Train the numbers of ``model`` and write the best ones into it.

    Args:
        model: quantized.
        lesson: what to learn.
        options: how.
        report: is told of each step.

    Raises:
        UnsupportedModelError: it has an operator that the engine lacks.
        DataError: samples do not fit, or a checkpoint is of another training.
        UsageError: a loss or a layer that there is none of.
    """
    device, note = choose_device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    masters = {} if lesson.float_model is None else find_masters(model, lesson.float_model)
    quantities = bind(model, device=device, bits=lesson.bits, masters=masters)
    student = _make_student(model, quantities, lesson, device)
    train, validation = (_read(lesson, part) for part in (lesson.train, lesson.validation))
    first = _first_examples(train)
    student.try_stacking(*first)
    outputs = _float_outputs(lesson, first[0], student)
    trainer = Trainer(
        student=student,
        train=train,
        validation=validation,
        outputs=outputs,
        loss=_make_loss(lesson, outputs, first),
        options=options,
        report=report,
        save=_saver(lesson),
    )
    history = trainer.fit(_load(lesson))
    if history.gained:
        write_back(quantities)
    return Tuned(
        history=history,
        trained={kind: len(quantities.of_kind(kind)) for kind in ("weight", "scale", "bias", "float")},
        samples=(train.count, validation.count),
        device=str(device),
        notes=(note,) if note else (),
    )


def _make_student(
    model: ir.Model, quantities: Quantities, lesson: Lesson, device: torch.device
) -> Student:
    program = compile_model(model, trained=quantities.values, device=device)
    inside = {value.name: value for node in model.graph for value in node.outputs}
    for name in lesson.layers:
        if name not in inside:
            raise UsageError(f"--distill-layers {name}: the quantized model has no such tensor")
    return Student(program, quantities, tuple(inside[name] for name in lesson.layers))


def _read(lesson: Lesson, part: Part) -> Examples:
    inputs = lesson.teacher.inputs
    return Examples(lambda: lesson.teacher.teach(part.read_samples(inputs), lesson.labels))


def _first_examples(train: Examples) -> tuple[Example, Example]:
    """The first example and the last one of the same shapes, which differs from it most surely."""
    first: Example | None = None
    second: Example | None = None
    for example in train.in_order():
        first = first or example
        if example.signature == first.signature:
            second = example
    if first is None or second is None:
        raise DataError("there are no samples to train on")
    return first, second


def _float_outputs(lesson: Lesson, example: Example, student: Student) -> tuple[str, ...]:
    known = student.program.output_names
    found = tuple(
        name
        for name in lesson.teacher.output_names
        if name in known and name in example.targets and example.targets[name].dtype.kind == "f"
    )
    if not found:
        raise DataError("the model has no output of floats to learn from")
    return found


def _make_loss(lesson: Lesson, outputs: Sequence[str], first: Sequence[Example]) -> Loss:
    if lesson.loss_function is not None:
        user = load_function("--loss", lesson.loss_function)
        return FunctionLoss(lesson.loss_function, user.function)
    weights = {name: 1.0 / len(outputs) for name in outputs}
    if lesson.layers:
        weights = {name: one * (1 - LAYER_SHARE) for name, one in weights.items()}
        weights |= {name: LAYER_SHARE / len(lesson.layers) for name in lesson.layers}
    distillation = Distillation(weights)
    distillation.measure(first)
    if lesson.labels is None:
        return distillation
    output = lesson.labels.output or outputs[0]
    if output not in outputs:
        raise UsageError(f"{lesson.labels.source}: names output '{output}'; the model has none")
    return CrossEntropy(output, distillation)


def _saver(lesson: Lesson) -> Callable[[dict[str, object]], None] | None:
    path = lesson.checkpoint
    if path is None:
        return None
    return lambda state: save_checkpoint(path, state, lesson.fingerprint)


def _load(lesson: Lesson) -> dict[str, object] | None:
    if not lesson.resume or lesson.checkpoint is None:
        return None
    return load_checkpoint(lesson.checkpoint, lesson.fingerprint)
