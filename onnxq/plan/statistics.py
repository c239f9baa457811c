"""What the planner needs to know of the numbers in a weight."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxq.numerics.affine import Array, FloatArray, Parameters, choose_parameters
from onnxq.numerics.metrics import expected_sqnr_db, sum_of_products
from onnxq.schemes import Scheme

MOST_BIAS_STEPS = 2.0**30
"""Half of what int32 holds."""


@dataclass(frozen=True)
class WeightStatistics:
    """Ranges and power of one tensor.

    Attributes:
        minimum: of each channel, with the reduced axes kept at length 1.
        maximum: likewise.
        mean_square: over all elements.
        bulk_mean_square: likewise, without the element of largest magnitude of each channel. One
            outlier a channel makes the scale and, alone, most of the power; what it drowns is the
            rest.
    """

    minimum: FloatArray
    maximum: FloatArray
    mean_square: float
    bulk_mean_square: float

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
        power = sum_of_products(flat, flat)
    minimum = real.min(axis=reduced, keepdims=True)
    maximum = real.max(axis=reduced, keepdims=True)
    extremes = np.maximum(np.abs(minimum), np.abs(maximum)).reshape(-1)
    others = flat.size - extremes.size
    bulk = max(0.0, power - sum_of_products(extremes, extremes))
    return WeightStatistics(
        minimum=minimum,
        maximum=maximum,
        mean_square=power / max(1, flat.size),
        bulk_mean_square=bulk / others if others else power / max(1, flat.size),
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


def expect_sqnr_db(statistics: WeightStatistics, scheme: Scheme, *, bulk: bool = False) -> float:
    """SQNR of the tensor itself after rounding, predicted from its scales.

    Args:
        statistics: of the tensor, along the axes of the scheme.
        scheme: one that is not blocked.
        bulk: leave the largest element of each channel out of the signal.
    """
    scale = resolve_parameters(statistics, scheme).scale.astype(np.float64)
    used = scale[(statistics.maximum != 0) | (statistics.minimum != 0)]
    if used.size == 0:
        return math.inf
    signal = statistics.bulk_mean_square if bulk else statistics.mean_square
    return expected_sqnr_db(signal, float(np.sum(used**2)) / scale.size)


def hold_bias(
    statistics: WeightStatistics, bias: Array, activation_scale: float, scheme: Scheme
) -> WeightStatistics:
    """Statistics with ranges wide enough for a bias in the integers of the sums.

    The scale of a bias is that of the activation times that of the weight. In a channel of tiny
    weights it can be so small that the bias would overflow; there the weights get larger steps,
    which change the sums by less than a step of the output.

    Args:
        statistics: of the weight, along the axes of the scheme.
        bias: one value a channel.
        activation_scale: of the input of the layer.
        scheme: of the weight.
    """
    least = np.abs(bias.astype(np.float64).reshape(-1)) / (activation_scale * MOST_BIAS_STEPS)
    shape = statistics.maximum.shape
    wanted = (least if statistics.maximum.size > 1 else least.max(keepdims=True)).reshape(shape)
    short = resolve_parameters(statistics, scheme).scale.astype(np.float64) < wanted
    if not np.any(short):
        return statistics
    low, high = scheme.range
    dtype = statistics.maximum.dtype
    reach = (wanted * (high - low)).astype(dtype)
    return replace(
        statistics,
        minimum=np.where(short, -reach, statistics.minimum).astype(dtype),
        maximum=np.where(short, reach, statistics.maximum).astype(dtype),
    )
