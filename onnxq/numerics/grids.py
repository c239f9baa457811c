"""Where the integers of each weight lie, for the algorithms that choose between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxq.numerics.affine import FloatArray

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class IntegerGrid:
    """Integers without their zero point; every array has the shape [G, M, K].

    Attributes:
        steps: real weights in units of the scale.
        scale: of each weight.
        low: smallest integer.
        high: largest integer.
    """

    steps: Float32Array
    scale: Float32Array
    low: Float32Array
    high: Float32Array

    @staticmethod
    def place(
        target: FloatArray,
        scale: FloatArray,
        zero_point: npt.NDArray[np.integer[Any]],
        *,
        quantized_min: int,
        quantized_max: int,
    ) -> IntegerGrid:
        """The grid of real weights ``target`` [G, M, K], to which the parameters broadcast."""
        real = np.asarray(target, np.float32)
        scale = np.asarray(scale, np.float32)
        points = np.asarray(zero_point, np.int32)

        def spread(values: npt.NDArray[Any]) -> Float32Array:
            return np.broadcast_to(values.astype(np.float32), real.shape)

        low, high = spread(quantized_min - points), spread(quantized_max - points)
        steps: Float32Array = np.divide(real, scale, dtype=np.float32)
        return IntegerGrid(steps, spread(scale), low, high)

    def reorder(self, order: npt.NDArray[np.intp]) -> IntegerGrid:
        """With the columns of each group in another order, shape [G, K]."""

        def move(values: Float32Array) -> Float32Array:
            # A parameter that all columns share is one number in memory, and stays it.
            shared = values.strides[2] == 0 or values.shape[2] == 1
            return values if shared else np.take_along_axis(values, order[:, None, :], axis=2)

        return IntegerGrid(move(self.steps), move(self.scale), move(self.low), move(self.high))

    def round(self, steps: Float32Array, at: int | slice = slice(None)) -> Float32Array:
        """The nearest integers of the columns ``at``."""
        return np.clip(np.rint(steps), self.low[:, :, at], self.high[:, :, at])

    def error(self, integers: Float32Array) -> Float32Array:
        """Rounded minus real weights, in real units."""
        return (integers - self.steps) * self.scale
