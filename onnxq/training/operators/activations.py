"""Activation functions, Clip and Softmax."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch.nn import functional

from onnxq.training.operators.call import Call, Inputs, Operator, Outputs, optional, pointwise


def _clip(call: Call, inputs: Inputs) -> Outputs:
    low, high = optional(inputs, 1), optional(inputs, 2)
    if call.opset < 11:
        low, high = call.attributes.get("min"), call.attributes.get("max")
    (value,) = inputs[:1]
    limits = [
        one.item() if isinstance(one, torch.Tensor) and one.numel() == 1 else one
        for one in (low, high)
    ]
    if limits == [None, None]:
        return (value,)
    return (torch.clamp(value, *limits),)


def _softmax(function: Callable[..., torch.Tensor]) -> Operator:
    def compute(call: Call, inputs: Inputs) -> Outputs:
        (value,) = inputs
        if call.opset >= 13:
            return (function(value, dim=call.integer("axis", -1)),)
        # Before opset 13 all axes from the given one on are one.
        axis = call.integer("axis", 1) % max(1, value.dim())
        flat = value.reshape(*value.shape[:axis], -1)
        return (function(flat, dim=-1).reshape(value.shape),)

    return compute


def _hard_sigmoid(call: Call, inputs: Inputs) -> Outputs:
    alpha, beta = call.number("alpha", 0.2), call.number("beta", 0.5)
    return (torch.clamp(inputs[0] * alpha + beta, 0.0, 1.0),)


def _hard_swish(_call: Call, inputs: Inputs) -> Outputs:
    (value,) = inputs
    return (value * torch.clamp(value * (1 / 6) + 0.5, 0.0, 1.0),)


def _leaky_relu(call: Call, inputs: Inputs) -> Outputs:
    return (functional.leaky_relu(inputs[0], call.number("alpha", 0.01)),)


def _prelu(_call: Call, inputs: Inputs) -> Outputs:
    value, slope = inputs
    return (torch.where(value < 0, value * slope, value),)


def _elu(call: Call, inputs: Inputs) -> Outputs:
    return (functional.elu(inputs[0], call.number("alpha", 1.0)),)


def _celu(call: Call, inputs: Inputs) -> Outputs:
    return (functional.celu(inputs[0], call.number("alpha", 1.0)),)


def _selu(call: Call, inputs: Inputs) -> Outputs:
    alpha = call.number("alpha", 1.6732632423543772)
    gamma = call.number("gamma", 1.0507009873554805)
    return (gamma * functional.elu(inputs[0], alpha),)


def _thresholded_relu(call: Call, inputs: Inputs) -> Outputs:
    return (functional.threshold(inputs[0], call.number("alpha", 1.0), 0.0),)


def _gelu(call: Call, inputs: Inputs) -> Outputs:
    return (functional.gelu(inputs[0], approximate=call.text("approximate", "none")),)


def _fast_gelu(_call: Call, inputs: Inputs) -> Outputs:
    value, bias = inputs[0], optional(inputs, 1)
    return (functional.gelu(value if bias is None else value + bias, approximate="tanh"),)


def _quick_gelu(call: Call, inputs: Inputs) -> Outputs:
    (value,) = inputs
    return (value * torch.sigmoid(call.number("alpha", 1.702) * value),)


def _bias_gelu(_call: Call, inputs: Inputs) -> Outputs:
    return (functional.gelu(inputs[0] + inputs[1]),)


OPERATORS: Mapping[str, Operator] = {
    "Relu": pointwise(torch.relu),
    "Clip": _clip,
    "LeakyRelu": _leaky_relu,
    "PRelu": _prelu,
    "Elu": _elu,
    "Celu": _celu,
    "Selu": _selu,
    "ThresholdedRelu": _thresholded_relu,
    "Sigmoid": pointwise(torch.sigmoid),
    "Tanh": pointwise(torch.tanh),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Softplus": pointwise(functional.softplus),
    "Softsign": pointwise(functional.softsign),
    "Mish": pointwise(functional.mish),
    "Erf": pointwise(torch.erf),
    "Gelu": _gelu,
    "Softmax": _softmax(torch.softmax),
    "LogSoftmax": _softmax(torch.log_softmax),
}

MICROSOFT_OPERATORS: Mapping[str, Operator] = {
    "Gelu": _gelu,
    "FastGelu": _fast_gelu,
    "QuickGelu": _quick_gelu,
    "BiasGelu": _bias_gelu,
}
