"""What an operator gets to know of the node that it computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Inputs = Sequence[Any]
"""Tensors; None for an optional input that is left out."""

Outputs = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Call:
    """A node without its tensors.

    Attributes:
        operator: type of the node.
        attributes: by name; tensors are numpy arrays.
        opset: version of the operator set that the node belongs to.
        outputs: how many the node has.
        device: where floats are.
        real: type of what the graph computes in float32.
    """

    operator: str
    attributes: Mapping[str, Any]
    opset: int
    outputs: int
    device: torch.device
    real: torch.dtype = torch.float32

    def place(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor made from numbers: floats on the device, in the type that is computed in."""
        if not tensor.is_floating_point():
            return tensor
        return tensor.to(self.device, self.real if tensor.dtype is torch.float32 else None)

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        return int(self.attributes.get(name, default))

    def number(self, name: str, default: float) -> float:
        """A float attribute."""
        return float(self.attributes.get(name, default))

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        return str(self.attributes.get(name, default))

    def integers(self, name: str) -> list[int] | None:
        """A list of integers; None if it is not there."""
        found = self.attributes.get(name)
        return None if found is None else [int(one) for one in found]


Operator = Callable[[Call, Inputs], Outputs]


class UnsupportedFormError(Exception):
    """A node whose operator is known, but not with these attributes; the text says which."""


def optional(inputs: Inputs, index: int) -> Any:
    """An input, or None where it is left out."""
    return inputs[index] if index < len(inputs) else None


def pointwise(function: Callable[..., torch.Tensor]) -> Operator:
    """An operator that hands its inputs to a function of torch."""

    def compute(_call: Call, inputs: Inputs) -> Outputs:
        return (function(*inputs),)

    return compute
