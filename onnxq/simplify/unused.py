"""Nodes and constants that nothing reads."""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as passes


def remove_unused(model: ir.Model) -> None:
    """Remove nodes without a reader, and initializers of any body without one."""
    passes.RemoveUnusedNodesPass()(model)
    for graph in model.graphs():
        for name, value in list(graph.initializers.items()):
            if not (value.uses() or value.is_graph_output() or value.is_graph_input()):
                graph.initializers.pop(name)
