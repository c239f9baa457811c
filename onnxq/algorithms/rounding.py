"""Rounding weights so that the outputs of their layers keep, not the weights themselves."""

from __future__ import annotations

import numpy as np

from onnxq.algorithms.sweep import LayerChange, LayerSample
from onnxq.apply.weights import parameters_of, scheme_of
from onnxq.numerics.affine import Array
from onnxq.numerics.bias_correction import match_mean
from onnxq.numerics.moments import Moments
from onnxq.numerics.second_order import round_second_order, shift_target

ROWS_OF_MEANS = 1024
"""That a mean is taken over: of differences, whose spread is small."""


def round_weight(
    sample: LayerSample,
    *,
    damping: float = 0.01,
    shift: bool = False,
    sweeps: int = 10,
    most_inputs: int | None = None,
) -> LayerChange:
    """GPTQ and coordinate descent; with ``shift`` towards the target of quantized inputs."""
    layer, tensor = sample.layer, sample.tensor
    weight = layer.read_weight()
    if most_inputs is not None and weight.shape[2] > most_inputs:
        return correct_only(sample)
    moments = Moments(groups=weight.shape[0], size=weight.shape[2])
    # Without a shift only what the quantized model reads counts, which costs half.
    moments.add(sample.float_rows if shift else sample.quantized_rows, sample.quantized_rows)
    ratio = weight.shape[2] / (weight.shape[2] + moments.count)
    target = shift_target(weight, moments, damping=damping + ratio) if shift else weight
    parameters, scheme = parameters_of(tensor), scheme_of(tensor)
    low, high = scheme.range
    hessian = moments.hessian.copy()
    at = np.arange(hessian.shape[1])
    diagonal = hessian[:, at, at]
    hessian *= 1 - ratio
    hessian[:, at, at] = diagonal
    scale = layer.spread_channels(parameters.scale)
    zero_point = layer.spread_channels(parameters.zero_point)
    integers = round_second_order(
        target,
        hessian,
        scale,
        zero_point,
        quantized_min=low,
        quantized_max=high,
        damping=damping,
        sweeps=sweeps,
    )
    rounded = (integers - zero_point).astype(np.float32) * scale
    return LayerChange(
        weight=layer.from_matrices(rounded), bias=correct_bias(sample, weight, rounded)
    )


def correct_only(sample: LayerSample) -> LayerChange:
    """Bias correction, with the weight as it is."""
    layer = sample.layer
    stored = layer.to_matrices(sample.stored_weight)
    return LayerChange(bias=correct_bias(sample, layer.read_weight(), stored))


def correct_bias(sample: LayerSample, weight: Array, rounded: Array) -> Array | None:
    """The bias with which the output has the mean that it has in the float model."""
    layer = sample.layer
    if layer.bias_place is None:
        return None
    bias = layer.read_bias()
    step = max(1, sample.float_rows.shape[1] // ROWS_OF_MEANS)
    wanted = _outputs(weight, sample.float_rows[:, ::step]) + bias
    found = _outputs(rounded, sample.quantized_rows[:, ::step]) + bias
    if layer.bounds is not None:
        wanted = np.clip(wanted, *layer.bounds)
    shift = match_mean(found, wanted.mean(axis=0, dtype=np.float64), bounds=layer.bounds)
    return (bias + shift).astype(np.float32)


def _outputs(matrices: Array, rows: Array) -> Array:
    """Shape [rows, channels]."""
    products: Array = np.matmul(rows, matrices.transpose(0, 2, 1))
    return products.transpose(1, 0, 2).reshape(rows.shape[1], -1)
