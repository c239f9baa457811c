"""How a model that is quantized already can be recognised, in every dialect we know of."""

from __future__ import annotations

import onnx_ir as ir

from onnxq.graph.attributes import int_attribute
from onnxq.graph.constants import FLOAT_TYPES, constant_tensor, iterate_constants
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
_INTEGER_STEPS = frozenset({"Cast", "Sub"})
_SCALINGS = frozenset({"Add", "Cast", "Div", "Mul", "Sub"})
_SMALLEST_WEIGHT = 256
"""Elements; fewer are a lookup table or a constant of the arithmetic, not a weight."""


def find_quantization(model: ir.Model) -> str | None:
    """What shows that the model is quantized, as text, or None.

    Weights in 16 bits that are widened count only where they are most of the weights: a
    mixed-precision export widens some, too.
    """
    halves, widened = "", 0
    for scope in iterate_scopes(model):
        for position, node in enumerate(scope.graph):
            tensor = _find_widened(node)
            widened += 0 if tensor is None else tensor.size
            found = _describe(node)
            if found is None and (tensor is None or halves):
                continue
            label = f"node '{scope.path_of(node_label(node, position))}'"
            if found is not None:
                return f"{label} {found}"
            if tensor is not None:
                halves = f"{label} widens weights stored as {tensor.dtype.name.lower()}"
    return halves if widened and widened > _count_plain_weights(model) else None


def _count_plain_weights(model: ir.Model) -> int:
    """Elements of the float weights that layers read directly."""
    return sum(
        constant.tensor.size
        for constant in iterate_constants(model)
        if constant.tensor.dtype in FLOAT_TYPES
        and constant.tensor.size >= _SMALLEST_WEIGHT
        and any(
            (role := find_role(use.node, use.input_index)) is not None
            and (role.operator != "Gather" or not _is_widened(use.node))
            for use in constant.uses
        )
    )


def _is_widened(lookup: ir.Node) -> bool:
    return any(_find_widened(reader) is not None for reader, _ in lookup.outputs[0].uses())


def _describe(node: ir.Node) -> str | None:
    """What in one node is quantized beyond doubt."""
    if node.op_type in _OPERATORS or node.op_type.startswith(_PREFIXES):
        return f"is a {node.op_type}"
    if not _is_cast(node, _FLOATS):
        return None
    tensor, looked_up = _find_stored(node.inputs[0])
    if tensor is None or tensor.dtype not in _INTEGER_WEIGHTS:
        return None
    scaled = any(reader.op_type in _SCALINGS for reader, _ in node.outputs[0].uses())
    if (looked_up and scaled) or _reaches_weight(node.outputs[0]):
        return f"turns {tensor.dtype.name.lower()} weights into floats"
    return None


def _find_widened(node: ir.Node) -> ir.TensorProtocol | None:
    """The 16-bit weight that a Cast widens."""
    if not _is_cast(node, _WIDE):
        return None
    tensor, looked_up = _find_stored(node.inputs[0])
    if tensor is None or tensor.dtype not in _HALF_WEIGHTS:
        return None
    return tensor if looked_up or _reaches_weight(node.outputs[0]) else None


def _is_cast(node: ir.Node, wanted: frozenset[int]) -> bool:
    return node.op_type == "Cast" and not node.domain and int_attribute(node, "to", 0) in wanted


def _find_stored(value: ir.Value | None) -> tuple[ir.TensorProtocol | None, bool]:
    """The stored weight behind movements, and whether rows of it were looked up."""
    looked_up = False
    while value is not None and constant_tensor(value) is None:
        producer = value.producer()
        if producer is None or producer.op_type not in _MOVEMENTS | _INTEGER_STEPS:
            return None, False
        looked_up |= producer.op_type == "Gather"
        value = producer.inputs[0]
    tensor = constant_tensor(value)
    if tensor is None or tensor.size < _SMALLEST_WEIGHT or len(tensor.shape) < 2:
        return None, False
    return tensor, looked_up


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
