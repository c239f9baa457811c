"""Planning one model again and again, with more nodes left float or after it was equalized."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from onnxq.graph.copies import ModelCopy
from onnxq.plan.options import StaticOptions
from onnxq.plan.selection import Selection
from onnxq.plan.static import plan_static
from onnxq.plan.types import Plan
from onnxq.targets import Target


@dataclass(frozen=True, kw_only=True)
class StaticPlanner:
    """A float model with all that its plan depends on.

    Attributes:
        model: simplified.
        target: to plan for.
        options: what the user asks.
        selection: made for the model.
        refused: nodes that stay float for reasons found in the data.
        kept_float: nodes that stay float, weights included, for accuracy.
        wide: nodes that compute on integers of 16 bits, for accuracy.
        judged_on_samples: nodes whose weights stay integers even where they look spoiled, because
            the result is measured before it is taken.
    """

    model: ir.Model
    target: Target
    options: StaticOptions
    selection: Selection
    refused: Mapping[ir.Node, str] = field(default_factory=dict)
    kept_float: Mapping[ir.Node, str] = field(default_factory=dict)
    wide: frozenset[ir.Node] = frozenset()
    judged_on_samples: frozenset[ir.Node] = frozenset()

    def plan(self) -> Plan:
        """Every decision."""
        return plan_static(
            self.model,
            self.target,
            self.options,
            self.selection,
            refused=self.refused,
            kept_float=self.kept_float,
            wide=self.wide,
            judged_on_samples=self.judged_on_samples,
        )

    def refuse(self, nodes: Mapping[ir.Node, str]) -> StaticPlanner:
        """The same with more nodes left float."""
        return replace(self, refused={**self.refused, **nodes})

    def keep_float(self, nodes: Mapping[ir.Node, str]) -> StaticPlanner:
        """The same with exactly these nodes kept float for accuracy."""
        return replace(self, kept_float=nodes)

    def widen(self, nodes: Iterable[ir.Node]) -> StaticPlanner:
        """The same with exactly these nodes in 16 bits for accuracy."""
        return replace(self, wide=frozenset(nodes))

    def judge_on_samples(self, nodes: Iterable[ir.Node]) -> StaticPlanner:
        """The same with more nodes whose weights stay integers even where they look spoiled."""
        return replace(self, judged_on_samples=self.judged_on_samples.union(nodes))

    def follow(self, copy: ModelCopy) -> StaticPlanner:
        """The same for a copy of the model."""
        selection, nodes = self.selection, copy.nodes
        return replace(
            self,
            model=copy.model,
            selection=Selection(
                {nodes[node]: label for node, label in selection.labels.items() if node in nodes},
                {nodes[node]: why for node, why in selection.excluded.items() if node in nodes},
            ),
            refused={nodes[node]: why for node, why in self.refused.items()},
            kept_float={nodes[node]: why for node, why in self.kept_float.items()},
            wide=frozenset(nodes[node] for node in self.wide),
            judged_on_samples=frozenset(nodes[node] for node in self.judged_on_samples),
        )
