"""Files of new samples: synthetic ones to learn from, variants to choose by."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxq.errors import DataError, UnsupportedModelError
from onnxq.samples import Part
from onnxq.training.device import choose_device
from onnxq.training.examples import KEPT_BYTES, Arrays, Example
from onnxq.training.options import TrainingOptions
from onnxq.training.program import compile_model
from onnxq.training.quantities import Quantities
from onnxq.training.student import Student
from onnxq.training.synthesis import STEPS, Synthesizer
from onnxq.training.teacher import Teacher
from onnxq.training.variants import draw_variants
from onnxq.training.variations import is_graded

MOST_SAMPLES = 256
"""With three times as many EfficientNet-Lite0 came out no better (docs/decisions/0041)."""

MOST_OPERATIONS = 5e12
"""Of the forward passes that they take, as many as those of a whole training."""

POOL = 256
"""Samples that are begun at."""

Track = Callable[[Iterable[Any], int | None], Iterable[Any]]


def write_synthetic_samples(
    model: ir.Model,
    source: Path,
    part: Part,
    folder: Path,
    *,
    options: TrainingOptions,
    wanted: int | None,
    track: Track,
) -> int:
    """Write samples in which the float model sees more than in those that there are.

    Args:
        model: the float model, simplified.
        source: its file.
        part: samples to begin at.
        folder: for the new ones, one file each; it is there.
        options: device and seed.
        wanted: how many; None for as many as pay.
        track: shows progress.

    Returns:
        How many were written; none where the engine lacks an operator of the model, or no input is
        made of numbers that can be a little more or less.

    Raises:
        DataError: a sample is bad, or the model cannot run on it.
    """
    device, _ = choose_device(options.device)
    try:
        program = compile_model(model, device=device)
    except UnsupportedModelError:
        return 0
    teacher = Teacher(source, (), folder)
    pool = _read_pool(teacher, part)
    first = pool[0]
    outputs = [name for name, one in first.targets.items() if one.dtype.kind == "f" and one.ndim]
    if not outputs:
        return 0
    student = Student(program, Quantities(()))
    student.try_stacking(first, pool[-1])
    operations = STEPS * student.measure_effort(first).of_step(1)
    count = wanted or min(MOST_SAMPLES, int(MOST_OPERATIONS / operations))
    synthesizer = Synthesizer(
        program=program, outputs=outputs, stacks=student.stacks, seed=options.seed
    )
    written = 0
    for feeds in track(synthesizer.make([one.feeds for one in pool], count), count):
        _write(folder / f"synthetic-{written:04d}.npz", feeds)
        written += 1
    return written


def write_variants(source: Path, part: Part, folder: Path, *, count: int, seed: int) -> int:
    """Write variants of samples: other parts of pictures, mixtures of all else.

    Args:
        source: the float model.
        part: the samples.
        folder: for the new ones, one file each; it is there.
        count: how many, where they fit in memory.
        seed: of everything that is drawn.

    Returns:
        How many were written: those that the float model takes. None where no input is made of
        numbers that can be a little more or less.

    Raises:
        DataError: a sample is bad, or the model cannot run on it.
    """
    teacher = Teacher(source, (), folder)
    pool = [one.feeds for one in _read_pool(teacher, part)]
    if not any(map(is_graded, pool[0].values())):
        return 0
    size_bytes = sum(array.nbytes for array in pool[0].values())
    generator = np.random.default_rng(seed)
    written = 0
    for _ in range(min(count, KEPT_BYTES // size_bytes)):
        # One at a time, as each has the shape of another sample.
        feeds = draw_variants(pool, 1, generator)[0]
        try:
            teacher.answer([feeds], together=False)
        except DataError:
            # Not every model takes all that is between two samples.
            continue
        _write(folder / f"variant-{written:04d}.npz", feeds)
        written += 1
    return written


def _write(path: Path, feeds: Arrays) -> None:
    arrays: dict[str, Any] = dict(feeds)
    np.savez(path, **arrays)


def _read_pool(teacher: Teacher, part: Part) -> list[Example]:
    """The first samples, as many as fit in memory."""
    pool: list[Example] = []
    size_bytes = 0
    for example in islice(teacher.teach(part.read_samples(teacher.inputs), None), POOL):
        pool.append(example)
        size_bytes += example.size_bytes
        if size_bytes > KEPT_BYTES:
            break
    if not pool:
        raise DataError(f"{part.label}: there are no samples")
    return pool
