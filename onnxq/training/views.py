"""Other views of pictures: parts of them, enlarged, mirrored, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from onnxq.training.tensors import Array, to_numpy

SMALLEST_SIDE = 64
"""Pixels of a picture from which a part of it still shows something."""

SMALLEST_PART = 0.08
"""Of the area of a picture, as in Szegedy et al. 2015 (arXiv:1409.4842)."""

LARGEST_STRETCH = 1.35

TILED = 0.4
"""Share of the views that are four parts side by side (Bochkovskiy et al. 2020,
arXiv:2004.10934, mosaic)."""


def is_picture(array: Array) -> bool:
    """Whether an input holds pictures that are large enough to show parts of.

    >>> is_picture(np.zeros((1, 3, 64, 64))), is_picture(np.zeros((1, 3, 8, 8)))
    (True, False)
    """
    return array.ndim == 4 and min(array.shape[2:]) >= SMALLEST_SIDE


def draw_view(pictures: Sequence[Array], generator: np.random.Generator) -> Array:
    """One picture made of parts of others, in their shape.

    Args:
        pictures: of one shape, rank 4, with height and width last.
        generator: chooses which, and how.
    """
    height, width = pictures[0].shape[2:]
    if generator.random() >= TILED:
        return to_numpy(_draw_part(pictures, height, width, generator))
    top, left = (int(generator.uniform(0.25, 0.75) * size) for size in (height, width))
    rows = [
        torch.cat(
            [_draw_part(pictures, rows, columns, generator) for columns in (left, width - left)], 3
        )
        for rows in (top, height - top)
    ]
    return to_numpy(torch.cat(rows, 2))


def _draw_part(
    pictures: Sequence[Array], height: int, width: int, generator: np.random.Generator
) -> torch.Tensor:
    """A part of one of the pictures, in another size."""
    picture = pictures[int(generator.integers(len(pictures)))]
    area = math.exp(generator.uniform(math.log(SMALLEST_PART), 0.0))
    stretch = math.exp(generator.uniform(-1, 1) * math.log(LARGEST_STRETCH))
    sides = math.sqrt(area * stretch), math.sqrt(area / stretch)
    cuts = []
    for size, share in zip(picture.shape[2:], sides, strict=True):
        length = min(size, max(8, round(size * share)))
        first = int(generator.integers(size - length + 1))
        cuts.append(slice(first, first + length))
    part = torch.from_numpy(np.ascontiguousarray(picture[:, :, cuts[0], cuts[1]], np.float32))
    if generator.random() < 0.5:
        part = part.flip(3)
    return functional.interpolate(
        part, size=(height, width), mode="bilinear", align_corners=False, antialias=True
    )
