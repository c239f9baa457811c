"""How a model that is quantized already can be recognised, in every dialect we know of."""

from __future__ import annotations

import onnx_ir as ir

from onnxq.graph.attributes import int_attribute
from onnxq.graph.constants import constant_tensor
from onnxq.graph.scopes import iterate_scopes, node_label
from onnxq.rules.roles import find_role

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
_WIDE = frozenset({int(ir.DataType.FLOAT), int(ir.DataType.DOUBLE)})
_FLOATS = _WIDE | {int(dtype) for dtype in _HALF_WEIGHTS}
_MOVEMENTS = frozenset({"Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose"})
_SCALINGS = frozenset({"Cast", "Mul", "Sub"})
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
    wanted = int_attribute(node, "to", 0)
    tensor, looked_up = _find_stored(node.inputs[0])
    if tensor is None or tensor.size < _SMALLEST_WEIGHT or len(tensor.shape) < 2:
        return None
    if tensor.dtype in _HALF_WEIGHTS and wanted in _WIDE:
        if looked_up or _reaches_weight(node.outputs[0]):
            return f"widens weights stored as {tensor.dtype.name.lower()}"
    elif tensor.dtype in _INTEGER_WEIGHTS and wanted in _FLOATS:
        scaled = any(reader.op_type in ("Mul", "Sub") for reader, _ in node.outputs[0].uses())
        if (looked_up and scaled) or _reaches_weight(node.outputs[0]):
            return f"turns {tensor.dtype.name.lower()} weights into floats"
    return None


def _find_stored(value: ir.Value | None) -> tuple[ir.TensorProtocol | None, bool]:
    """The constant behind movements, and whether rows of it were looked up."""
    looked_up = False
    while value is not None and constant_tensor(value) is None:
        producer = value.producer()
        if producer is None or producer.op_type not in _MOVEMENTS:
            return None, False
        looked_up |= producer.op_type == "Gather"
        value = producer.inputs[0]
    return constant_tensor(value), looked_up


def _reaches_weight(value: ir.Value) -> bool:
    """Whether a value, scaled and moved at most, is read as the weight of a layer."""
    for reader, index in value.uses():
        role = find_role(reader, index)
        if role is not None and role.operator != "Gather":
            return True
        onward = reader.op_type in _SCALINGS or (reader.op_type in _MOVEMENTS and index == 0)
        if onward and _reaches_weight(reader.outputs[0]):
            return True
    return False
