"""What onnxruntime's optimiser made of a model: which nodes compute in integers, which do not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from onnxq.graph.constants import constant_tensor
from onnxq.graph.scopes import iterate_scopes

_FLOAT_COMPUTE = frozenset(
    {"Conv", "FusedConv", "ConvTranspose", "MatMul", "FusedMatMul", "Gemm", "FusedGemm"}
    | {"LSTM", "GRU", "RNN", "Attention", "MultiHeadAttention", "Einsum"}
)
_INTEGER_COMPUTE = frozenset(
    {"DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulInteger", "DynamicQuantizeLSTM"}
    | {"MatMulNBits", "QAttention", "ConvInteger", "QLinearConv", "QLinearMatMul", "QGemm"}
)


@dataclass(frozen=True)
class OptimizedGraph:
    """Counts over all bodies of the optimised graph.

    Attributes:
        float_nodes: nodes that multiply floats, by type.
        integer_nodes: nodes that multiply integers, by type.
        constant_dequantize_nodes: labels of nodes that expand the same weight at every run.
    """

    float_nodes: dict[str, int]
    integer_nodes: dict[str, int]
    constant_dequantize_nodes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "float_nodes": self.float_nodes,
            "integer_nodes": self.integer_nodes,
            "constant_dequantize_nodes": len(self.constant_dequantize_nodes),
        }


def read_optimized_graph(path: Path) -> OptimizedGraph:
    """Count the nodes of a graph that a session wrote."""
    model = ir.from_proto(onnx.load(str(path), load_external_data=False))
    floats: Counter[str] = Counter()
    integers: Counter[str] = Counter()
    constant: list[str] = []
    for scope in iterate_scopes(model):
        for node in scope.graph:
            if node.op_type in _FLOAT_COMPUTE:
                floats[node.op_type] += 1
            elif node.op_type in _INTEGER_COMPUTE:
                integers[node.op_type] += 1
            elif node.op_type == "DequantizeLinear" and _is_constant(node.inputs[0]):
                constant.append(node.name or (node.outputs[0].name or "?"))
    return OptimizedGraph(
        dict(sorted(floats.items())), dict(sorted(integers.items())), tuple(constant)
    )


def _is_constant(value: ir.Value | None) -> bool:
    return constant_tensor(value) is not None
