"""Arithmetic, element by element."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

import torch

from onnxq.training.operators.call import Call, Inputs, Operator, Outputs, pointwise


def _divide(_call: Call, inputs: Inputs) -> Outputs:
    a, b = inputs
    if a.is_floating_point():
        return (a / b,)
    return (torch.div(a, b, rounding_mode="trunc"),)


def _power(_call: Call, inputs: Inputs) -> Outputs:
    base, exponent = inputs
    if exponent.numel() == 1 and not exponent.requires_grad:
        # A number is faster than a tensor, and x^2 has a gradient at 0.
        return (torch.pow(base, exponent.item()).to(base.dtype),)
    return (torch.pow(base, exponent).to(base.dtype),)


def _modulo(call: Call, inputs: Inputs) -> Outputs:
    a, b = inputs
    return (torch.fmod(a, b) if call.integer("fmod", 0) else torch.remainder(a, b),)


def _fold(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Operator:
    def compute(_call: Call, inputs: Inputs) -> Outputs:
        return (reduce(function, inputs),)

    return compute


def _mean(_call: Call, inputs: Inputs) -> Outputs:
    return (reduce(torch.add, inputs) / len(inputs),)


OPERATORS: Mapping[str, Operator] = {
    "Add": pointwise(torch.add),
    "Sub": pointwise(torch.sub),
    "Mul": pointwise(torch.mul),
    "Div": _divide,
    "Pow": _power,
    "Mod": _modulo,
    "Neg": pointwise(torch.neg),
    "Abs": pointwise(torch.abs),
    "Sqrt": pointwise(torch.sqrt),
    "Exp": pointwise(torch.exp),
    "Log": pointwise(torch.log),
    "Reciprocal": pointwise(torch.reciprocal),
    "Floor": pointwise(torch.floor),
    "Ceil": pointwise(torch.ceil),
    "Round": pointwise(torch.round),
    "Sign": pointwise(torch.sign),
    "Sin": pointwise(torch.sin),
    "Cos": pointwise(torch.cos),
    "Tan": pointwise(torch.tan),
    "Asin": pointwise(torch.asin),
    "Acos": pointwise(torch.acos),
    "Atan": pointwise(torch.atan),
    "Sinh": pointwise(torch.sinh),
    "Cosh": pointwise(torch.cosh),
    "Max": _fold(torch.maximum),
    "Min": _fold(torch.minimum),
    "Sum": _fold(torch.add),
    "Mean": _mean,
}
