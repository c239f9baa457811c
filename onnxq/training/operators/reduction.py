"""Reductions along axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from onnxq.training.operators.call import Call, Inputs, Operator, Outputs, optional
from onnxq.training.tensors import to_integers

Reduce = Callable[[torch.Tensor, tuple[int, ...], bool], torch.Tensor]


def _along_axes(function: Reduce) -> Operator:
    def compute(call: Call, inputs: Inputs) -> Outputs:
        value, given = inputs[0], optional(inputs, 1)
        axes = call.integers("axes") if given is None else to_integers(given)
        if not axes:
            if call.integer("noop_with_empty_axes", 0):
                return (value,)
            axes = list(range(value.dim()))
        return (function(value, tuple(axes), bool(call.integer("keepdims", 1))),)

    return compute


def _product(value: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    for axis in sorted((axis % value.dim() for axis in axes), reverse=True):
        value = value.prod(axis, keepdim=keep)
    return value


def _extreme(function: Callable[..., torch.Tensor]) -> Operator:
    def compute(call: Call, inputs: Inputs) -> Outputs:
        (value,) = inputs
        axis, keep = call.integer("axis", 0), bool(call.integer("keepdims", 1))
        if not call.integer("select_last_index", 0):
            return (function(value, dim=axis, keepdim=keep),)
        flipped = function(value.flip(axis), dim=axis, keepdim=keep)
        return (value.shape[axis] - 1 - flipped,)

    return compute


def _cumulative_sum(call: Call, inputs: Inputs) -> Outputs:
    value, axis = inputs[0], int(inputs[1].item())
    if call.integer("reverse", 0):
        value = value.flip(axis)
    total = value.cumsum(axis)
    if call.integer("exclusive", 0):
        total = total - value
    return (total.flip(axis) if call.integer("reverse", 0) else total,)


def _top_k(call: Call, inputs: Inputs) -> Outputs:
    count, axis = int(inputs[1].item()), call.integer("axis", -1)
    largest, ordered = bool(call.integer("largest", 1)), bool(call.integer("sorted", 1))
    values, places = torch.topk(inputs[0], count, axis, largest, ordered)
    return values, places


OPERATORS: Mapping[str, Operator] = {
    "ReduceMean": _along_axes(lambda value, axes, keep: value.mean(axes, keepdim=keep)),
    "ReduceSum": _along_axes(lambda value, axes, keep: value.sum(axes, keepdim=keep)),
    "ReduceMax": _along_axes(lambda value, axes, keep: value.amax(axes, keepdim=keep)),
    "ReduceMin": _along_axes(lambda value, axes, keep: value.amin(axes, keepdim=keep)),
    "ReduceProd": _along_axes(_product),
    "ReduceL1": _along_axes(lambda value, axes, keep: value.abs().sum(axes, keepdim=keep)),
    "ReduceL2": _along_axes(
        lambda value, axes, keep: torch.linalg.vector_norm(value, 2, axes, keepdim=keep)
    ),
    "ReduceSumSquare": _along_axes(
        lambda value, axes, keep: (value * value).sum(axes, keepdim=keep)
    ),
    "ReduceLogSum": _along_axes(lambda value, axes, keep: value.sum(axes, keepdim=keep).log()),
    "ReduceLogSumExp": _along_axes(
        lambda value, axes, keep: torch.logsumexp(value, axes, keepdim=keep)
    ),
    "ArgMax": _extreme(torch.argmax),
    "ArgMin": _extreme(torch.argmin),
    "CumSum": _cumulative_sum,
    "TopK": _top_k,
}
