"""BatchNormalization after Conv or ConvTranspose, folded into its weight and bias.

    y = scale * (conv(x) + b - mean) / sqrt(variance + epsilon) + shift

is a convolution with weight * f and bias (b - mean) * f + shift, f = scale / sqrt(variance +
epsilon): each output channel is only multiplied, so its quantization error stays the same in
relation, and four vectors leave the file.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from onnxq.graph.attributes import float_attribute, has_reference, int_attribute, is_set
from onnxq.graph.constants import (
    add_initializer,
    constant_tensor,
    dimensions,
    require_constant,
)
from onnxq.graph.names import Names
from onnxq.graph.scopes import iterate_scopes
from onnxq.numerics.affine import Array

_EPSILON = 1e-5
_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1}


def fold_batch_normalization(model: ir.Model, kept: Collection[ir.Node] = ()) -> None:
    """Fold every BatchNormalization that can be folded and has nothing to do with ``kept``."""
    names = Names(model)
    for scope in iterate_scopes(model):
        if scope.function is not None:
            continue
        for node in list(scope.graph):
            if (node.op_type, node.domain) != ("BatchNormalization", "") or _touches(node, kept):
                continue
            if refuse_fold(node) is None:
                _fold(node, scope.graph, names)


def _touches(node: ir.Node, kept: Collection[ir.Node]) -> bool:
    source = node.inputs[0]
    return node in kept or (source is not None and source.producer() in kept)


def refuse_fold(node: ir.Node) -> str | None:
    """Why a BatchNormalization stays, or None if it can be folded."""
    source = node.inputs[0]
    convolution = None if source is None else source.producer()
    if convolution is None or convolution.op_type not in _CHANNEL_AXIS or convolution.domain:
        return "does not follow a convolution"
    if source is None or len(source.uses()) != 1 or source.is_graph_output():
        return "the convolution has another reader"
    if has_reference(node) or has_reference(convolution):
        return "has an attribute that the caller of its function sets"
    if convolution.graph is not node.graph:
        return "the convolution is in another body"
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return "is in training mode"
    if is_set(node, "training_mode"):
        return "is in training mode"
    parameters = [constant_tensor(value) for value in node.inputs[1:]]
    if any(tensor is None or len(tensor.shape) != 1 for tensor in parameters):
        return "its parameters are not constant vectors"
    if any(constant_tensor(value) is None for value in convolution.inputs[1:] if value is not None):
        return "the weight of the convolution is not constant"
    weight = convolution.inputs[1]
    tensor = constant_tensor(weight)
    if weight is None or tensor is None or len(weight.uses()) != 1:
        return "the weight of the convolution is shared"
    if convolution.op_type == "ConvTranspose" and int_attribute(convolution, "group", 1) != 1:
        return "the transposed convolution is grouped"
    axis = _CHANNEL_AXIS[convolution.op_type]
    shape = dimensions(tensor)
    if len(shape) <= axis or any(one is None or one.size != shape[axis] for one in parameters):
        return "its parameters do not fit the convolution"
    return None


def _fold(node: ir.Node, graph: ir.Graph, names: Names) -> None:
    source = node.inputs[0]
    convolution = source.producer() if source is not None else None
    if source is None or convolution is None:
        raise ValueError(f"node '{node.name}' follows no convolution")
    scale, shift, mean, variance = (_read(value) for value in node.inputs[1:5])
    factor = scale / np.sqrt(variance + float_attribute(node, "epsilon", _EPSILON))
    weight, dtype = (
        _read(convolution.inputs[1]),
        require_constant(convolution.inputs[1]).dtype.numpy(),
    )
    old_bias = convolution.inputs[2] if len(convolution.inputs) > 2 else None
    bias = 0.0 if old_bias is None else _read(old_bias)
    along_channels = [1] * weight.ndim
    along_channels[_CHANNEL_AXIS[convolution.op_type]] = -1
    base = source.name or "conv"
    array = (weight * factor.reshape(along_channels)).astype(dtype)
    new_weight = add_initializer(graph, ir.Tensor(array), names.new_value(f"{base}_weight"))
    array = ((bias - mean) * factor + shift).astype(dtype)
    new_bias = add_initializer(graph, ir.Tensor(array), names.new_value(f"{base}_bias"))
    convolution.resize_inputs(3)
    convolution.replace_input_with(1, new_weight)
    convolution.replace_input_with(2, new_bias)
    output = node.outputs[0]
    kept = (output.name, output.shape, output.type)
    output.replace_all_uses_with(source, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    source.name, source.shape, source.type = kept


def _read(value: ir.Value | None) -> Array:
    result: Array = require_constant(value).numpy().astype(np.float64)
    return result
