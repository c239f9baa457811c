"""BatchNormalization after a layer.

    y = scale * (x - mean) / sqrt(variance + epsilon) + shift

multiplies and shifts each channel: f = scale / sqrt(variance + epsilon), and shift - mean * f. Its
four vectors leave the file.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq.graph.attributes import float_attribute, is_set
from onnxq.graph.constants import constant_tensor, require_constant
from onnxq.numerics.affine import Array
from onnxq.simplify.layers import Change, channel_count, refuse_change, refuse_layer

_EPSILON = 1e-5


def refuse_batch_normalization(node: ir.Node) -> str | None:
    """Why a BatchNormalization stays, or None if it can be folded."""
    source = node.inputs[0]
    refusal = refuse_layer(source, node)
    layer = None if source is None else source.producer()
    if refusal is not None or layer is None:
        return refusal
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return "is in training mode"
    if is_set(node, "training_mode"):
        return "is in training mode"
    parameters = [constant_tensor(value) for value in node.inputs[1:]]
    if any(tensor is None or len(tensor.shape) != 1 for tensor in parameters):
        return "its parameters are not constant vectors"
    if any(one is None or one.size != channel_count(layer) for one in parameters):
        return "its parameters do not fit the layer"
    return refuse_change(layer, read_batch_normalization(node))


def read_batch_normalization(node: ir.Node) -> Change:
    """What it does to each channel."""
    scale, shift, mean, variance = (_read(value) for value in node.inputs[1:5])
    with np.errstate(divide="ignore", invalid="ignore"):  # refused afterwards
        factor = scale / np.sqrt(variance + float_attribute(node, "epsilon", _EPSILON))
        return Change(factor, shift - mean * factor)


def _read(value: ir.Value | None) -> Array:
    result: Array = require_constant(value).numpy().astype(np.float64)
    return result
