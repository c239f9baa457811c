"""From a quantized model and samples to the same model with better numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import onnx_ir as ir
import torch

from onnxq.errors import DataError, UsageError
from onnxq.samples.user_code import load_function
from onnxq.training.binding import bind
from onnxq.training.blocks import cut_program
from onnxq.training.blockwise import BlockwiseTrainer
from onnxq.training.checkpoints import load_checkpoint, save_checkpoint
from onnxq.training.device import choose_device
from onnxq.training.examples import Example
from onnxq.training.history import History, Report
from onnxq.training.losses import CrossEntropy, Distillation, FunctionLoss, Loss
from onnxq.training.masters import find_masters
from onnxq.training.mixtures import SHARE, SHARE_BESIDE_LABELS, Mixtures, enlarge
from onnxq.training.options import TrainingOptions, settle
from onnxq.training.program import compile_model
from onnxq.training.quantities import Quantities
from onnxq.training.school import Lesson, School
from onnxq.training.student import Student
from onnxq.training.teacher import Teacher, list_tensors
from onnxq.training.trainer import Trainer
from onnxq.training.writing import write_back

UNIT_SAMPLES = 64
"""From which the unit of the loss is found."""

LAYER_SHARE = 0.5
"""Of the loss, all layers inside together; the other half is that of the outputs."""


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


def fine_tune(model: ir.Model, lesson: Lesson, options: TrainingOptions, report: Report) -> Tuned:
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
    quantities = bind(
        model,
        device=device,
        bits=lesson.bits,
        masters=masters,
        keeps_integers=lesson.keeps_integers,
    )
    student = _make_student(model, quantities, lesson, device)
    school = School.open(lesson, lesson.layers)
    student.try_stacking(*school.first)
    trainer = _make_trainer(student, lesson, school, options, report)
    history = trainer.fit()
    if history.gained:
        write_back(quantities)
    kinds = ("weight", "scale", "bias", "float")
    return Tuned(
        history=history,
        trained={kind: len(quantities.of_kind(kind)) for kind in kinds},
        samples=(school.count, school.validation.count),
        device=str(device),
        notes=tuple(filter(None, (note, _note_mixtures(trainer)))),
    )


def _make_trainer(
    student: Student, lesson: Lesson, school: School, options: TrainingOptions, report: Report
) -> Trainer | BlockwiseTrainer:
    outputs = _float_outputs(school.teacher, school.first[0], student)
    loss = _make_loss(lesson, outputs, list(islice(school.train.in_order(), UNIT_SAMPLES)))
    if lesson.blockwise:
        return _make_blockwise_trainer(student, lesson, school, outputs, loss, options, report)
    effort = student.measure_effort(school.first[0])
    return Trainer(
        student=student,
        train=school.train,
        validation=school.validation,
        outputs=outputs,
        loss=loss,
        options=settle(options, samples=school.train.count, effort=effort, steps=lesson.steps),
        report=report,
        mixtures=_make_mixtures(lesson, school.teacher, student),
        more=school.variants,
        save=_saver(lesson),
        resumed=_load(lesson),
    )


def _make_blockwise_trainer(
    student: Student,
    lesson: Lesson,
    school: School,
    outputs: Sequence[str],
    loss: Loss,
    options: TrainingOptions,
    report: Report,
) -> BlockwiseTrainer:
    with torch.no_grad():
        known = student.quantities.compute()
    feeds = school.first[0].feeds
    segments = cut_program(student.program, feeds, known, list_tensors(lesson.source))
    if not segments:
        raise UsageError(
            "--blockwise: no place in this model where one tensor passes; leave it out"
        )
    school = School.open(lesson, [one.target for one in segments])
    mixtures = _make_mixtures(lesson, school.teacher, student)
    train = school.train
    return BlockwiseTrainer(
        student=student,
        segments=segments,
        train=train if mixtures is None else enlarge(train, mixtures, seed=options.seed),
        validation=school.validation,
        outputs=outputs,
        loss=loss,
        options=options,
        report=report,
    )


def _note_mixtures(trainer: Trainer | BlockwiseTrainer) -> str:
    mixtures = trainer.mixtures if isinstance(trainer, Trainer) else None
    if mixtures is None or not mixtures.failed:
        return ""
    return f"learnt from the samples alone, as the float model refused {mixtures.failed}"


def _make_mixtures(lesson: Lesson, teacher: Teacher, student: Student) -> Mixtures | None:
    """Mixtures of samples, where the float model alone says what is right."""
    if lesson.loss_function is not None:
        return None
    share = SHARE if lesson.labels is None else SHARE_BESIDE_LABELS
    return Mixtures(lambda feeds: teacher.answer(feeds, together=student.stacks), share)


def _make_student(
    model: ir.Model, quantities: Quantities, lesson: Lesson, device: torch.device
) -> Student:
    inside = {value.name: value for node in model.graph for value in node.outputs}
    for name in lesson.layers:
        if name not in inside:
            raise UsageError(f"--distill-layers {name}: the quantized model has no such tensor")
    watched = tuple(inside[name] for name in lesson.layers)
    program = compile_model(model, trained=quantities.values, watched=watched, device=device)
    return Student(program, quantities, watched)


def _float_outputs(teacher: Teacher, example: Example, student: Student) -> tuple[str, ...]:
    known = student.program.output_names
    found = tuple(
        name
        for name in teacher.output_names
        if name in known and name in example.targets and example.targets[name].dtype.kind == "f"
    )
    if not found:
        raise DataError("the model has no output of floats to learn from")
    return found


def _make_loss(lesson: Lesson, outputs: Sequence[str], examples: Sequence[Example]) -> Loss:
    if lesson.loss_function is not None:
        user = load_function("--loss", lesson.loss_function)
        return FunctionLoss(lesson.loss_function, user.function)
    weights = {name: 1.0 / len(outputs) for name in outputs}
    if lesson.layers:
        weights = {name: one * (1 - LAYER_SHARE) for name, one in weights.items()}
        weights |= {name: LAYER_SHARE / len(lesson.layers) for name in lesson.layers}
    distillation = Distillation(weights)
    distillation.measure(examples)
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
    path = lesson.checkpoint if lesson.resume else None
    return None if path is None else load_checkpoint(path, lesson.fingerprint)
