"""New samples near those that there are: parts of pictures, mixtures of all else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxq.training.examples import Arrays
from onnxq.training.mixtures import mix
from onnxq.training.tensors import Array
from onnxq.training.variations import is_graded, vary
from onnxq.training.views import draw_view, is_picture


def draw_variants(
    pool: Sequence[Arrays], size: int, generator: np.random.Generator
) -> list[dict[str, Array]]:
    """Variants of samples of one shape.

    Args:
        pool: inputs of the samples that there are.
        size: how many to draw.
        generator: chooses of which samples, and how.
    """
    leader = pool[int(generator.integers(len(pool)))]
    shapes = {name: array.shape for name, array in leader.items()}
    fitting = [one for one in pool if shapes == {name: a.shape for name, a in one.items()}]
    return [_draw(fitting, generator) for _ in range(size)]


def _draw(pool: Sequence[Arrays], generator: np.random.Generator) -> dict[str, Array]:
    first, second = (pool[int(generator.integers(len(pool)))] for _ in range(2))
    if not any(is_picture(array) and is_graded(array) for array in first.values()):
        varied = vary(first, generator), vary(second, generator)
        return mix(*varied, weight=float(generator.random()))
    begun = dict(first)
    for name, array in first.items():
        if is_picture(array) and is_graded(array):
            view = draw_view([one[name] for one in pool], generator)
            begun[name] = view.astype(array.dtype, copy=False)
    return vary(begun, generator)
