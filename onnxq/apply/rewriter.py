"""What the forms share while a plan is applied: stored weights and quantized activations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.apply.editor import Editor
from onnxq.apply.weights import WeightStore
from onnxq.graph.constants import Use
from onnxq.numerics.affine import Array, Parameters
from onnxq.plan import TensorPlan
from onnxq.rules.roles import Form
from onnxq.targets import Target

BlockKey = tuple[ir.Value, tuple[int, ...], float]
"""A weight, the order of its axes as [K, N], and a factor."""

Blocks = Mapping[BlockKey, tuple[Array, Parameters]]
"""Integers [blocks, block_size, N] and parameters of 4-bit weights that were chosen with data."""


@dataclass(frozen=True)
class Job:
    """One weight that a node reads in a new form."""

    tensor: TensorPlan
    use: Use
    form: Form


@dataclass(frozen=True)
class QuantizedActivation:
    """The three outputs of a DynamicQuantizeLinear."""

    values: ir.Value
    scale: ir.Value
    zero_point: ir.Value


class Rewriter(Editor):
    """An editor that remembers what several nodes can share."""

    def __init__(self, model: ir.Model, target: Target, blocks: Blocks | None = None) -> None:
        super().__init__(model)
        self.target = target
        self.blocks = blocks or {}
        self.weights = WeightStore(self)
        self._activations: dict[tuple[ir.Graph, ir.Value], QuantizedActivation] = {}

    def quantize_activation(
        self, before: ir.Node, value: ir.Value, dtype: ir.DataType
    ) -> QuantizedActivation:
        """The one DynamicQuantizeLinear of ``value`` in the body of ``before``."""
        key = (self.scope_of(before).graph, value)
        if key not in self._activations:
            name = f"{value.name}_quantized"
            if dtype != ir.DataType.FLOAT:
                value = self.cast(before, value, ir.DataType.FLOAT, name=f"{value.name}_float")
            outputs = self.add_node(before, "DynamicQuantizeLinear", (value,), name=name, outputs=3)
            self._activations[key] = QuantizedActivation(*outputs)
        return self._activations[key]
