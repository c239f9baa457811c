"""Normalization, with the statistics of inference."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional

from onnxq.training.operators.call import (
    Call,
    Inputs,
    Operator,
    Outputs,
    UnsupportedFormError,
    optional,
)


def _batch_normalization(call: Call, inputs: Inputs) -> Outputs:
    if call.integer("training_mode", 0):
        raise UnsupportedFormError("BatchNormalization in training mode")
    value, scale, bias, mean, variance = inputs[:5]
    epsilon = call.number("epsilon", 1e-5)
    return (functional.batch_norm(value, mean, variance, scale, bias, training=False, eps=epsilon),)


def _layer_normalization(call: Call, inputs: Inputs) -> Outputs:
    value, scale, bias = inputs[0], inputs[1], optional(inputs, 2)
    axis, epsilon = call.integer("axis", -1) % value.dim(), call.number("epsilon", 1e-5)
    axes = tuple(range(axis, value.dim()))
    if call.outputs == 1 and tuple(scale.shape) == tuple(value.shape[axis:]):
        return (functional.layer_norm(value, value.shape[axis:], scale, bias, epsilon),)
    mean = value.mean(axes, keepdim=True)
    centred = value - mean
    inverse = torch.rsqrt((centred * centred).mean(axes, keepdim=True) + epsilon)
    result = centred * inverse * scale
    return (result if bias is None else result + bias, mean, inverse)[: call.outputs]


def _rms_normalization(call: Call, inputs: Inputs) -> Outputs:
    value, scale = inputs
    axis, epsilon = call.integer("axis", -1) % value.dim(), call.number("epsilon", 1e-5)
    axes = tuple(range(axis, value.dim()))
    inverse = torch.rsqrt((value * value).mean(axes, keepdim=True) + epsilon)
    return (value * inverse * scale,)


def _skip_layer_normalization(call: Call, inputs: Inputs) -> Outputs:
    value, skip, scale = inputs[:3]
    bias, added = optional(inputs, 3), optional(inputs, 4)
    total = value + skip if added is None else value + skip + added
    epsilon = call.number("epsilon", 1e-12)
    result = functional.layer_norm(total, total.shape[-1:], scale, bias, epsilon)
    return (result, total)[: call.outputs] if call.outputs < 3 else (result, total, total, total)


def _instance_normalization(call: Call, inputs: Inputs) -> Outputs:
    value, scale, bias = inputs
    epsilon = call.number("epsilon", 1e-5)
    return (functional.instance_norm(value, weight=scale, bias=bias, eps=epsilon),)


def _group_normalization(call: Call, inputs: Inputs) -> Outputs:
    value, scale, bias = inputs
    groups, epsilon = call.integer("num_groups", 1), call.number("epsilon", 1e-5)
    if scale.numel() == groups and groups != value.shape[1]:  # opset 18: one for each group
        repeats = value.shape[1] // groups
        scale, bias = scale.repeat_interleave(repeats), bias.repeat_interleave(repeats)
    return (functional.group_norm(value, groups, scale, bias, epsilon),)


def _lp_normalization(call: Call, inputs: Inputs) -> Outputs:
    axis, order = call.integer("axis", -1), call.integer("p", 2)
    norm = torch.linalg.vector_norm(inputs[0], order, dim=axis, keepdim=True)
    return (inputs[0] / norm,)


def _local_response(call: Call, inputs: Inputs) -> Outputs:
    size = call.integer("size", 1)
    alpha, beta = call.number("alpha", 1e-4), call.number("beta", 0.75)
    return (functional.local_response_norm(inputs[0], size, alpha, beta, call.number("bias", 1.0)),)


OPERATORS: Mapping[str, Operator] = {
    "BatchNormalization": _batch_normalization,
    "LayerNormalization": _layer_normalization,
    "RMSNormalization": _rms_normalization,
    "SimplifiedLayerNormalization": _rms_normalization,
    "InstanceNormalization": _instance_normalization,
    "GroupNormalization": _group_normalization,
    "LpNormalization": _lp_normalization,
    "LRN": _local_response,
}

MICROSOFT_OPERATORS: Mapping[str, Operator] = {
    "SkipLayerNormalization": _skip_layer_normalization,
}
