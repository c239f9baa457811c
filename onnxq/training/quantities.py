"""What is trained: scales, integers, biases and floats of a quantized graph.

Each of them starts exactly where the graph is: what is learned is a factor on a scale, a position
in steps of the first scale, or a difference in units of its own, all of them 1 or 0 at first. Adam
moves every number by about its learning rate a step, so these units make one rate serve layers of
any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import onnx_ir as ir
import torch

from onnxq.training.fake_quantization import round_through
from onnxq.training.pairs import PairOrder, fit_pairs
from onnxq.training.program import Values

INT32_LIMIT = 2.0**31 - 128
"""The largest float32 below 2^31."""


class Quantity(Protocol):
    """A constant of the graph that is computed from something learned."""

    @property
    def kind(self) -> str:
        """'scale', 'weight', 'bias' or 'float': each kind has a learning rate."""

    @property
    def value(self) -> ir.Value:
        """The constant."""

    @property
    def learned(self) -> torch.Tensor | None:
        """The tensor that the optimiser changes; None where everything follows from others."""

    def compute(self, known: Values) -> torch.Tensor:
        """The constant as the graph reads it; ``known`` holds those computed before."""

    def project(self) -> None:
        """Move what is learned back to where it may be."""


def make_learned(shape: Sequence[int], device: torch.device) -> torch.Tensor:
    """Zeros with a gradient."""
    return torch.zeros(tuple(shape), device=device, requires_grad=True)


@dataclass(frozen=True)
class Scale:
    """A scale that is learned in the log domain: ``first * exp(learned)``.

    Attributes:
        value: the constant.
        first: at the start.
        learned: as above.
        ceiling: largest ``learned`` with which the integers stay inside a Clip; None for any.
    """

    value: ir.Value
    first: torch.Tensor
    learned: torch.Tensor
    ceiling: float | None = None
    kind: str = "scale"

    def compute(self, known: Values) -> torch.Tensor:  # noqa: ARG002, D102
        return self.first * torch.exp(self.learned)

    def project(self) -> None:  # noqa: D102
        if self.ceiling is not None:
            with torch.no_grad():
                self.learned.clamp_(max=self.ceiling)


@dataclass(frozen=True)
class RepeatedScale:
    """A scale that repeats another one for every channel."""

    value: ir.Value
    source: ir.Value
    shape: tuple[int, ...]
    kind: str = "scale"
    learned: None = None

    def compute(self, known: Values) -> torch.Tensor:  # noqa: D102
        return known[self.source].reshape(()).expand(self.shape)

    def project(self) -> None:  # noqa: D102
        return


@dataclass(frozen=True)
class ProductScale:
    """The scale of a bias: that of the activation times that of the weight."""

    value: ir.Value
    activation: ir.Value
    weight: ir.Value
    shape: tuple[int, ...]
    kind: str = "scale"
    learned: None = None

    def compute(self, known: Values) -> torch.Tensor:  # noqa: D102
        product = known[self.activation].reshape(()) * known[self.weight]
        return product.reshape(self.shape)

    def project(self) -> None:  # noqa: D102
        return


@dataclass(frozen=True)
class IntegerWeight:
    """Integers of a weight, rounded from positions in steps of the first scale.

    With the scale s and s0 at the start, position p stands for the real weight ``p * s0``, which
    becomes the integer ``round(clamp(p * s0 / s))``.

    Attributes:
        value: the constant integers.
        first: positions at the start, less the zero point; float32 in the shape of the integers.
        learned: what is added to them.
        low: smallest integer.
        high: largest integer.
        zero_point: in a shape that broadcasts; None for 0.
        scale: the learned scale; None where it stays.
        axes: shape of that scale beside the integers.
        pairs: how a kernel adds products in pairs that must stay small; None where it does not.
    """

    value: ir.Value
    first: torch.Tensor
    learned: torch.Tensor
    low: int
    high: int
    zero_point: torch.Tensor | None = None
    scale: Scale | None = None
    axes: tuple[int, ...] = ()
    pairs: PairOrder | None = None
    kind: str = "weight"

    def compute(self, known: Values) -> torch.Tensor:  # noqa: ARG002, D102
        steps = self.first + self.learned
        if self.scale is not None:
            steps = steps * torch.exp(-self.scale.learned).reshape(self.axes)
        if self.zero_point is None:
            bounded = steps.clamp(self.low, self.high)
            if self.pairs is not None:
                bounded = fit_pairs(bounded, self.pairs)
            return round_through(bounded)
        low, high = self.low - self.zero_point, self.high - self.zero_point
        bounded = torch.minimum(torch.maximum(steps, low), high)
        return round_through(bounded) + self.zero_point

    def project(self) -> None:  # noqa: D102
        return


@dataclass(frozen=True)
class IntegerBias:
    """A bias of int32, rounded in units of the scale that it has."""

    value: ir.Value
    scale: ir.Value
    first: torch.Tensor
    unit: float
    learned: torch.Tensor
    kind: str = "bias"

    def compute(self, known: Values) -> torch.Tensor:  # noqa: D102
        # A gradient through the scale would be that of the rounding, a 2^24th of the bias.
        scale = known[self.scale].detach()
        steps = (self.first + self.unit * self.learned) / scale
        return round_through(steps.clamp(-INT32_LIMIT, INT32_LIMIT))

    def project(self) -> None:  # noqa: D102
        return


@dataclass(frozen=True)
class FloatTensor:
    """Floats, learned in units of their root mean square."""

    value: ir.Value
    first: torch.Tensor
    unit: float
    learned: torch.Tensor
    kind: str = "float"

    def compute(self, known: Values) -> torch.Tensor:  # noqa: ARG002, D102
        return self.first + self.unit * self.learned

    def project(self) -> None:  # noqa: D102
        return


@dataclass(frozen=True)
class Quantities:
    """Everything that is trained, each after what it is computed from."""

    all: tuple[Quantity, ...]

    @property
    def values(self) -> frozenset[ir.Value]:
        """The constants of the graph that are computed."""
        return frozenset(one.value for one in self.all)

    def of_kind(self, kind: str) -> list[torch.Tensor]:
        """What the optimiser changes, of one kind."""
        return [one.learned for one in self.all if one.kind == kind and one.learned is not None]

    @property
    def learned(self) -> list[torch.Tensor]:
        """What the optimiser changes."""
        return [one.learned for one in self.all if one.learned is not None]

    def compute(self) -> Values:
        """Every constant as the graph reads it."""
        known: Values = {}
        for one in self.all:
            known[one.value] = one.compute(known)
        return known

    def project(self) -> None:
        """Move everything back to where it may be."""
        for one in self.all:
            one.project()

    def save(self) -> list[torch.Tensor]:
        """Copies of what is learned."""
        return [one.detach().clone() for one in self.learned]

    def restore(self, saved: Sequence[torch.Tensor]) -> None:
        """Put copies back."""
        with torch.no_grad():
            for one, before in zip(self.learned, saved, strict=True):
                one.copy_(before)
