"""What is learned, and the examples that it is learned from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx_ir as ir

from onnxq.comparison.labels import Labels
from onnxq.errors import DataError
from onnxq.samples import Part
from onnxq.training.examples import KEPT_BYTES, Example, Examples
from onnxq.training.options import DEFAULT_STEPS
from onnxq.training.teacher import Teacher


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What to learn, and from what.

    Attributes:
        source: the float model.
        folder: for copies of it.
        train: samples to learn from.
        validation: samples to choose by.
        variants: of these, to choose by besides; None for none.
        synthetic: more to learn from, which have no labels; None for none.
        labels: classes; None to learn from the float model alone.
        loss_function: 'module:function' of the user; None for the losses above.
        layers: tensors inside that are compared, too; they have the same name on both sides.
        bits: of weights.
        float_model: simplified, whose weights the integers came from; None if it is not known.
        checkpoint: file to write after each validation, and to go on from; None for none.
        resume: whether to go on from it.
        blockwise: block after block instead of all at once.
        keeps_integers: whether the integers of weights stay as they are.
        steps: of a training whose length nobody has set, where they can be afforded.
        fingerprint: of everything that the steps depend on.
    """

    source: Path
    folder: Path
    train: Part
    validation: Part
    variants: Part | None = None
    synthetic: Part | None = None
    labels: Labels | None = None
    loss_function: str | None = None
    layers: tuple[str, ...] = ()
    bits: int = 8
    float_model: ir.Model | None = None
    checkpoint: Path | None = None
    resume: bool = False
    blockwise: bool = False
    keeps_integers: bool = False
    steps: int = DEFAULT_STEPS
    fingerprint: str = ""


@dataclass(frozen=True)
class School:
    """Examples, and the teacher that they come from.

    Attributes:
        teacher: the float model.
        train: examples to learn from.
        sources: what they are made of.
        validation: examples to choose by.
        variants: of these, where nothing but the float model says what is right; else None.
        first: two of those to learn from, of the same shapes where there are such.
    """

    teacher: Teacher
    train: Examples
    sources: tuple[Examples, ...]
    validation: Examples
    variants: Examples | None
    first: tuple[Example, Example]

    @property
    def count(self) -> int:
        """How many examples there are to learn from, each counted once."""
        return sum(one.count for one in self.sources)

    @classmethod
    def open(cls, lesson: Lesson, layers: Sequence[str]) -> School:
        """Load the float model, with ``layers`` as outputs."""
        teacher = Teacher(lesson.source, layers, lesson.folder)

        def teach(part: Part, labels: Labels | None) -> Iterator[Example]:
            return teacher.teach(part.read_samples(teacher.inputs), labels)

        reads = [partial(teach, lesson.train, lesson.labels)]
        if lesson.synthetic is not None and lesson.loss_function is None:
            reads.append(partial(teach, lesson.synthetic, None))
        sources = tuple(Examples(one, kept_bytes=KEPT_BYTES // len(reads)) for one in reads)
        train = sources[0] if len(sources) == 1 else join_evenly(*sources)
        validation = Examples(lambda: teach(lesson.validation, lesson.labels))
        variants = None
        if lesson.variants is not None and lesson.labels is None and lesson.loss_function is None:
            variants = Examples(partial(teach, lesson.variants, None))
        return cls(teacher, train, sources, validation, variants, _find_first(train))


def join_evenly(real: Examples, synthetic: Examples) -> Examples:
    """Both, with the real ones so often that they are about as many.

    What is measured, and used later, is of their kind. Without this the small CNN gains nothing
    from more than 3,000 steps (benchmarks/results/qat.md).
    """

    def read() -> Iterator[Example]:
        # Before they are read nothing knows how many they are.
        yield from real.in_order()
        for _ in range(synthetic.count // max(1, real.count) - 1):
            yield from real.in_order()
        yield from synthetic.in_order()

    return Examples(read)


def _find_first(train: Examples) -> tuple[Example, Example]:
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
