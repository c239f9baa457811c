"""What onnxruntime's optimiser made of a model: which nodes compute in integers, which do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from onnxq.graph.constants import constant_tensor
from onnxq.graph.scopes import iterate_bodies, iterate_scopes

_FLOAT_COMPUTE = frozenset(
    {"Conv", "FusedConv", "ConvTranspose", "MatMul", "FusedMatMul", "Gemm", "FusedGemm"}
    | {"LSTM", "GRU", "RNN", "Attention", "MultiHeadAttention", "Einsum"}
)
_INTEGER_COMPUTE = frozenset(
    {"DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulInteger", "DynamicQuantizeLSTM"}
    | {"MatMulNBits", "QAttention", "ConvInteger", "QLinearConv", "QLinearMatMul", "QGemm"}
)

_WEIGHT_INPUTS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("Conv", "FusedConv", "ConvTranspose", "Attention"), (1,)),
    **dict.fromkeys(("MatMul", "FusedMatMul", "Gemm", "FusedGemm"), (0, 1)),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), (1, 2)),
}
"""Which inputs of an operator on floats may hold its weight; all of them for the others."""


@dataclass(frozen=True)
class OptimizedGraph:
    """Counts over all bodies of the optimised graph.

    Attributes:
        float_nodes: nodes that multiply floats, by type.
        integer_nodes: nodes that multiply integers, by type.
        constant_dequantize_nodes: labels of nodes that expand the same weight at every run.
        float_layers: labels of nodes that multiply floats with a weight; the other float nodes
            multiply two activations.
    """

    float_nodes: dict[str, int]
    integer_nodes: dict[str, int]
    constant_dequantize_nodes: tuple[str, ...]
    float_layers: tuple[str, ...] = ()

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
    float_layers: list[str] = []
    fixed = _find_fixed_values(model)
    for scope in iterate_scopes(model):
        for node in scope.graph:
            if node.op_type in _FLOAT_COMPUTE:
                floats[node.op_type] += 1
                if _has_weight(node, fixed):
                    float_layers.append(_label(node))
            elif node.op_type in _INTEGER_COMPUTE:
                integers[node.op_type] += 1
            elif node.op_type == "DequantizeLinear" and _is_constant(node.inputs[0]):
                constant.append(_label(node))
    return OptimizedGraph(
        dict(sorted(floats.items())),
        dict(sorted(integers.items())),
        tuple(constant),
        tuple(float_layers),
    )


def _find_fixed_values(model: ir.Model) -> set[ir.Value]:
    """What nodes compute from constants alone, as a weight that is dequantized and transposed."""
    fixed: set[ir.Value] = set()
    for scope in iterate_scopes(model):
        for node in scope.graph:
            given = [value for value in node.inputs if value is not None]
            if not given or any(True for _ in iterate_bodies(node)):
                continue
            if all(value in fixed or _is_constant(value) for value in given):
                fixed.update(node.outputs)
    return fixed


def _has_weight(node: ir.Node, fixed: set[ir.Value]) -> bool:
    wanted = _WEIGHT_INPUTS.get(node.op_type, range(len(node.inputs)))
    candidates = [node.inputs[index] for index in wanted if index < len(node.inputs)]
    return any(value in fixed or _is_constant(value) for value in candidates if value is not None)


def _label(node: ir.Node) -> str:
    return node.name or node.outputs[0].name or "?"


def _is_constant(value: ir.Value | None) -> bool:
    return constant_tensor(value) is not None
