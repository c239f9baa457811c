"""Constants before an activation that can divide its channels, so that no node has to.

What a LayerNormalization gives is multiplied by a vector and shifted by another one. Dividing both
divides each channel, and costs nothing at run time.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from onnxq.graph.attributes import int_attribute
from onnxq.graph.constants import constant_tensor, dimensions

Place = tuple[ir.Node, int]
"""A node and the index of an input that is a constant."""


def find_absorbing_constants(
    value: ir.Value, size: int, readers: Collection[ir.Node]
) -> tuple[Place, ...]:
    """The constants to divide in order to divide the channels of an activation.

    They are gain and bias of a LayerNormalization, whole or written out in pieces, or the vector of
    any other Mul.

    Args:
        value: the activation; its last axis holds the channels.
        size: how many channels there are.
        readers: nodes that may see divided channels.

    Returns:
        Empty where there are none, or where something else reads the activation, too.
    """
    node = value.producer()
    if node is None or node.domain or value.is_graph_output():
        return ()
    if any(reader not in readers for reader, _ in value.uses()):
        return ()
    if node.op_type == "LayerNormalization":
        return _find_in_normalization(node, size)
    if node.op_type not in ("Mul", "Add"):
        return ()
    for index in (0, 1):
        if _is_vector(node.inputs[index], size):
            own, other = ((node, index),), node.inputs[1 - index]
            if node.op_type == "Mul":
                return own
            rest = () if other is None else find_absorbing_constants(other, size, (node,))
            return (*rest, *own) if rest else ()
    return ()


def _find_in_normalization(node: ir.Node, size: int) -> tuple[Place, ...]:
    places = tuple((node, index) for index in (1, 2) if index < len(node.inputs))
    present = tuple(place for place in places if node.inputs[place[1]] is not None)
    is_last = int_attribute(node, "axis", -1) == -1
    return (
        present if is_last and all(_is_vector(node.inputs[at], size) for _, at in present) else ()
    )


def _is_vector(value: ir.Value | None, size: int) -> bool:
    tensor = constant_tensor(value)
    return (
        tensor is not None and tensor.dtype == ir.DataType.FLOAT and dimensions(tensor) == (size,)
    )
