"""Which constant integers are weights, and which scale and zero point they are read with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnxq.graph.attributes import int_attribute
from onnxq.graph.constants import constant_tensor, dimensions
from onnxq.graph.scopes import iterate_scopes

WEIGHT_TYPES = frozenset(
    {ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT4, ir.DataType.UINT4, ir.DataType.INT16}
)

_PRODUCTS = {
    "MatMulInteger": (1, None, 3),
    "MatMulIntegerToFloat": (1, 3, 5),
    "DynamicQuantizeMatMul": (1, 2, 3),
    "QGemm": (3, 4, 5),
}
"""Of each product of integers: the inputs with the weight, its scale and its zero point."""


@dataclass(frozen=True)
class WeightUse:
    """How integers are read.

    Attributes:
        elements: the integers.
        scale: constant that they are multiplied by; None where none was found.
        zero_point: constant; None for 0.
        axes: shape of scale and zero point beside the elements.
    """

    elements: ir.Value
    scale: ir.Value | None
    zero_point: ir.Value | None
    axes: tuple[int, ...]

    @property
    def is_symmetric(self) -> bool:
        """Whether there is no zero point but 0."""
        tensor = constant_tensor(self.zero_point)
        return tensor is None or not tensor.numpy().any()


def iterate_weights(model: ir.Model) -> Iterator[WeightUse]:
    """Every constant of small integers that stands for real numbers."""
    for scope in iterate_scopes(model):
        for value in scope.graph.initializers.values():
            tensor = constant_tensor(value)
            if tensor is None or tensor.dtype not in WEIGHT_TYPES or not tensor.size:
                continue
            found = [use for use in _find_uses(value, value) if use is not None]
            if found:
                yield found[0] if all(one == found[0] for one in found) else _without_scale(value)


def _without_scale(value: ir.Value) -> WeightUse:
    return WeightUse(value, None, None, ())


def _find_uses(elements: ir.Value, value: ir.Value) -> Iterator[WeightUse | None]:
    """One for each reader; None for readers that take the integers for something else."""
    for node, index in value.uses():
        if node.op_type == "DequantizeLinear" and index == 0:
            yield _read_dequantize(elements, node)
        elif node.op_type in _PRODUCTS and index == _PRODUCTS[node.op_type][0]:
            yield _read_product(elements, node)
        elif node.op_type == "Cast" and index == 0:
            yield from _read_cast(elements, node)
        elif node.op_type == "Sub" and index == 0:
            yield from _read_shifted(elements, node)
        elif node.op_type in ("Transpose", "Gather", "Reshape") and index == 0:
            # In another layout: the scale stays as it is.
            inner = list(_find_uses(elements, node.outputs[0]))
            yield from (None if one is None else _without_scale(elements) for one in inner)
        else:
            yield None


def _read_dequantize(elements: ir.Value, node: ir.Node) -> WeightUse | None:
    scale = node.inputs[1]
    tensor = constant_tensor(scale)
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    if tensor is None or (zero_point is not None and constant_tensor(zero_point) is None):
        return None
    if int_attribute(node, "block_size", 0):
        return _without_scale(elements)
    rank = len(require_shape(elements))
    axes: tuple[int, ...] = ()
    if tensor.size > 1:
        axis = int_attribute(node, "axis", 1) % rank
        axes = tuple(-1 if at == axis else 1 for at in range(rank))
    return WeightUse(elements, scale, zero_point, axes)


def require_shape(value: ir.Value) -> tuple[int, ...]:
    """The shape of a constant."""
    tensor = constant_tensor(value)
    if tensor is None:
        raise ValueError(f"'{value.name}' is not a constant")
    return dimensions(tensor)


def _read_product(elements: ir.Value, node: ir.Node) -> WeightUse:
    _, scale_index, zero_index = _PRODUCTS[node.op_type]
    zero_point = node.inputs[zero_index] if zero_index < len(node.inputs) else None
    scale = _find_scale_behind(node) if scale_index is None else node.inputs[scale_index]
    tensor = constant_tensor(scale)
    if tensor is None or (zero_point is not None and constant_tensor(zero_point) is None):
        return _without_scale(elements)
    axes = dimensions(tensor)
    if node.op_type == "QGemm" and int_attribute(node, "transB", 0) and tensor.size > 1:
        axes = (-1, 1)
    return WeightUse(elements, scale, zero_point, axes)


def _find_scale_behind(product: ir.Node) -> ir.Value | None:
    """The constant in ``Cast(product) * (scale of the activation * constant)``."""
    cast = _only_reader(product.outputs[0])
    multiply = None if cast is None or cast.op_type != "Cast" else _only_reader(cast.outputs[0])
    if cast is None or multiply is None or multiply.op_type != "Mul":
        return None
    other = next((one for one in multiply.inputs if one is not cast.outputs[0]), None)
    scales = None if other is None else other.producer()
    if scales is None or scales.op_type != "Mul":
        return None
    return next((one for one in scales.inputs if constant_tensor(one) is not None), None)


def _read_cast(elements: ir.Value, cast: ir.Node) -> Iterator[WeightUse | None]:
    wanted = int_attribute(cast, "to", 1)
    if ir.DataType(wanted) in WEIGHT_TYPES:
        yield from _find_uses(elements, cast.outputs[0])
        return
    for node, _ in cast.outputs[0].uses():
        yield _read_storage(elements, cast.outputs[0], node)


def _read_shifted(elements: ir.Value, subtraction: ir.Node) -> Iterator[WeightUse | None]:
    """Integers less their zero points, which the scale is then applied to."""
    zero_point = subtraction.inputs[1]
    tensor = constant_tensor(zero_point)
    for use in _find_uses(elements, subtraction.outputs[0]):
        if use is None or tensor is None or not use.is_symmetric:
            yield None
        elif use.scale is None or not _lies_along(tensor, use.axes):
            yield _without_scale(elements)
        else:
            yield replace(use, zero_point=zero_point)


def _lies_along(tensor: ir.TensorProtocol, axes: tuple[int, ...]) -> bool:
    """Whether zero points have the shape that their scales have beside the elements."""
    shape = dimensions(tensor)
    if tensor.size == 1:
        return True
    return len(shape) == len(axes) and all(
        size == 1 for size, wanted in zip(shape, axes, strict=True) if wanted == 1
    )


def _read_storage(elements: ir.Value, wide: ir.Value, node: ir.Node) -> WeightUse | None:
    """``Mul(Cast(integers), scale)``; with a Sub between, the scale stays as it is."""
    if node.op_type == "Sub":
        return _without_scale(elements)
    if node.op_type != "Mul":
        return None
    scale = next((one for one in node.inputs if one is not wide), None)
    tensor = constant_tensor(scale)
    if tensor is None or tensor.dtype != ir.DataType.FLOAT:
        return None
    return WeightUse(elements, scale, None, dimensions(tensor))


def _only_reader(value: ir.Value) -> ir.Node | None:
    readers = list(value.uses())
    return readers[0][0] if len(readers) == 1 else None
