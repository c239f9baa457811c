"""Weights whose products are added in pairs: no pair of them may become too large.

On processors that add two products in 16 bits (``numerics.pairs``) static mode chooses scales in
which no such sum overflows. Training moves weights, so it has to keep to that by itself. Otherwise
the runtime computes something else than what was trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
import torch

from onnxq.graph.attributes import int_attribute
from onnxq.graph.constants import constant_tensor, dimensions
from onnxq.numerics.pairs import MOST_IN_A_PAIR, find_large_pairs
from onnxq.training.tensors import to_torch

LARGEST_SUM = MOST_IN_A_PAIR + 2
"""Of two integers of the same sign."""


@dataclass(frozen=True)
class PairOrder:
    """How a kernel goes over a weight.

    Attributes:
        axes: of the weight, in the order of the kernel.
        rows: how many of them, from the first, are not added up.
    """

    axes: tuple[int, ...]
    rows: int

    def to_rows(self, weight: torch.Tensor) -> torch.Tensor:
        """A weight of which neighbours at 2k and 2k + 1 along the last axis are a pair."""
        return weight.permute(self.axes).flatten(self.rows)

    def from_rows(self, rows: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """The weight that ``to_rows`` made ``rows`` of."""
        ordered = rows.reshape([shape[axis] for axis in self.axes])
        return ordered.permute([self.axes.index(axis) for axis in range(len(self.axes))])


def find_pairs(elements: ir.Value) -> PairOrder | None:
    """How the kernel that reads a weight adds its products in pairs.

    None where it does not, and where the weight has a pair that is too large already: then it was
    not made for a processor that minds.

    Args:
        elements: constant integers.
    """
    tensor = constant_tensor(elements)
    if tensor is None or tensor.dtype is not ir.DataType.INT8:
        return None
    order = _find_order(elements, dimensions(tensor))
    if order is None:
        return None
    rows = order.to_rows(to_torch(tensor.numpy()).to(torch.int32))
    return None if bool(find_large_pairs(rows.numpy()).any()) else order


def fit_pairs(steps: torch.Tensor, order: PairOrder) -> torch.Tensor:
    """Positions of which no pair is more than ``LARGEST_SUM`` together, once rounded.

    What is too much is taken from both in equal parts.

    Args:
        steps: real positions of a weight, none beyond 128.
        order: of its axes.

    >>> weight = torch.tensor([[100.0, 60.0, -100.0, 60.0]])
    >>> fit_pairs(weight, PairOrder((0, 1), 1)).tolist()
    [[84.0, 44.0, -100.0, 60.0]]
    """
    rows = order.to_rows(steps)
    width = rows.shape[-1] // 2 * 2
    pairs = rows[..., :width].unflatten(-1, (-1, 2))
    first, second = pairs.detach().unbind(-1)
    excess = (torch.abs(first + second) - LARGEST_SUM).clamp(min=0) / 2
    excess = torch.where(first * second > 0, excess, torch.zeros_like(excess))
    if not bool(excess.any()):
        return steps
    fitted = (pairs - (torch.sign(first) * excess).unsqueeze(-1)).flatten(-2)
    return order.from_rows(torch.cat([fitted, rows[..., width:]], -1), steps.shape)


def _find_order(value: ir.Value, shape: tuple[int, ...]) -> PairOrder | None:
    """Of the first reader that adds in pairs, of integers or of what they are dequantized to."""
    for node, index in value.uses():
        found = None
        if node.op_type == "DequantizeLinear" and index == 0:
            found = _find_order(node.outputs[0], shape)
        elif index == 1:
            found = _order_of(node, shape)
        if found is not None:
            return found
    return None


def _order_of(node: ir.Node, shape: tuple[int, ...]) -> PairOrder | None:
    rank = len(shape)
    if node.op_type == "Conv" and rank > 2:
        # Channels last; depthwise kernels add in 32 bits everywhere (`rules.products`).
        depthwise = shape[1] == 1 and int_attribute(node, "group", 1) == shape[0]
        return None if depthwise else PairOrder((0, *range(2, rank), 1), 1)
    if node.op_type == "Gemm" and rank == 2:
        return PairOrder((0, 1) if int_attribute(node, "transB", 0) else (1, 0), 1)
    if node.op_type in ("MatMul", "MatMulInteger", "MatMulIntegerToFloat") and rank >= 2:
        return PairOrder((*range(rank - 2), rank - 1, rank - 2), rank - 1)
    return None
