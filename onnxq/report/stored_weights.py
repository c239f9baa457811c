"""Where the integers of a weight, its scale and its zero point stand, in every dialect we know."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnxq.graph.attributes import int_attribute
from onnxq.graph.constants import FLOAT_TYPES, constant_tensor
from onnxq.graph.scopes import iterate_scopes

LIMITS = {ir.DataType[f"INT{bits}"]: (-(2**bits // 2), 2**bits // 2 - 1) for bits in (4, 8, 16)}
LIMITS |= {ir.DataType[f"UINT{bits}"]: (0, 2**bits - 1) for bits in (4, 8, 16)}
"""Smallest and largest integer of each type that a weight may have."""

# Inputs of operators: elements, scale, zero point.
_PLACES: dict[str, tuple[int, int, int]] = {
    "DequantizeLinear": (0, 1, 2),
    "QLinearConv": (3, 4, 5),
    "QLinearMatMul": (3, 4, 5),
    "QGemm": (3, 4, 5),
}
_WIDENED = {"Cast": 0, "Gather": 0, "MatMulInteger": 1, "ConvInteger": 1}
_CHANNEL_AXES = {"DequantizeLinear": 1, "QLinearConv": 0, "ConvInteger": 0}
_STEPS = frozenset({"Cast", "Gather", "Identity", "Mul", "Sub"})


@dataclass(frozen=True)
class StoredWeight:
    """A weight as integers."""

    name: str
    elements: ir.TensorProtocol
    scale: ir.TensorProtocol
    zero_point: ir.TensorProtocol | None
    axis: int = -1
    block_size: int = 0


def find_stored_weights(model: ir.Model) -> Iterator[StoredWeight]:
    """Every constant of integers that stands for real numbers."""
    for scope in iterate_scopes(model):
        for node in scope.graph:
            found = _read_places(node) or _read_chain(node)
            if found is not None and found.elements.dtype in LIMITS and found.elements.size > 1:
                yield replace(found, name=scope.path_of(found.name))


def _read_places(node: ir.Node) -> StoredWeight | None:
    """A weight whose scale is another input of the same node."""
    if node.op_type not in _PLACES:
        return None
    at = _PLACES[node.op_type][0]
    elements = read_constant(node, at)
    return None if elements is None else _take_places(name_of(node.inputs[at]), elements, node)


def _take_places(
    name: str,
    elements: ir.TensorProtocol,
    node: ir.Node,
    zero_point: ir.TensorProtocol | None = None,
) -> StoredWeight | None:
    """A weight with the scale and zero point that a node has for it."""
    _, *places = _PLACES[node.op_type]
    scale, own = (read_constant(node, at) for at in places)
    if scale is None:
        return None
    axis = int_attribute(node, "axis", _CHANNEL_AXES.get(node.op_type, -1))
    axis = 0 if int_attribute(node, "transB", 0) else axis
    block_size = int_attribute(node, "block_size", 0)
    zero_point = own if zero_point is None else zero_point
    return StoredWeight(name, elements, scale, zero_point, axis, block_size)


def _read_chain(node: ir.Node) -> StoredWeight | None:
    """A weight that is widened, or multiplied as integers, and multiplied by its scale later."""
    at = _WIDENED.get(node.op_type)
    elements = None if at is None else read_constant(node, at)
    if at is None or elements is None:
        return None
    name, zero_point = name_of(node.inputs[at]), read_constant(node, 3) if at else None
    reader = next((one for one, _ in node.outputs[0].uses()), None)
    while reader is not None and reader.op_type in _STEPS:
        if reader.op_type == "Mul":
            scale = next(filter(None, map(_find_scale, reader.inputs)), None)
            axis = _CHANNEL_AXES.get(node.op_type, -1)
            return None if scale is None else StoredWeight(name, elements, scale, zero_point, axis)
        if reader.op_type == "Sub":
            zero_point = read_constant(reader, 1)
        reader = next((one for one, _ in reader.outputs[0].uses()), None)
    if reader is not None and reader.op_type in _PLACES:
        return _take_places(name, elements, reader, zero_point)
    return None


def _find_scale(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The float constant that a value is, or is made of in one step."""
    producer = None if value is None else value.producer()
    inputs = producer.inputs if producer is not None and producer.op_type in _STEPS else ()
    tensors = (constant_tensor(one) for one in (value, *inputs))
    return next((one for one in tensors if one is not None and one.dtype in FLOAT_TYPES), None)


def read_constant(node: ir.Node, index: int) -> ir.TensorProtocol | None:
    """The constant that an input of a node is; None if it is none, or left out."""
    return constant_tensor(node.inputs[index]) if index < len(node.inputs) else None


def name_of(value: ir.Value | None) -> str:
    """How a value is called in reports."""
    return (value.name if value is not None else None) or "?"
