"""Pad."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional

from onnxq.training.operators.call import Call, Inputs, Operator, Outputs, optional
from onnxq.training.tensors import to_integers


def _pad(call: Call, inputs: Inputs) -> Outputs:
    value = inputs[0]
    given = optional(inputs, 1)
    amounts = (call.integers("pads") or []) if given is None else to_integers(given)
    filler = optional(inputs, 2)
    constant = call.number("value", 0.0) if filler is None else filler.item()
    axes = optional(inputs, 3)
    numbers = list(range(value.dim())) if axes is None else to_integers(axes)
    half = len(amounts) // 2
    sizes = {
        axis % value.dim(): (amounts[at], amounts[half + at]) for at, axis in enumerate(numbers)
    }
    mode = call.text("mode", "constant")
    if mode == "constant":
        flat = [size for axis in reversed(range(value.dim())) for size in sizes.get(axis, (0, 0))]
        return (functional.pad(value, flat, value=constant),)
    for axis, (before, after) in sizes.items():
        value = _extend(value, axis, before, after, mode)
    return (value,)


def _extend(value: torch.Tensor, axis: int, before: int, after: int, mode: str) -> torch.Tensor:
    """Pad one axis with elements of the tensor itself."""
    size = value.shape[axis]
    places = torch.arange(-before, size + after)
    if mode == "edge":
        places = places.clamp(0, size - 1)
    elif mode == "wrap":
        places = places % size
    else:
        places = places.abs()
        places = torch.where(places >= size, 2 * (size - 1) - places, places)
    return value.index_select(axis, places.to(value.device))


OPERATORS: Mapping[str, Operator] = {"Pad": _pad}
