"""Nodes that hand on what they get: Identity, Dropout in inference, Cast to the same type."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from onnxq.graph.attributes import has_reference, int_attribute
from onnxq.graph.constants import constant_tensor
from onnxq.graph.scopes import iterate_scopes

IDENTITIES = frozenset({"Cast", "Dropout", "Identity"})

_FIRST_OPSET_WITH_INFERENCE_DROPOUT = 7
_TRAINING_MODE_INPUT = 2


def remove_identities(model: ir.Model, kept: Collection[ir.Node] = ()) -> None:
    """Let the readers of such a node read its input, where the names of outputs stay by that."""
    for scope in iterate_scopes(model):
        if scope.function is not None:
            continue
        for node in list(scope.graph):
            if node.op_type not in IDENTITIES or node.domain or node in kept:
                continue
            if refuse_removal(node, scope.opset) is None:
                _remove(node, scope.graph)


def refuse_removal(node: ir.Node, opset: int) -> str | None:
    """Why a node stays, or None if it can be removed."""
    source = node.inputs[0] if node.inputs else None
    if source is None:
        return "has no input"
    if node.outputs[0].is_graph_output():
        return "gives an output its name"
    if has_reference(node):
        return "has an attribute that the caller of its function sets"
    if _graph_of(source) is not node.graph:
        # A name may be taken again within a body, and would hide what is read then.
        return "its input is in another body"
    if node.op_type == "Dropout":
        return _refuse_dropout(node, opset)
    if node.op_type == "Cast" and (
        source.dtype is None or source.dtype != int_attribute(node, "to", 0)
    ):
        return "is not known to keep the type"
    return None


def _refuse_dropout(node: ir.Node, opset: int) -> str | None:
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return "its mask is read"
    if opset < _FIRST_OPSET_WITH_INFERENCE_DROPOUT:
        return "may be in training mode"
    if len(node.inputs) > _TRAINING_MODE_INPUT and node.inputs[_TRAINING_MODE_INPUT] is not None:
        training_mode = constant_tensor(node.inputs[_TRAINING_MODE_INPUT])
        if training_mode is None or training_mode.numpy().any():
            return "may be in training mode"
    return None


def _graph_of(value: ir.Value) -> ir.Graph | ir.Function | None:
    producer = value.producer()
    return value.graph if producer is None else producer.graph


def _remove(node: ir.Node, graph: ir.Graph) -> None:
    source, output = node.inputs[0], node.outputs[0]
    if source is None:
        raise ValueError(f"node '{node.name}' has no input")
    if source.shape is None:
        source.shape = output.shape
    if source.type is None:
        source.type = output.type
    output.replace_all_uses_with(source)
    graph.remove(node, safe=True)
