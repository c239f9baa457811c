"""Made-up inputs, only to see that a model runs; never to calibrate on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxq.runtime.session import InputSignature

SEED = 20
FREE_SIZES = (16, 32, 48, 64, 1, 128, 224, 8, 2)
"""Sizes to try for free axes other than the first, which is a batch of 1."""

MOST_ELEMENTS = 1 << 24
"""Of one input; a model with many free axes would be proposed inputs larger than memory."""

KNOWN_INTEGERS = {"mask": 1, "token_type": 0, "segment": 0}
"""Integer inputs that are no indices, by a part of their name: all attended to, one segment."""


@dataclass(frozen=True)
class Hints:
    """What the graph says about inputs that it will take.

    Attributes:
        largest_index: integers stay below it, so that they can be indices into an embedding.
        sizes: sizes that the weights ask for, to be tried for free axes.
    """

    largest_index: int = 2
    sizes: tuple[int, ...] = ()


def propose_feeds(
    inputs: Sequence[InputSignature], hints: Hints
) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
    """Feeds of several sizes, for a caller to find one that the model takes.

    Yields:
        Nothing for a model with an input that is no tensor of numbers; nothing of a size that
        would need more than ``MOST_ELEMENTS`` elements for one input.
    """
    if any(one.dtype is None or np.dtype(one.dtype) == np.object_ for one in inputs):
        return
    tried: set[tuple[tuple[int, ...], ...]] = set()
    for size in (*FREE_SIZES, *hints.sizes):
        shapes = _choose_shapes(inputs, size)
        if shapes in tried or any(math.prod(shape) > MOST_ELEMENTS for shape in shapes):
            continue
        tried.add(shapes)
        generator = np.random.default_rng(SEED)
        yield {
            one.name: _draw(generator, one, shape, hints.largest_index)
            for one, shape in zip(inputs, shapes, strict=True)
        }


def _choose_shapes(inputs: Sequence[InputSignature], size: int) -> tuple[tuple[int, ...], ...]:
    """Shapes with ``size`` for free axes, equal for axes of the same name; 1 for a free batch."""
    names: dict[str, int] = {}
    shapes = []
    for one in inputs:
        shape = []
        for axis, wanted in enumerate(one.shape):
            free = 1 if axis == 0 else size
            if isinstance(wanted, str):
                free = names.setdefault(wanted, free)
            shape.append(wanted if isinstance(wanted, int) and wanted >= 0 else free)
        shapes.append(tuple(shape))
    return tuple(shapes)


def _draw(
    generator: np.random.Generator,
    signature: InputSignature,
    shape: tuple[int, ...],
    largest_index: int,
) -> npt.NDArray[Any]:
    dtype = np.dtype(signature.dtype)
    if dtype == np.bool_:
        return np.ones(shape, np.bool_)
    if dtype.kind in "iu":
        known = _find_known(signature.name)
        if known is not None:
            return np.full(shape, KNOWN_INTEGERS[known], dtype)
        return generator.integers(0, max(1, min(largest_index, 100)), shape).astype(dtype)
    return generator.standard_normal(shape, np.float32).astype(dtype)


def _find_known(name: str) -> str | None:
    return next((part for part in KNOWN_INTEGERS if part in name.lower()), None)
