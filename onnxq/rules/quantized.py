"""How a model that is quantized already can be recognised, in every dialect we know of."""

from __future__ import annotations

import onnx_ir as ir

from onnxq.graph.constants import constant_tensor
from onnxq.graph.scopes import iterate_scopes, node_label

_PREFIXES = ("QLinear", "DynamicQuantize", "QGemm", "QAttention", "QOrdered", "QMoE", "QEmbed")
_OPERATORS = frozenset(
    {
        "QuantizeLinear",
        "DequantizeLinear",
        "MatMulInteger",
        "MatMulInteger16",
        "ConvInteger",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "MatMulBnb4",
        "MatMulFpQ4",
        "GatherBlockQuantized",
        "DequantizeBFP",
        "DequantizeWithOrder",
        "QuantizeWithOrder",
    }
)
_INTEGER_WEIGHTS = (
    ir.DataType.INT8,
    ir.DataType.UINT8,
    ir.DataType.INT4,
    ir.DataType.UINT4,
    ir.DataType.FLOAT8E4M3FN,
    ir.DataType.FLOAT8E5M2,
)
_HALF_WEIGHTS = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_WIDE = (ir.DataType.FLOAT, ir.DataType.DOUBLE)
_SMALLEST_WEIGHT = 256
"""Elements; fewer are a lookup table or a constant of the arithmetic, not a weight."""


def find_quantization(model: ir.Model) -> str | None:
    """What shows that the model is quantized, as text, or None."""
    for scope in iterate_scopes(model):
        for position, node in enumerate(scope.graph):
            found = _describe(node)
            if found:
                return f"node '{scope.path_of(node_label(node, position))}' {found}"
    return None


def _describe(node: ir.Node) -> str | None:
    if node.op_type in _OPERATORS or node.op_type.startswith(_PREFIXES):
        return f"is a {node.op_type}"
    if node.op_type != "Cast" or node.domain not in ("", "ai.onnx"):
        return None
    tensor = constant_tensor(node.inputs[0])
    if tensor is None or tensor.size < _SMALLEST_WEIGHT:
        return None
    wide = node.attributes["to"].as_int() in [int(dtype) for dtype in _WIDE]
    if tensor.dtype in _INTEGER_WEIGHTS:
        return f"turns {tensor.dtype.name.lower()} weights into floats"
    if wide and tensor.dtype in _HALF_WEIGHTS:
        return f"widens weights stored as {tensor.dtype.name.lower()}"
    return None
