"""Constants: initializers, Constant nodes, and who uses them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.graph.scopes import Scope, iterate_scopes

FLOAT_TYPES = (
    ir.DataType.FLOAT,
    ir.DataType.FLOAT16,
    ir.DataType.BFLOAT16,
    ir.DataType.DOUBLE,
)


@dataclass(frozen=True)
class Use:
    """One place that reads a constant.

    Attributes:
        node: the reading node.
        input_index: which of its inputs.
        transposed: whether a Transpose of the last two axes stands in between.
    """

    node: ir.Node
    input_index: int
    transposed: bool = False


@dataclass(frozen=True)
class Constant:
    """A tensor that never changes at run time.

    Attributes:
        value: the edge that carries it.
        tensor: its elements, read only when asked for.
        scope: the body it belongs to.
        overridable: whether a caller may feed another value, because it is a graph input too.
    """

    value: ir.Value
    tensor: ir.TensorProtocol
    scope: Scope
    overridable: bool = False

    @property
    def name(self) -> str:
        """Name of the edge, with its scope."""
        return self.scope.path_of(self.value.name or "?")

    @property
    def uses(self) -> tuple[Use, ...]:
        """Every reader, seen through Transposes of a matrix that other nodes share."""
        found: list[Use] = []
        for node, index in self.value.uses():
            if is_matrix_transpose(node, self.tensor) and not node.outputs[0].is_graph_output():
                found += [Use(reader, at, True) for reader, at in node.outputs[0].uses()]
            else:
                found.append(Use(node, index))
        return tuple(found)


def iterate_constants(model: ir.Model) -> Iterator[Constant]:
    """Every initializer and every Constant node of the model, in file order."""
    for scope in iterate_scopes(model):
        for value in scope.graph.initializers.values():
            if value.const_value is not None:
                yield Constant(value, value.const_value, scope, value.is_graph_input())
        for node in scope.graph:
            tensor = constant_node_tensor(node)
            if tensor is not None:
                yield Constant(node.outputs[0], tensor, scope)


def constant_node_tensor(node: ir.Node) -> ir.TensorProtocol | None:
    """The dense tensor of a Constant node; None for any other node or form."""
    if node.op_type != "Constant" or node.domain:
        return None
    attribute = node.attributes.get("value")
    if attribute is None or attribute.is_ref() or attribute.type != ir.AttributeType.TENSOR:
        return None
    # Not ``as_tensor``: its check of the protocol takes longer than all else done to a constant.
    tensor: ir.TensorProtocol = attribute.value
    return tensor


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor behind a value that is fixed at load time, else None."""
    if value is None or value.is_graph_input():
        return None
    if value.const_value is not None:
        return value.const_value
    producer = value.producer()
    return None if producer is None else constant_node_tensor(producer)


def require_constant(value: ir.Value | None) -> ir.TensorProtocol:
    """The tensor behind a value that is known to be fixed at load time."""
    tensor = constant_tensor(value)
    if tensor is None:
        raise ValueError(f"'{'' if value is None else value.name}' is not a constant")
    return tensor


def add_initializer(graph: ir.Graph, tensor: ir.TensorProtocol, name: str) -> ir.Value:
    """A new initializer of a body, under a name that nothing has yet."""
    tensor.name = name
    value = ir.Value(
        name=name,
        shape=ir.Shape(dimensions(tensor)),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def is_matrix_transpose(node: ir.Node, tensor: ir.TensorProtocol) -> bool:
    """Whether ``node`` swaps the two axes of a constant matrix."""
    if node.op_type != "Transpose" or node.domain or len(tensor.shape) != 2:
        return False
    permutation = node.attributes.get("perm")
    if permutation is None:
        return True
    return not permutation.is_ref() and tuple(permutation.as_ints()) == (1, 0)


def dimensions(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    """The sizes of a tensor as integers."""
    return tuple(tensor.shape.numpy())


def release(tensor: ir.TensorProtocol) -> None:
    """Let go of the memory map of an external tensor, so that memory stays bounded."""
    if isinstance(tensor, ir.ExternalTensor):
        tensor.release()
