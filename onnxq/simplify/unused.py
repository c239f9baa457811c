"""Nodes and constants that nothing reads."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir
import onnx_ir.passes.common as passes

from onnxq.graph.scopes import iterate_scopes


def remove_unused(model: ir.Model, _kept: Collection[ir.Node] = ()) -> None:
    """Remove nodes without a reader, and initializers of any body without one."""
    passes.RemoveUnusedNodesPass()(model)
    for scope in iterate_scopes(model):
        for name, value in list(scope.graph.initializers.items()):
            if not (value.uses() or value.is_graph_output() or value.is_graph_input()):
                scope.graph.initializers.pop(name)
