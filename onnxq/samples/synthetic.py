"""Made-up inputs, only to see that a model runs; never to calibrate on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxq.runtime.session import Feeds, InputSignature

SEED = 20
FREE_SIZES = (16, 32, 48, 64, 1, 128, 224, 8, 2)
"""Sizes to try for free axes other than the first, which is a batch of 1."""

KNOWN_INTEGERS = {"mask": 1, "token_type": 0, "segment": 0}
"""Integer inputs that are no indices, by a part of their name: all attended to, one segment."""


def propose_feeds(
    inputs: Sequence[InputSignature], largest_index: int
) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
    """Feeds of several sizes, for a caller to find one that the model takes.

    Args:
        inputs: of the model.
        largest_index: integers stay below it, so that they can be indices into an embedding.

    Yields:
        Nothing for a model with an input that is no tensor of numbers.
    """
    if any(one.dtype is None or np.dtype(one.dtype) == np.object_ for one in inputs):
        return
    has_free_sizes = any(not _is_fixed(size) for one in inputs for size in one.shape[1:])
    for size in FREE_SIZES if has_free_sizes else FREE_SIZES[:1]:
        yield _make(inputs, size, largest_index)


def _make(inputs: Sequence[InputSignature], size: int, largest_index: int) -> Feeds:
    generator = np.random.default_rng(SEED)
    names: dict[str, int] = {}
    feeds: dict[str, npt.NDArray[Any]] = {}
    for one in inputs:
        shape = []
        for axis, wanted in enumerate(one.shape):
            free = 1 if axis == 0 else size
            if isinstance(wanted, str):
                free = names.setdefault(wanted, free)
            shape.append(wanted if isinstance(wanted, int) and wanted >= 0 else free)
        dtype = np.dtype(one.dtype)
        feeds[one.name] = (
            np.full(tuple(shape), KNOWN_INTEGERS[known], dtype)
            if dtype.kind in "iu" and (known := _find_known(one.name)) is not None
            else _draw(generator, dtype, tuple(shape), largest_index)
        )
    return feeds


def _draw(
    generator: np.random.Generator,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    largest_index: int,
) -> npt.NDArray[Any]:
    if dtype == np.bool_:
        return np.ones(shape, np.bool_)
    if dtype.kind in "iu":
        return generator.integers(0, max(1, min(largest_index, 100)), shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)


def _find_known(name: str) -> str | None:
    return next((part for part in KNOWN_INTEGERS if part in name.lower()), None)


def _is_fixed(size: int | str | None) -> bool:
    return isinstance(size, int) and size >= 0
