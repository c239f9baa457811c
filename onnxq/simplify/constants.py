"""Constant folding of data movement: the Slice and Concat with which exporters reorder weights.

Only operators that move elements are folded, and only where the file does not grow by it: what
they compute replaces what they read. So are two that exporters put before those where they compute
shapes and pads, for the few elements that these have. Arithmetic is left to the runtime, which
folds it at load.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Hashable
from math import prod

import numpy as np
import onnx
import onnx_ir as ir

from onnxq.graph.attributes import has_reference, int_attribute
from onnxq.graph.constants import add_initializer, constant_tensor, require_constant
from onnxq.graph.names import Names
from onnxq.graph.scopes import Scope, iterate_scopes
from onnxq.numerics.affine import Array

MOVEMENTS = frozenset(
    {
        "Concat",
        "Flatten",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
SHAPE_MAKERS = frozenset({"Cast", "ConstantOfShape"})
SHAPE_ELEMENTS = 64
GROWTH_ALLOWANCE_BYTES = 256
COMPARED_ELEMENTS = 64
"""Constants up to this size are compared by content, larger ones by identity."""
LARGEST_FOLD_BYTES = 2**30
"""A larger result would have to be computed in memory at once."""

_EXACT_TYPES = frozenset(
    {ir.DataType.BOOL, ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT, ir.DataType.DOUBLE}
)


def fold_constants(model: ir.Model, _kept: Collection[ir.Node] = ()) -> None:
    """Replace movements of constants by constants."""
    names = Names(model)
    for scope in iterate_scopes(model):
        if scope.function is not None:
            continue
        waiting = deque(scope.graph.initializers.values())
        while waiting:
            waiting.extend(_fold_readers(waiting.popleft(), scope, names))


def _fold_readers(source: ir.Value, scope: Scope, names: Names) -> list[ir.Value]:
    """Fold every reader of ``source``, or none; returns the new constants.

    Readers in inner bodies (the two branches of an If, say) that compute the same share the result,
    which becomes a constant of the body that ``source`` is in.
    """
    readers = list(dict.fromkeys(node for node, _ in source.uses()))
    if source.is_graph_output() or not readers or not all(map(_is_foldable, readers)):
        return []
    read = {value for node in readers for value in node.inputs if value is not None}
    freed = [value for value in read if all(node in readers for node, _ in value.uses())]
    freed_bytes = sum(require_constant(value).nbytes for value in freed)
    if freed_bytes > LARGEST_FOLD_BYTES:
        return []
    groups: dict[tuple[Hashable, ...], list[ir.Node]] = {}
    for node in readers:
        groups.setdefault(_computation(node), []).append(node)
    try:
        results = [_evaluate(nodes[0], scope.opset) for nodes in groups.values()]
    except Exception:  # the evaluator raises whatever numpy does; the runtime will say it better
        return []
    written_bytes = sum(array.nbytes for arrays in results for array in arrays)
    if written_bytes > freed_bytes + GROWTH_ALLOWANCE_BYTES:
        return []
    folded = []
    for nodes, arrays in zip(groups.values(), results, strict=True):
        folded += [
            _replace([node.outputs[index] for node in nodes], array, scope.graph, names)
            for index, array in enumerate(arrays)
        ]
        for node in nodes:
            if node.graph is not None:
                node.graph.remove(node, safe=True)
    return folded


def _is_foldable(node: ir.Node) -> bool:
    return (
        (node.op_type in MOVEMENTS or node.op_type in SHAPE_MAKERS)
        and not node.domain
        and not any(output.is_graph_output() for output in node.outputs)
        and not has_reference(node)
        and all(value is None or _is_numeric_constant(value) for value in node.inputs)
        and (node.op_type in MOVEMENTS or _makes_shape(node))
    )


def _makes_shape(node: ir.Node) -> bool:
    """Whether a Cast or ConstantOfShape gives few elements, and the same in every runtime."""
    tensor = require_constant(node.inputs[0])
    if node.op_type == "ConstantOfShape":
        return prod(int(size) for size in tensor.numpy().reshape(-1)) <= SHAPE_ELEMENTS
    if tensor.size > SHAPE_ELEMENTS or not (
        tensor.dtype.is_integer() or tensor.dtype == ir.DataType.BOOL
    ):
        return False
    return int_attribute(node, "to", 0) in _EXACT_TYPES


def _is_numeric_constant(value: ir.Value) -> bool:
    tensor = constant_tensor(value)
    return tensor is not None and not tensor.dtype.is_string()


def _computation(node: ir.Node) -> tuple[Hashable, ...]:
    """Equal for nodes that compute the same from the same."""
    inputs = (None if value is None else _identity(value) for value in node.inputs)
    attributes = sorted(
        ir.to_proto(attribute).SerializeToString(deterministic=True)
        for attribute in node.attributes.values()
    )
    return (node.op_type, len(node.outputs), *attributes, *inputs)


def _identity(value: ir.Value) -> Hashable:
    tensor = require_constant(value)
    if tensor.size > COMPARED_ELEMENTS:
        return value
    return tensor.dtype, tuple(tensor.shape.numpy()), tensor.tobytes()


def _evaluate(node: ir.Node, opset: int) -> list[Array]:
    # Importing the evaluator takes longer than quantizing a small model; most need no folding.
    from onnx.reference import ReferenceEvaluator

    names = [f"i{index}" if value is not None else "" for index, value in enumerate(node.inputs)]
    feeds = {
        name: tensor.numpy()
        for name, value in zip(names, node.inputs, strict=True)
        if (tensor := constant_tensor(value)) is not None
    }
    outputs = [f"o{index}" for index in range(len(node.outputs))]
    proto = onnx.NodeProto(
        op_type=node.op_type,
        input=names,
        output=outputs,
        attribute=[ir.to_proto(attribute) for attribute in node.attributes.values()],
    )
    graph = onnx.GraphProto(
        name="fold",
        node=[proto],
        input=[onnx.ValueInfoProto(name=name) for name in names if name],
        output=[onnx.ValueInfoProto(name=name) for name in outputs],
    )
    imports = [onnx.OperatorSetIdProto(version=opset)]
    evaluator = ReferenceEvaluator(onnx.ModelProto(graph=graph, opset_import=imports))
    return [np.asarray(array) for array in evaluator.run(None, feeds)]


def _replace(outputs: list[ir.Value], array: Array, graph: ir.Graph, names: Names) -> ir.Value:
    producer, name = outputs[0].producer(), outputs[0].name or ""
    if producer is None or producer.graph is not graph:
        # It moves to an outer body, where another branch may have the same name.
        name = names.new_value(name)
    tensor = ir.Tensor(np.ascontiguousarray(array).reshape(array.shape))
    value = add_initializer(graph, tensor, name)
    for output in outputs:
        output.replace_all_uses_with(value)
    return value
