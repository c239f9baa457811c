"""Outputs that are probabilities of two cases each."""

from __future__ import annotations

import onnx_ir as ir

_PASSED = frozenset(
    {"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice"}
)


def find_sigmoid_outputs(graph: ir.Graph) -> frozenset[str]:
    """Names of the outputs behind a Sigmoid.

    Those behind a Softmax are known by their values, which sum to 1; it is often written in pieces.
    """
    return frozenset(output.name or "" for output in graph.outputs if _is_behind_sigmoid(output))


def _is_behind_sigmoid(value: ir.Value | None) -> bool:
    node = None if value is None else value.producer()
    while node is not None and node.op_type in _PASSED and not node.domain:
        source = node.inputs[0]
        node = None if source is None else source.producer()
    return node is not None and not node.domain and node.op_type == "Sigmoid"
