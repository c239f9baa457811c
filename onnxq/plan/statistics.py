"""What the planner needs to know of the numbers in a weight."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.numerics.affine import Array, FloatArray, Parameters, choose_parameters
from onnxq.numerics.metrics import expected_sqnr_db, sum_of_products
from onnxq.schemes import Scheme


@dataclass(frozen=True)
class WeightStatistics:
    """Ranges and power of one tensor.

    Attributes:
        minimum: of each channel, with the reduced axes kept at length 1.
        maximum: likewise.
        mean_square: over all elements.
    """

    minimum: FloatArray
    maximum: FloatArray
    mean_square: float

    @property
    def is_finite(self) -> bool:
        """Whether no element is NaN or infinite."""
        return bool(np.all(np.isfinite(self.minimum)) and np.all(np.isfinite(self.maximum)))


def read_real(tensor: ir.TensorProtocol) -> Array:
    """The elements as an array that numpy can calculate with: 16-bit floats become float32."""
    return widen(tensor.numpy())


def widen(array: Array) -> Array:
    """16-bit floats as float32; wider ones as they are."""
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def measure_weight(real: Array, axes: tuple[int, ...]) -> WeightStatistics:
    """Ranges of ``real`` for each index along ``axes``."""
    reduced = tuple(axis for axis in range(real.ndim) if axis not in axes)
    flat = real.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        power = sum_of_products(flat, flat) / max(1, flat.size)
    return WeightStatistics(
        minimum=real.min(axis=reduced, keepdims=True),
        maximum=real.max(axis=reduced, keepdims=True),
        mean_square=power,
    )


def resolve_parameters(statistics: WeightStatistics, scheme: Scheme) -> Parameters:
    """Scales and zero points of a scheme that is not blocked."""
    low, high = scheme.range
    return choose_parameters(
        statistics.minimum,
        statistics.maximum,
        quantized_min=low,
        quantized_max=high,
        midpoint=scheme.midpoint if scheme.symmetric else None,
    )


def expect_sqnr_db(statistics: WeightStatistics, scheme: Scheme) -> float:
    """SQNR of the tensor itself after rounding, predicted from its scales."""
    scale = resolve_parameters(statistics, scheme).scale.astype(np.float64)
    used = scale[(statistics.maximum != 0) | (statistics.minimum != 0)]
    if used.size == 0:
        return math.inf
    return expected_sqnr_db(statistics.mean_square, float(np.sum(used**2)) / scale.size)
