"""A copy of a model, and for everything in the original its counterpart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.graph.scopes import Scope, iterate_scopes


@dataclass(frozen=True)
class ModelCopy:
    """A copy that shares the tensors of its original.

    Attributes:
        model: the copy.
        scopes: by the graph of the original scope.
        nodes: by the original node.
        values: by the original value: graph inputs, initializers and outputs of nodes.
    """

    model: ir.Model
    scopes: Mapping[ir.Graph, Scope]
    nodes: Mapping[ir.Node, ir.Node]
    values: Mapping[ir.Value, ir.Value]


def copy_model(model: ir.Model) -> ModelCopy:
    """Copy a model, which is left as it is."""
    copy = model.clone()
    scopes: dict[ir.Graph, Scope] = {}
    nodes: dict[ir.Node, ir.Node] = {}
    values: dict[ir.Value, ir.Value] = {}
    for one, other in zip(iterate_scopes(model), iterate_scopes(copy), strict=True):
        scopes[one.graph] = other
        values.update(zip(one.graph.inputs, other.graph.inputs, strict=True))
        for name, value in one.graph.initializers.items():
            values[value] = other.graph.initializers[name]
        for node, twin in zip(one.graph, other.graph, strict=True):
            nodes[node] = twin
            values.update(zip(node.outputs, twin.outputs, strict=True))
    return ModelCopy(copy, scopes, nodes, values)
