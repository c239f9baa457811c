"""Rounding weights so that the outputs of their layers keep, not the weights themselves."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from onnxq.algorithms.visits import LayerChange, LayerSample, multiply_rows
from onnxq.apply.weights import parameters_of, scheme_of
from onnxq.numerics.ada_round import round_adaptively
from onnxq.numerics.affine import Array
from onnxq.numerics.bias_correction import find_shares, match_mean
from onnxq.numerics.moments import Moments
from onnxq.numerics.pairs import find_large_pairs
from onnxq.numerics.second_order import choose_damping, round_second_order, shift_target
from onnxq.numerics.weight_scales import shrink_ranges
from onnxq.plan import TensorPlan

ADAPTIVE_ITERATIONS = 500
MOST_ADAPTIVE_PRODUCTS = 2 * 10**10
"""Multiplications for one layer, a second of one core; larger layers do without AdaRound."""

DAMPINGS = (0.01, 0.1, 1.0, 10.0)
"""Of targets that undo earlier errors."""

MOST_BITS_TO_SHRINK = 4
"""With more bits clipping a weight costs more than its smaller steps gain."""


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """A visit that rounds weights by second moments, and corrects biases.

    Attributes:
        shift: round towards the weights that also undo errors of earlier layers.
        adaptive: try AdaRound, too.
        sweeps: of coordinate descent, at most.
        most_inputs: a layer with more keeps its weight as it is; None for no limit.
        damping: share of the mean of the diagonal of the Hessian.
    """

    shift: bool = False
    adaptive: bool = False
    sweeps: int = 10
    most_inputs: int | None = None
    damping: float = 0.01

    def __call__(self, sample: LayerSample) -> LayerChange:
        """Round the weight of one layer."""
        layer = sample.layer
        weight = layer.read_weight()
        if self.most_inputs is not None and weight.shape[2] > self.most_inputs:
            return correct_only(sample)
        # With few samples the moments of many inputs are mostly chance.
        target, moments = self._shift(sample, weight)
        chance = weight.shape[2] / (weight.shape[2] + moments.count)
        hessian = _trust_diagonal(moments.hessian, chance)
        tensor = _shrink(sample, target, hessian)
        rounded = self._round(sample, tensor, target, hessian)
        return LayerChange(
            weight=layer.from_matrices(rounded),
            tensor=tensor,
            bias=correct_bias(sample, rounded),
        )

    def _shift(self, sample: LayerSample, weight: Array) -> tuple[Array, Moments]:
        """Which weights to round towards, and the moments of what the layer reads."""
        moments = Moments(groups=weight.shape[0], size=weight.shape[2])
        if not self.shift:
            # Without a shift only what the quantized model reads counts, which costs half.
            moments.add(sample.quantized_rows, sample.quantized_rows)
            return weight, moments
        middle = sample.float_rows.shape[1] // 2
        # Rows come sample by sample.
        first, second = (Moments(groups=weight.shape[0], size=weight.shape[2]) for _ in range(2))
        for half, rows in ((first, slice(None, middle)), (second, slice(middle, None))):
            half.add(sample.float_rows[:, rows], sample.quantized_rows[:, rows])
        moments.merge(first)
        moments.merge(second)
        damping = choose_damping(weight, (first, second), DAMPINGS)
        if damping is None:
            return weight, moments
        return shift_target(weight, moments, damping=damping), moments

    def _round(
        self, sample: LayerSample, tensor: TensorPlan, target: Array, hessian: Array
    ) -> Array:
        parameters, (low, high) = parameters_of(tensor), scheme_of(tensor).range
        scale = sample.layer.spread_channels(parameters.scale)
        zero_point = sample.layer.spread_channels(parameters.zero_point)
        integers = round_second_order(
            target,
            hessian,
            scale,
            zero_point,
            quantized_min=low,
            quantized_max=high,
            damping=self.damping,
            sweeps=self.sweeps,
        )
        products = ADAPTIVE_ITERATIONS * target.size * target.shape[2]
        if self.adaptive and products <= MOST_ADAPTIVE_PRODUCTS:
            integers = round_adaptively(
                target,
                hessian,
                scale,
                zero_point,
                integers,
                quantized_min=low,
                quantized_max=high,
                damping=self.damping,
                iterations=ADAPTIVE_ITERATIONS,
            )
        if scheme_of(tensor).limits_pairs:
            integers = _limit_pairs(sample, integers, target, scale)
        real: Array = (integers - zero_point).astype(np.float32) * scale
        return real


def _limit_pairs(sample: LayerSample, integers: Array, target: Array, scale: Array) -> Array:
    """Nearest integers where two neighbours became too large together."""
    order = sample.layer.order_of_sums
    large = np.empty(integers.shape, np.bool_)
    large[..., order] = find_large_pairs(integers[..., order])
    nearest = np.rint(target / scale).astype(integers.dtype)
    return np.where(large, nearest, integers)


def correct_only(sample: LayerSample) -> LayerChange:
    """Bias correction, with the weight as it is."""
    layer = sample.layer
    stored = layer.to_matrices(sample.stored_weight)
    return LayerChange(bias=correct_bias(sample, stored))


def correct_bias(sample: LayerSample, rounded: Array) -> Array | None:
    """The bias with which the output has the mean that it has in the float model.

    Args:
        sample: of the layer.
        rounded: its weight in the quantized model, shape [groups, channels, inputs].

    Returns:
        One value a channel; None for a layer that can have no bias.
    """
    layer = sample.layer
    if layer.bias_place is None:
        return None
    bias = layer.read_bias()
    few = sample.floats.few
    samples = sample.floats.samples[few]
    wanted = sample.floats.outputs
    found = multiply_rows(rounded, sample.quantized_rows[:, few])
    if layer.is_transposed:
        missing = wanted - found
        mean = missing.mean(axis=0, dtype=np.float64) * find_shares(missing, samples)
        return (bias + layer.sum_rows(mean)).astype(np.float32)
    wanted, found = wanted + bias, found + bias
    bounds = layer.bounds or (-np.inf, np.inf)
    clipped = np.clip(found, *bounds)
    missing = np.clip(wanted, *bounds) - clipped
    mean = missing.mean(axis=0, dtype=np.float64) * find_shares(missing, samples)
    shift = match_mean(found, clipped.mean(axis=0, dtype=np.float64) + mean, bounds=layer.bounds)
    return (bias + shift).astype(np.float32)


def _trust_diagonal(hessian: Array, chance: float) -> Array:
    """Less of what is beside the diagonal."""
    at = np.arange(hessian.shape[1])
    trusted: Array = hessian * (1.0 - chance)
    trusted[:, at, at] = hessian[:, at, at]
    return trusted


def _shrink(sample: LayerSample, target: Array, hessian: Array) -> TensorPlan:
    """Ranges of the channels with the least error, where there are few integers."""
    tensor, layer, scheme = sample.tensor, sample.layer, scheme_of(sample.tensor)
    if scheme.type.bits > MOST_BITS_TO_SHRINK or tensor.statistics is None:
        return tensor
    at = np.arange(hessian.shape[1])
    importance = np.broadcast_to(hessian[:, None, at, at], target.shape)
    minimum, maximum = shrink_ranges(
        layer.from_matrices(target),
        tensor.statistics.minimum,
        tensor.statistics.maximum,
        scheme,
        importance=layer.from_matrices(np.ascontiguousarray(importance)),
    )
    return replace(tensor, statistics=replace(tensor.statistics, minimum=minimum, maximum=maximum))
