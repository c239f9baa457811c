"""Comparisons, logic, and choosing by them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from onnxq.training.operators.call import Call, Inputs, Operator, Outputs, pointwise


def _is_infinite(call: Call, inputs: Inputs) -> Outputs:
    (value,) = inputs
    found = torch.zeros_like(value, dtype=torch.bool)
    if call.integer("detect_positive", 1):
        found |= torch.isposinf(value)
    if call.integer("detect_negative", 1):
        found |= torch.isneginf(value)
    return (found,)


OPERATORS: Mapping[str, Operator] = {
    "And": pointwise(torch.logical_and),
    "Or": pointwise(torch.logical_or),
    "Xor": pointwise(torch.logical_xor),
    "Not": pointwise(torch.logical_not),
    "Equal": pointwise(torch.eq),
    "Greater": pointwise(torch.gt),
    "GreaterOrEqual": pointwise(torch.ge),
    "Less": pointwise(torch.lt),
    "LessOrEqual": pointwise(torch.le),
    "IsNaN": pointwise(torch.isnan),
    "IsInf": _is_infinite,
    "Where": pointwise(torch.where),
}
