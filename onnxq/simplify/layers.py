"""Layers whose output channels something multiplies and shifts afterwards.

    factor * (weight * x + bias) + shift = (factor * weight) * x + (factor * bias + shift)

Each output channel is only multiplied, so its quantization error stays the same in relation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.graph.attributes import float_attribute, has_reference, int_attribute, is_set
from onnxq.graph.constants import add_initializer, constant_tensor, dimensions, require_constant
from onnxq.graph.names import Names
from onnxq.numerics.affine import Array

LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm"})
OUTPUT_CHANNEL_AXIS = 1

_SMALLEST_NORMAL = {
    ir.DataType.FLOAT16: 2.0**-14,
    ir.DataType.BFLOAT16: 2.0**-126,
    ir.DataType.FLOAT: 2.0**-126,
    ir.DataType.DOUBLE: 2.0**-1022,
}


@dataclass(frozen=True)
class Change:
    """What happens to the output of a layer.

    Attributes:
        factor: float64, one value or one for each channel.
        shift: float64, likewise; added after the multiplication.
    """

    factor: Array
    shift: Array


def refuse_layer(source: ir.Value | None, reader: ir.Node) -> str | None:
    """Why nothing can be folded into the layer that computes ``source``, or None."""
    layer = None if source is None else source.producer()
    if source is None or layer is None or layer.op_type not in LAYERS or layer.domain:
        return "does not follow a layer with a weight"
    if len(source.uses()) != 1 or source.is_graph_output():
        return "the layer has another reader"
    if has_reference(reader) or has_reference(layer):
        return "has an attribute that the caller of its function sets"
    if layer.graph is not reader.graph:
        return "the layer is in another body"
    if any(constant_tensor(value) is None for value in layer.inputs[1:] if value is not None):
        return "the weight of the layer is not constant"
    weight = layer.inputs[1]
    tensor = constant_tensor(weight)
    if weight is None or tensor is None or len(weight.uses()) != 1:
        return "the weight of the layer is shared"
    if tensor.dtype not in _SMALLEST_NORMAL:
        return "the weight of the layer is not float"
    if layer.op_type == "ConvTranspose" and int_attribute(layer, "group", 1) != 1:
        return "the transposed convolution is grouped"
    if len(tensor.shape) < 2 or not _is_row(_bias(layer), channel_count(layer)):
        return "the bias of the layer differs between rows"
    return None


def refuse_change(layer: ir.Node, change: Change) -> str | None:
    """Why numbers stand against a change of a layer that could be changed otherwise, or None."""
    weight, bias = _change(layer, change)
    if not (_is_finite(weight) and (bias is None or _is_finite(bias))):
        return "the weight would overflow"
    if _underflows(layer, weight, change):
        return "the weight would underflow"
    return None


def channel_count(layer: ir.Node) -> int:
    """How many output channels a layer has, which are columns for Gemm."""
    return dimensions(require_constant(layer.inputs[1]))[_channel_axis(layer)]


def change_layer(layer: ir.Node, change: Change, graph: ir.Graph, names: Names) -> None:
    """Give the layer a weight and a bias of its own, in which the change is."""
    base = layer.outputs[0].name or "layer"
    weight, bias = _change(layer, change)
    new_weight = add_initializer(graph, ir.Tensor(weight), names.new_value(f"{base}_weight"))
    layer.replace_input_with(1, new_weight)
    if bias is not None:
        new_bias = add_initializer(graph, ir.Tensor(bias), names.new_value(f"{base}_bias"))
        layer.resize_inputs(3)
        layer.replace_input_with(2, new_bias)
        # Its part is in the bias now.
        layer.attributes.pop("beta", None)


def _channel_axis(layer: ir.Node) -> int:
    if layer.op_type == "Gemm":
        return 0 if is_set(layer, "transB") else 1
    return {"Conv": 0, "ConvTranspose": 1}[layer.op_type]


def _bias(layer: ir.Node) -> ir.TensorProtocol | None:
    return constant_tensor(layer.inputs[2]) if len(layer.inputs) > 2 else None


def _is_row(bias: ir.TensorProtocol | None, channels: int) -> bool:
    """Whether a bias adds the same to every row, as all but those of some Gemm do."""
    return bias is None or bias.size == 1 or (1, *dimensions(bias))[-2:] == (1, channels)


def _change(layer: ir.Node, change: Change) -> tuple[Array, Array | None]:
    """The new weight and bias; None for no bias."""
    tensor, old_bias, channels = (
        require_constant(layer.inputs[1]),
        _bias(layer),
        channel_count(layer),
    )
    dtype = tensor.dtype.numpy()
    weight = _along_channels(layer, change.factor) * tensor.numpy().astype(np.float64)
    bias = np.broadcast_to(change.shift, (channels,))
    if old_bias is not None:
        scale = float_attribute(layer, "beta", 1.0) * change.factor
        bias = old_bias.numpy().astype(np.float64).reshape(-1) * scale + bias
    with np.errstate(over="ignore"):  # refused afterwards
        new_weight, new_bias = weight.astype(dtype), bias.astype(dtype)
    return new_weight, None if old_bias is None and not new_bias.any() else new_bias


def _along_channels(layer: ir.Node, vector: Array) -> Array:
    """One value for each channel, in a shape that broadcasts to the weight."""
    shape = [1] * len(require_constant(layer.inputs[1]).shape)
    shape[_channel_axis(layer)] = -1
    return vector.reshape(shape)


def _is_finite(array: Array) -> bool:
    return bool(np.isfinite(array).all())


def _underflows(layer: ir.Node, weight: Array, change: Change) -> bool:
    """Whether the numbers of a channel lose digits because all of them get too small.

    A channel with a factor that has lost its own digits is a dead one, and may.
    """
    tensor = require_constant(layer.inputs[1])
    smallest = _SMALLEST_NORMAL[tensor.dtype]
    others = tuple(axis for axis in range(weight.ndim) if axis != _channel_axis(layer))
    before = np.abs(tensor.numpy().astype(np.float64)).max(axis=others, initial=0)
    after = np.abs(weight.astype(np.float64)).max(axis=others, initial=0)
    lost = (before >= smallest) & (after < smallest) & (np.abs(change.factor) >= smallest)
    return bool(lost.any())
