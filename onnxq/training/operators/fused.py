"""A QuantizeLinear and its DequantizeLinear as one step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.graph.attributes import float_attribute
from onnxq.graph.constants import constant_tensor
from onnxq.training.fake_quantization import fake_quantize
from onnxq.training.operators.call import Call, Inputs, Outputs, optional
from onnxq.training.operators.quantization import TYPE_LIMITS


@dataclass(frozen=True)
class Pair:
    """What follows a QuantizeLinear.

    Attributes:
        nodes: a Clip of the integers, if there is one, and the DequantizeLinear.
        levels: limits of that Clip.
    """

    nodes: tuple[ir.Node, ...]
    levels: tuple[int, int] | None = None

    @property
    def output(self) -> ir.Value:
        """What the pair gives."""
        return self.nodes[-1].outputs[0]


def find_pair(node: ir.Node) -> Pair | None:
    """The DequantizeLinear that alone reads a QuantizeLinear and has the same single scale."""
    if node.op_type != "QuantizeLinear" or node.domain:
        return None
    reader = only_reader(node)
    clip = reader if reader is not None and reader.op_type == "Clip" else None
    levels = None if clip is None else _read_levels(clip)
    if clip is not None:
        reader = only_reader(clip) if levels is not None else None
    if reader is None or reader.op_type != "DequantizeLinear" or reader.domain:
        return None
    tensor = constant_tensor(node.inputs[1])
    same = tuple(node.inputs[1:]) == tuple(reader.inputs[1:])
    if not same or tensor is None or tensor.size != 1:
        return None
    return Pair((reader,) if clip is None else (clip, reader), levels)


def find_redundant(node: ir.Node) -> ir.Value | None:
    """What a Relu or Clip reads, if the pair behind it leaves nothing outside of its limits.

    A scale is kept from growing beyond that while it is trained.
    """
    if node.op_type not in ("Relu", "Clip") or node.domain:
        return None
    quantize = only_reader(node)
    if quantize is None or find_pair(quantize) is None:
        return None
    low, high = clip_limits(node)
    lowest, highest = range_of(quantize)
    return node.inputs[0] if low <= lowest and highest <= high else None


def clip_limits(node: ir.Node) -> tuple[float, float]:
    """Smallest and largest value that a Relu or Clip gives; NaN where that is not constant."""
    if node.op_type == "Relu":
        return 0.0, math.inf
    if "max" in node.attributes or "min" in node.attributes:
        return float_attribute(node, "min", -math.inf), float_attribute(node, "max", math.inf)
    found = []
    for index, default in ((1, -math.inf), (2, math.inf)):
        value = node.inputs[index] if index < len(node.inputs) else None
        tensor = constant_tensor(value)
        if value is None:
            found.append(default)
        else:
            found.append(math.nan if tensor is None else float(tensor.numpy().reshape(-1)[0]))
    return found[0], found[1]


def range_of(quantize: ir.Node) -> tuple[float, float]:
    """Smallest and largest real value that the integers of a QuantizeLinear can stand for."""
    scale = constant_tensor(quantize.inputs[1])
    zero_point = constant_tensor(quantize.inputs[2]) if len(quantize.inputs) > 2 else None
    if scale is None or scale.size != 1:
        return -math.inf, math.inf
    pair = find_pair(quantize)
    dtype = ir.DataType.UINT8 if zero_point is None else zero_point.dtype
    low, high = TYPE_LIMITS[dtype] if pair is None or pair.levels is None else pair.levels
    shift = 0 if zero_point is None else int(zero_point.numpy().reshape(-1)[0])
    step = np.float32(scale.numpy().reshape(-1)[0])
    return float(np.float32(low - shift) * step), float(np.float32(high - shift) * step)


def only_reader(node: ir.Node) -> ir.Node | None:
    """The one node that reads the first output of another, as its first input."""
    readers = list(node.outputs[0].uses())
    if node.outputs[0].is_graph_output() or len(readers) != 1 or readers[0][1] != 0:
        return None
    return readers[0][0]


def _read_levels(clip: ir.Node) -> tuple[int, int] | None:
    limits = [constant_tensor(one) for one in clip.inputs[1:3]]
    if len(limits) != 2 or limits[0] is None or limits[1] is None:
        return None
    return int(limits[0].numpy().item()), int(limits[1].numpy().item())


def fake_quantize_pair(call: Call, inputs: Inputs) -> Outputs:
    """Both of them at once."""
    value, scale, zero_point = inputs[0], inputs[1], optional(inputs, 2)
    low, high = call.attributes["limits"]
    shift = 0.0 if zero_point is None else float(zero_point)
    return (fake_quantize(value, scale, low - shift, high - shift),)
