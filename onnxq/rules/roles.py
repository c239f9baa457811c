"""Which inputs of which operators are weights, and along which axes a scale can differ.

To add an operator is to add a row to ``WEIGHT_ROLES``.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.graph.attributes import is_set

MICROSOFT = "com.microsoft"


class Form(enum.Enum):
    """How a node reads a weight in the quantized model; the order is the order of preference."""

    CALIBRATED = "calibrated"
    BLOCKED_MATMUL = "4-bit matmul"
    INTEGER_MATMUL = "integer matmul"
    INTEGER_LSTM = "integer lstm"
    INTEGER_ATTENTION = "integer attention"
    LOOKUP = "lookup"
    STORAGE = "storage"
    FLOAT = "float"

    @property
    def is_integer(self) -> bool:
        """Whether the node computes with integers."""
        return self in _INTEGER_FORMS


_INTEGER_FORMS = frozenset(
    {
        Form.CALIBRATED,
        Form.BLOCKED_MATMUL,
        Form.INTEGER_MATMUL,
        Form.INTEGER_LSTM,
        Form.INTEGER_ATTENTION,
    }
)

Axes = Callable[[ir.Node, int], tuple[int, ...]]


@dataclass(frozen=True)
class WeightRole:
    """One input that is a weight.

    Attributes:
        domain: '' for ai.onnx.
        operator: operator type.
        input_index: which input.
        axes: from the node and the rank of the weight, the axes of its output channels.
        forms: the forms other than storage that exist for it.
    """

    domain: str
    operator: str
    input_index: int
    axes: Axes
    forms: tuple[Form, ...] = ()


def find_role(node: ir.Node, input_index: int) -> WeightRole | None:
    """The row for an input, or None if the operator does not treat it as a weight."""
    return _ROLES.get((node.domain, node.op_type, input_index))


def _fixed(*axes: int) -> Axes:
    return lambda _node, _rank: axes


def _last(_node: ir.Node, rank: int) -> tuple[int, ...]:
    return (rank - 1,)


def _matmul_left(_node: ir.Node, rank: int) -> tuple[int, ...]:
    return tuple(range(rank - 1))


def _matmul_right(_node: ir.Node, rank: int) -> tuple[int, ...]:
    return (*range(rank - 2), rank - 1)


def _gemm_left(node: ir.Node, _rank: int) -> tuple[int, ...]:
    return (1,) if is_set(node, "transA") else (0,)


def _gemm_right(node: ir.Node, _rank: int) -> tuple[int, ...]:
    return (0,) if is_set(node, "transB") else (1,)


def _fused_matmul_right(node: ir.Node, rank: int) -> tuple[int, ...]:
    return (rank - 2,) if is_set(node, "transB") else (rank - 1,)


_MATMUL = (Form.BLOCKED_MATMUL, Form.INTEGER_MATMUL)

WEIGHT_ROLES: tuple[WeightRole, ...] = (
    WeightRole("", "MatMul", 0, _matmul_left, (Form.INTEGER_MATMUL,)),
    WeightRole("", "MatMul", 1, _matmul_right, _MATMUL),
    WeightRole("", "Gemm", 0, _gemm_left, (Form.INTEGER_MATMUL,)),
    WeightRole("", "Gemm", 1, _gemm_right, _MATMUL),
    WeightRole("", "LSTM", 1, _fixed(0, 1), (Form.INTEGER_LSTM,)),
    WeightRole("", "LSTM", 2, _fixed(0, 1), (Form.INTEGER_LSTM,)),
    WeightRole("", "GRU", 1, _fixed(0, 1)),
    WeightRole("", "GRU", 2, _fixed(0, 1)),
    WeightRole("", "RNN", 1, _fixed(0, 1)),
    WeightRole("", "RNN", 2, _fixed(0, 1)),
    WeightRole("", "Conv", 1, _fixed(0)),
    WeightRole("", "ConvTranspose", 1, _fixed(1)),
    WeightRole("", "DeformConv", 1, _fixed(0)),
    WeightRole("", "Einsum", 0, _last),
    WeightRole("", "Einsum", 1, _last),
    WeightRole("", "Gather", 0, _fixed(0), (Form.LOOKUP,)),
    WeightRole(MICROSOFT, "Attention", 1, _last, (Form.INTEGER_ATTENTION,)),
    WeightRole(MICROSOFT, "FusedConv", 1, _fixed(0)),
    WeightRole(MICROSOFT, "FusedMatMul", 1, _fused_matmul_right),
    WeightRole(MICROSOFT, "FusedGemm", 1, _gemm_right),
    WeightRole(MICROSOFT, "EmbedLayerNormalization", 2, _fixed(0)),
    WeightRole(MICROSOFT, "EmbedLayerNormalization", 3, _fixed(0)),
    WeightRole(MICROSOFT, "EmbedLayerNormalization", 4, _fixed(0)),
)

_ROLES = {(role.domain, role.operator, role.input_index): role for role in WEIGHT_ROLES}
