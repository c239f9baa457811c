"""Mul, Add, Sub and Div by one number before a convolution, folded into its weight and bias.

    weight * (factor * x + shift) = (factor * weight) * x + sum(weight) * shift

One number for all channels leaves the quantization error of the weight the same in relation. Where
the convolution pads, the shift must not reach the zeros beyond the border, and stays as one Add:

    weight * (factor * x + shift) = (factor * weight) * (x + shift / factor)

What follows a convolution is folded into that one before; what is left here follows an activation.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.graph.attributes import has_reference
from onnxq.graph.constants import add_initializer, constant_tensor, dimensions, require_constant
from onnxq.graph.names import Names
from onnxq.graph.scopes import iterate_scopes
from onnxq.numerics.affine import Array
from onnxq.simplify.arithmetic import ARITHMETIC, operand_index, read_arithmetic

_LARGEST_FACTOR = 2.0**24
"""A larger factor, or one smaller than the inverse, would bring small weights to an end of what
float32 or float16 can express."""

_LARGEST_SHIFT = 2.0**10
"""What lies far from zero, and near to it only once shifted, has lost nothing to rounding by the
shift, but would by the sum of the convolution."""


@dataclass(frozen=True)
class Chain:
    """Operations with one number each, after each other.

    Attributes:
        source: what the first reads.
        nodes: the operations, the last first.
        factor: what all of them multiply by.
        shift: what they add after that.
    """

    source: ir.Value
    nodes: tuple[ir.Node, ...]
    factor: float
    shift: float


def fold_scalars(model: ir.Model, kept: Collection[ir.Node] = ()) -> None:
    """Let each Conv do what multiplies and shifts all of its input, as far as it can."""
    names = Names(model)
    for scope in iterate_scopes(model):
        if scope.function is not None:
            continue
        for node in list(scope.graph):
            chain = find_chain(node, kept)
            if node not in kept and refuse_scalars(node, chain) is None:
                _fold(node, chain, scope.graph, names)


def find_chain(convolution: ir.Node, kept: Collection[ir.Node] = ()) -> Chain | None:
    """The operations before a Conv that only it reads; None if there are none."""
    if convolution.op_type != "Conv" or convolution.domain:
        return None
    source, weight = convolution.inputs[0], constant_tensor(convolution.inputs[1])
    if source is None or weight is None:
        return None
    chain = Chain(source, (), 1.0, 0.0)
    while True:
        node = chain.source.producer()
        if node is None or node in kept or not _is_scalar(node, convolution.graph, weight):
            return chain if chain.nodes else None
        chain = _before(chain, node)


def _is_scalar(
    node: ir.Node, graph: ir.Graph | ir.Function | None, weight: ir.TensorProtocol
) -> bool:
    """Whether a node only multiplies or shifts what it hands on to one reader."""
    if node.op_type not in ARITHMETIC or node.domain or node.graph is not graph:
        return False
    index, output = operand_index(node), node.outputs[0]
    if index is None or node.attributes or (node.op_type == "Div" and index == 1):
        return False
    if len(output.uses()) != 1 or output.is_graph_output():
        return False
    tensor = require_constant(node.inputs[1 - index])
    # What the convolution reads has as many axes as its weight: a constant with fewer adds none.
    return (
        tensor.size == 1
        and tensor.dtype == weight.dtype == ir.DataType.FLOAT
        and len(dimensions(tensor)) < len(dimensions(weight))
    )


def _before(chain: Chain, node: ir.Node) -> Chain:
    """The chain with the node before it."""
    change, index = read_arithmetic(node), operand_index(node)
    source = None if index is None else node.inputs[index]
    if source is None:
        raise ValueError(f"node '{node.name}' has no input")
    return Chain(
        source,
        (*chain.nodes, node),
        chain.factor * float(change.factor[0]),
        chain.factor * float(change.shift[0]) + chain.shift,
    )


def refuse_scalars(convolution: ir.Node, chain: Chain | None) -> str | None:
    """Why a Conv does not take over what is before it, or None if it can."""
    if chain is None:
        return "no convolution after an operation with one number"
    weight = convolution.inputs[1]
    if weight is None or len(weight.uses()) != 1:
        return "the weight is shared"
    if len(convolution.inputs) > 2 and constant_tensor(convolution.inputs[2]) is None:
        return "the bias is not constant"
    if has_reference(convolution):
        return "has an attribute that the caller of its function sets"
    if not 1 / _LARGEST_FACTOR <= abs(chain.factor) <= _LARGEST_FACTOR:
        return "the factor is too large or too small"
    if abs(chain.shift / chain.factor) > _LARGEST_SHIFT:
        return "the shift is too large"
    if chain.shift and _pads(convolution) and len(chain.nodes) == 1:
        return "the convolution pads with zeros that are not shifted"
    if not all(np.isfinite(array).all() for array in _numbers(convolution, chain)):
        return "the weight would overflow"
    return None


def _pads(convolution: ir.Node) -> bool:
    kind, pads = convolution.attributes.get("auto_pad"), convolution.attributes.get("pads")
    if kind is not None and kind.as_string() not in ("NOTSET", "VALID"):
        return True
    return pads is not None and any(pads.as_ints())


def _numbers(convolution: ir.Node, chain: Chain) -> tuple[Array, Array, Array]:
    """The new weight, what it adds for each channel, and what is left to be added before."""
    weight: Array = require_constant(convolution.inputs[1]).numpy().astype(np.float64)
    shift = 0.0 if _pads(convolution) else chain.shift
    bias = weight.sum(axis=tuple(range(1, weight.ndim))) * shift
    if len(convolution.inputs) > 2:
        bias = bias + require_constant(convolution.inputs[2]).numpy().astype(np.float64)
    left = np.array((chain.shift - shift) / chain.factor)
    with np.errstate(over="ignore"):  # refused afterwards
        return (
            (weight * chain.factor).astype(np.float32),
            bias.astype(np.float32),
            left.astype(np.float32),
        )


def _fold(convolution: ir.Node, chain: Chain | None, graph: ir.Graph, names: Names) -> None:
    if chain is None:
        raise ValueError(f"node '{convolution.name}' follows no chain")
    weight, bias, left = _numbers(convolution, chain)
    base, source = convolution.outputs[0].name or "convolution", chain.source
    new_weight = add_initializer(graph, ir.Tensor(weight), names.new_value(f"{base}_weight"))
    convolution.replace_input_with(1, new_weight)
    if bias.any() or len(convolution.inputs) > 2:
        new_bias = add_initializer(graph, ir.Tensor(bias), names.new_value(f"{base}_bias"))
        convolution.resize_inputs(3)
        convolution.replace_input_with(2, new_bias)
    if left:
        constant = add_initializer(graph, ir.Tensor(left), names.new_value(f"{base}_shift"))
        shift = ir.node("Add", [source, constant], name=names.new_node(f"{base}_shifted"))
        graph.insert_before(chain.nodes[-1], shift)
        source = shift.outputs[0]
        source.name = names.new_value(f"{base}_shifted")
        source.type, source.shape = ir.TensorType(ir.DataType.FLOAT), chain.source.shape
    convolution.replace_input_with(0, source)
    for node in chain.nodes:
        graph.remove(node, safe=True)
