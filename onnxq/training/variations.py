"""Small changes of a sample that leave its kind: brightness, noise, place."""

from __future__ import annotations

import numpy as np

from onnxq.training.examples import Arrays
from onnxq.training.tensors import Array

FEWEST_VALUES = 16
"""An input with fewer different values holds a mask or a flag, which are not varied."""

_LOOKED_AT = 1024
"""Elements among which different values are counted."""

LARGEST_GAIN = 0.2
LARGEST_NOISE = 0.1
OFFSET = 0.1
"""The latter two in standard deviations of the input."""

LARGEST_SHIFT = 0.125
"""Of the height or the width of an image."""


def is_graded(array: Array) -> bool:
    """Whether an input holds values that can be a little more or less.

    >>> is_graded(np.linspace(0, 1, 100)), is_graded(np.float32([0, 1] * 50))
    (True, False)
    """
    if array.dtype.kind != "f":
        return False
    flat = array.reshape(-1)[:: max(1, array.size // _LOOKED_AT)]
    return len(np.unique(flat)) >= FEWEST_VALUES


def vary(feeds: Arrays, generator: np.random.Generator) -> dict[str, Array]:
    """Inputs with other brightness and contrast, some noise, and images moved a little.

    Args:
        feeds: inputs of one sample.
        generator: chooses how.
    """
    return {
        name: _vary(array, generator) if is_graded(array) else array
        for name, array in feeds.items()
    }


def _vary(array: Array, generator: np.random.Generator) -> Array:
    real = array.astype(np.float32, copy=False)
    deviation = float(real.std())
    gain = 1 + LARGEST_GAIN * generator.uniform(-1, 1)
    offset = OFFSET * deviation * generator.standard_normal()
    noise = generator.standard_normal(real.shape, np.float32)
    noise *= np.float32(generator.uniform(0, LARGEST_NOISE) * deviation)
    varied = real * np.float32(gain) + np.float32(offset) + noise
    if varied.ndim == 4:
        varied = _move(varied, generator)
    return varied.astype(array.dtype, copy=False)


def _move(images: Array, generator: np.random.Generator) -> Array:
    """Images moved along their last two axes; at the border the last line is repeated."""
    for axis in (2, 3):
        size = images.shape[axis]
        most = int(LARGEST_SHIFT * size)
        places = np.arange(size) + int(generator.integers(-most, most + 1))
        images = images.take(places.clip(0, size - 1), axis)
    return images
