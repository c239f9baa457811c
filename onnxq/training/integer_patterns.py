"""Which nodes onnxruntime computes with one kernel of integers.

Its optimiser makes one of a layer, the DequantizeLinears before it and the QuantizeLinear behind
it. What such a kernel computes is in ``operators/integer_kernels.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir
import torch

from onnxq.graph.attributes import float_attribute, int_attribute, is_set
from onnxq.graph.constants import constant_tensor
from onnxq.training.operators.call import Operator
from onnxq.training.operators.fused import Pair, find_pair, find_redundant, only_reader
from onnxq.training.operators.integer_kernels import (
    add_integers,
    average_integers,
    convolve_integers,
    gemm_integers,
    matmul_integers,
    multiply_integers,
    quantize,
    quantize_pair,
)
from onnxq.training.operators.quantization import find_limits

Constants = Mapping[ir.Value, torch.Tensor]

_MOVING = frozenset({"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True)
class IntegerKernel:
    """Nodes that onnxruntime computes at once.

    Attributes:
        nodes: those behind the first.
        operator: what computes them.
        inputs: that it reads.
        output: what they give.
        limits: smallest and largest integer of the result; None where it stays real.
    """

    nodes: tuple[ir.Node, ...]
    operator: Operator
    inputs: tuple[ir.Value | None, ...]
    output: ir.Value
    limits: tuple[int, int] | None = None


@dataclass(frozen=True)
class _Ending:
    """What follows a layer: a Relu or Clip without effect, if there is one, and a pair."""

    nodes: tuple[ir.Node, ...]
    quantize: ir.Node
    pair: Pair

    def complete(self, operator: Operator, inputs: tuple[ir.Value | None, ...]) -> IntegerKernel:
        """A kernel that ends with this."""
        return IntegerKernel(
            self.nodes,
            operator,
            (*inputs, *self.quantize.inputs[1:3]),
            self.pair.output,
            self.pair.levels or find_limits(self.quantize),
        )


def find_integer_kernel(node: ir.Node, constants: Constants) -> IntegerKernel | None:
    """The kernel that onnxruntime makes of a node and those behind it.

    Args:
        node: the layer, or a QuantizeLinear.
        constants: what is known of values; scales and weights have to be there.
    """
    find = None if node.domain else _FINDERS.get(node.op_type)
    return None if find is None else find(node, constants)


def _find_quantize(node: ir.Node, _constants: Constants) -> IntegerKernel:
    pair = find_pair(node)
    limits = find_limits(node)
    if pair is None:
        return IntegerKernel((), quantize, tuple(node.inputs), node.outputs[0], limits)
    return IntegerKernel(
        pair.nodes, quantize_pair, tuple(node.inputs), pair.output, pair.levels or limits
    )


def _find_product(node: ir.Node, constants: Constants) -> IntegerKernel | None:
    """A Conv, Gemm or MatMul of bytes."""
    value, weight = (_find_dequantize(one, constants) for one in node.inputs[:2])
    if value is None or weight is None or not _is_activation(value, constants):
        return None
    factors = _find_factors(node, weight, constants)
    # A Gemm whose result is scaled once more is left in float.
    scaled = any(float_attribute(node, name, 1.0) != 1.0 for name in ("alpha", "beta"))
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    known = _find_bias(bias, constants)
    if factors is None or scaled or (bias is not None and known is None):
        return None
    operator, ending = _PRODUCTS[node.op_type], _find_ending(node, constants)
    inputs = (node.inputs[0], value.inputs[1], *factors, known)
    if ending is not None:
        return ending.complete(operator, inputs)
    # Nor does it make a kernel of a Conv with a real result, or quantize a bias for one.
    if node.op_type == "Conv" or (bias is not None and known is bias):
        return None
    return IntegerKernel((), operator, inputs, node.outputs[0])


def _find_factors(
    node: ir.Node, weight: ir.Node, constants: Constants
) -> tuple[ir.Value | None, ...] | None:
    """Integers, scale and zero point of the second factor; real values if it is no constant."""
    scale = weight.inputs[1]
    several = scale is not None and constants[scale].numel() > 1
    integers = weight.inputs[0]
    if integers is None or integers not in constants:
        moves = node.op_type == "MatMul" and not several
        return (node.inputs[1], scale, None) if moves else None
    rank = constants[integers].dim()
    if node.op_type != "Conv" and rank != 2:
        return None
    channels = 0 if node.op_type == "Conv" or is_set(node, "transB") else rank - 1
    if several and int_attribute(weight, "axis", 1) % rank != channels:
        return None
    return tuple(weight.inputs[:3])


def _find_pointwise(node: ir.Node, constants: Constants) -> IntegerKernel | None:
    """An Add or Mul of two activations."""
    terms = [_find_dequantize(one, constants) for one in node.inputs]
    ending = _find_ending(node, constants)
    inputs: tuple[ir.Value | None, ...] = ()
    for value, term in zip(node.inputs, terms, strict=True):
        if term is None or not _is_activation(term, constants):
            return None
        inputs += (value, *term.inputs[1:3])
    return None if ending is None else ending.complete(_POINTWISE[node.op_type], inputs)


def _find_average(node: ir.Node, constants: Constants) -> IntegerKernel | None:
    value = _find_dequantize(node.inputs[0], constants)
    ending = _find_ending(node, constants)
    if value is None or ending is None or not _is_activation(value, constants):
        return None
    return ending.complete(average_integers, (node.inputs[0], value.inputs[1]))


def _find_dequantize(value: ir.Value | None, constants: Constants) -> ir.Node | None:
    """The DequantizeLinear of bytes that gives a value, if its scale and zero point are known.

    The optimiser puts it behind nodes that only move numbers.
    """
    node = None if value is None else value.producer()
    while node is not None and node.op_type in _MOVING and not node.domain:
        node = None if node.inputs[0] is None else node.inputs[0].producer()
    if node is None or node.op_type != "DequantizeLinear" or node.domain or len(node.inputs) < 3:
        return None
    if node.inputs[1] not in constants or int_attribute(node, "block_size", 0):
        return None
    is_byte = all(_is_byte(one, constants) for one in (node.inputs[0], node.inputs[2]))
    return node if is_byte and node.inputs[2] in constants else None


def _is_byte(value: ir.Value | None, constants: Constants) -> bool:
    """Whether it has 8 bits, as far as it is known. Those of 4 lie in torch as bytes do."""
    tensor = constant_tensor(value)
    if tensor is not None:
        return tensor.dtype in (ir.DataType.INT8, ir.DataType.UINT8)
    known = None if value is None else constants.get(value)
    return known is None or known.dtype in (torch.int8, torch.uint8)


def _is_activation(dequantize: ir.Node, constants: Constants) -> bool:
    """Whether it has one scale and reads uint8, which is what kernels on x86-64 take."""
    scale, zero_point = (constants[one] for one in dequantize.inputs[1:3] if one is not None)
    return scale.numel() == 1 and zero_point.dtype is torch.uint8


def _find_bias(bias: ir.Value | None, constants: Constants) -> ir.Value | None:
    """The int32 numbers behind a bias, or itself if it is a constant of floats."""
    node = None if bias is None else bias.producer()
    if node is not None and node.op_type == "DequantizeLinear" and not node.domain:
        bias = node.inputs[0]
    known = None if bias is None else constants.get(bias)
    return bias if known is not None and known.dim() <= 1 else None


def _find_ending(node: ir.Node, constants: Constants) -> _Ending | None:
    reader = only_reader(node)
    nodes: tuple[ir.Node, ...] = ()
    if reader is not None and find_redundant(reader) is not None:
        nodes, reader = (reader,), only_reader(reader)
    pair = None if reader is None else find_pair(reader)
    if reader is None or pair is None or len(reader.inputs) < 3:
        return None
    scale, zero_point = reader.inputs[1], constant_tensor(reader.inputs[2])
    if scale not in constants or zero_point is None or zero_point.dtype != ir.DataType.UINT8:
        return None
    return _Ending((*nodes, reader, *pair.nodes), reader, pair)


_PRODUCTS: Mapping[str, Operator] = {
    "Conv": convolve_integers,
    "Gemm": gemm_integers,
    "MatMul": matmul_integers,
}

_POINTWISE: Mapping[str, Operator] = {"Add": add_integers, "Mul": multiply_integers}

_FINDERS: Mapping[str, Callable[[ir.Node, Constants], IntegerKernel | None]] = {
    "QuantizeLinear": _find_quantize,
    "Conv": _find_product,
    "Gemm": _find_product,
    "MatMul": _find_product,
    "Add": _find_pointwise,
    "Mul": _find_pointwise,
    "GlobalAveragePool": _find_average,
}
