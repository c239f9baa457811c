"""Outputs that are probabilities, and what they were made of."""

from __future__ import annotations

import enum

import onnx_ir as ir


class Probability(enum.Enum):
    """How an output was made."""

    SOFTMAX = "Softmax"
    SIGMOID = "Sigmoid"


_PASSED = frozenset(
    {"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice"}
)


def find_probabilities(graph: ir.Graph) -> dict[str, Probability]:
    """Outputs behind a Softmax or Sigmoid, by name."""
    kinds = {kind.value: kind for kind in Probability}
    found = {}
    for output in graph.outputs:
        node = output.producer()
        while node is not None and node.op_type in _PASSED and not node.domain:
            source = node.inputs[0]
            node = None if source is None else source.producer()
        if node is not None and not node.domain and node.op_type in kinds:
            found[output.name or ""] = kinds[node.op_type]
    return found
