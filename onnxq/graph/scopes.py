"""Scopes: the main graph, the bodies of If, Loop and Scan, and the bodies of local functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True)
class Scope:
    """One body of nodes.

    Attributes:
        name: where it is: '' for the main graph, 'if_12/then_branch' for the body of a node,
            'function()' for a model-local function.
        graph: the nodes.
        function: the model-local function that the nodes belong to, or None.
        opset: version of the ai.onnx operator set in force.
    """

    name: str
    graph: ir.Graph
    function: ir.Function | None
    opset: int

    @property
    def has_initializers(self) -> bool:
        """Whether the body can hold initializers; the outermost body of a function cannot."""
        return self.function is None or self.graph is not self.function.graph

    def path_of(self, name: str) -> str:
        """``name`` with this scope before it."""
        return f"{self.name}/{name}" if self.name else name


def iterate_scopes(model: ir.Model) -> Iterator[Scope]:
    """Every scope of the model, outer before inner, in file order."""
    opset = model.opset_imports.get("", 1)
    yield from _iterate(Scope("", model.graph, None, opset))
    for function in model.functions.values():
        own_opset = function.opset_imports.get("", opset)
        yield from _iterate(Scope(f"{function.name}()", function.graph, function, own_opset))


def node_label(node: ir.Node, position: int) -> str:
    """The name of a node, or its type and position where it has none."""
    return node.name or f"{node.op_type}#{position}"


def iterate_bodies(node: ir.Node) -> Iterator[tuple[str, ir.Graph]]:
    """The graphs that a node holds as attributes, with the attribute's name."""
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.name, attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            for body in attribute.as_graphs():
                yield attribute.name, body


def _iterate(scope: Scope) -> Iterator[Scope]:
    yield scope
    for position, node in enumerate(scope.graph):
        for attribute_name, body in iterate_bodies(node):
            name = scope.path_of(f"{node_label(node, position)}/{attribute_name}")
            yield from _iterate(Scope(name, body, scope.function, scope.opset))
