"""Two nodes as one step."""

from __future__ import annotations

import onnx_ir as ir

from onnxq.graph.constants import constant_tensor
from onnxq.training.fake_quantization import fake_quantize
from onnxq.training.operators.call import Call, Inputs, Outputs, optional


def find_pair(node: ir.Node) -> ir.Node | None:
    """The DequantizeLinear that alone reads a QuantizeLinear and has the same single scale."""
    if node.op_type != "QuantizeLinear" or node.domain or node.outputs[0].is_graph_output():
        return None
    readers = list(node.outputs[0].uses())
    if len(readers) != 1:
        return None
    reader, index = readers[0]
    if reader.op_type != "DequantizeLinear" or index != 0 or reader.domain:
        return None
    tensor = constant_tensor(node.inputs[1])
    same = tuple(node.inputs[1:]) == tuple(reader.inputs[1:])
    return reader if same and tensor is not None and tensor.size == 1 else None


def FUSED(call: Call, inputs: Inputs) -> Outputs:
    """QuantizeLinear and DequantizeLinear of one scale."""
    value, scale, zero_point = inputs[0], inputs[1], optional(inputs, 2)
    low, high = call.attributes["limits"]
    shift = 0.0 if zero_point is None else float(zero_point)
    return (fake_quantize(value, scale, low - shift, high - shift),)
