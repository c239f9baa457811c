"""HardSigmoid and HardSwish that exporters wrote in pieces.

    clip(x + a, 0, c) / c      =     clip(x / c + a / c, 0, 1) =     HardSigmoid(x)
    x * clip(x + a, 0, c) / c  = x * clip(x / c + a / c, 0, 1) = x * HardSigmoid(x)

Each piece reads and writes the whole tensor once; HardSigmoid does all but the product at once, and
a runtime can make it part of the convolution before. HardSwish would be one operator from operator
set 14 on, but is computed as these two.

This comes before the shift is folded into the bias of a layer, where nobody would find it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.graph.attributes import has_reference
from onnxq.graph.constants import dimensions, require_constant
from onnxq.graph.names import Names
from onnxq.graph.scopes import iterate_scopes
from onnxq.simplify.arithmetic import operand_index
from onnxq.simplify.clamps import Clamp, number, read_clamp

_ONE_TOLERANCE = 2.0**-23
"""How far the product of a float32 and its inverse in float32 may be from one: an inverse is off by
half of this, one whose last decimal was cut off by a little more."""

_SMALLEST_HIGHEST = 2.0**-126
"""A smaller interval, or one larger than the inverse, has no inverse of full precision."""

_SMALLEST_RANK_OF_CONVOLUTION = 3
_OF_THE_SAME_RANK = frozenset({"BatchNormalization", "Clip", "LeakyRelu", "Relu", "Sigmoid"})
_BROADCASTING = frozenset({"Add", "Div", "Mul", "Sub"})


@dataclass(frozen=True)
class Pieces:
    """The nodes of one activation.

    Attributes:
        shift: Add(x, a).
        clamp: what limits that.
        product: Mul(x, .) between the clamp and the scaling, or None.
        scaling: Div(., c) or Mul(., 1 / c).
    """

    shift: ir.Node
    clamp: Clamp
    product: ir.Node | None
    scaling: ir.Node

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        """All of them, the last first."""
        products = () if self.product is None else (self.product,)
        return (self.scaling, *products, *self.clamp.nodes, self.shift)

    @property
    def constants(self) -> tuple[ir.Value, ...]:
        """What they read beside the activation."""
        own = (_operands(self.shift)[1], _operands(self.scaling)[1])
        return (*own, *self.clamp.constants)


def recognize_hard_swish(model: ir.Model, kept: Collection[ir.Node] = ()) -> None:
    """Put one HardSigmoid for the pieces, before the product where there is one."""
    names = Names(model)
    for scope in iterate_scopes(model):
        if scope.function is not None:
            continue
        for node in list(scope.graph):
            pieces = find_pieces(node)
            if pieces is None or any(piece in kept for piece in pieces.nodes):
                continue
            if refuse_hard_swish(node) is None:
                _replace(pieces, scope.graph, names)


def find_pieces(scaling: ir.Node) -> Pieces | None:
    """The activation that ends with a multiplication or division by a constant, or None."""
    if scaling.op_type not in ("Div", "Mul") or scaling.domain:
        return None
    index = operand_index(scaling)
    value = None if index is None or len(scaling.inputs) != 2 else scaling.inputs[index]
    if value is None or (scaling.op_type == "Div" and index == 1):
        return None
    product = value.producer()
    if product is None or product.op_type != "Mul" or product.domain:
        return _find_shift(value, None, scaling)
    for gate, other in (product.inputs, reversed(product.inputs)):
        pieces = None if gate is None else _find_shift(gate, product, scaling)
        if pieces is not None and _operands(pieces.shift)[0] is other:
            return pieces
    return None


def _find_shift(value: ir.Value, product: ir.Node | None, scaling: ir.Node) -> Pieces | None:
    clamp = read_clamp(value)
    shift = clamp.source.producer()
    if not clamp.nodes or shift is None or shift.op_type != "Add" or shift.domain:
        return None
    return None if operand_index(shift) is None else Pieces(shift, clamp, product, scaling)


def _operands(node: ir.Node) -> tuple[ir.Value, ir.Value]:
    """The activation that a node reads, and the constant."""
    index = operand_index(node)
    operands = () if index is None else (node.inputs[index], node.inputs[1 - index])
    if len(operands) != 2 or operands[0] is None or operands[1] is None:
        raise ValueError(f"node '{node.name}' does not read one constant")
    return operands[0], operands[1]


def refuse_hard_swish(scaling: ir.Node) -> str | None:
    """Why a node is not the end of such an activation, or None if it is."""
    pieces = find_pieces(scaling)
    if pieces is None:
        return "does not scale what was shifted and clipped"
    if any(has_reference(node) for node in pieces.nodes):
        return "has an attribute that the caller of its function sets"
    if any({"axis", "broadcast"} & node.attributes.keys() for node in pieces.nodes):
        return "broadcasts as before operator set 7"
    if any(node.graph is not scaling.graph for node in pieces.nodes):
        return "a piece is in another body"
    inner = [node.outputs[0] for node in pieces.nodes[1:]]
    if any(len(value.uses()) != 1 or value.is_graph_output() for value in inner):
        return "a piece has another reader"
    tensors = [require_constant(value) for value in pieces.constants]
    if any(tensor.dtype != ir.DataType.FLOAT for tensor in tensors):
        return "is not computed in float32"
    if any(tensor.size != 1 for tensor in tensors):
        return "a constant has more than one value"
    rank = max(len(dimensions(tensor)) for tensor in tensors)
    if not _has_axes(_operands(pieces.shift)[0], rank):
        return "a constant may add axes"
    return _refuse_numbers(pieces)


def _refuse_numbers(pieces: Pieces) -> str | None:
    lowest, highest = pieces.clamp.lowest, pieces.clamp.highest
    if lowest != 0 or not _SMALLEST_HIGHEST <= highest <= 1 / _SMALLEST_HIGHEST:
        return "does not clip to an interval from zero"
    scale = number(_operands(pieces.scaling)[1]) or 0.0
    if pieces.scaling.op_type == "Div":
        if scale != highest:
            return "does not scale the interval to one"
    elif not abs(scale * highest - 1) <= _ONE_TOLERANCE:
        return "does not scale the interval to one"
    if not 0 <= _shift(pieces) <= highest:
        # Far from zero, x / c is rounded more coarsely than x + a is.
        return "zero is shifted out of the interval"
    return None


def _shift(pieces: Pieces) -> float:
    return number(_operands(pieces.shift)[1]) or 0.0


def _has_axes(value: ir.Value | None, count: int) -> bool:
    """Whether a value is known to have at least ``count`` axes, by its shape or what computes it.

    Few exporters write shapes, but most wrote a constant of rank 1 where they meant a number.
    """
    while count and value is not None:
        if value.shape is not None:
            return len(value.shape) >= count
        node = value.producer()
        if node is None or node.domain:
            return False
        if node.op_type in ("Conv", "ConvTranspose"):
            return count <= _SMALLEST_RANK_OF_CONVOLUTION or _has_axes(node.inputs[1], count)
        if node.op_type in _BROADCASTING and operand_index(node) is not None:
            value, constant = _operands(node)
            if len(dimensions(require_constant(constant))) >= count:
                return True
        elif node.op_type in _OF_THE_SAME_RANK:
            value = node.inputs[0]
        else:
            return False
    return not count


def _replace(pieces: Pieces, graph: ir.Graph, names: Names) -> None:
    source, output = _operands(pieces.shift)[0], pieces.scaling.outputs[0]
    base = output.name or "hard_swish"
    gate = ir.node(
        "HardSigmoid",
        [source],
        attributes={
            "alpha": 1 / pieces.clamp.highest,
            "beta": _shift(pieces) / pieces.clamp.highest,
        },
        name=names.new_node(f"{base}_gate"),
    )
    graph.insert_before(pieces.shift, gate)
    last = gate.outputs[0]
    last.type, last.shape = ir.TensorType(ir.DataType.FLOAT), source.shape
    if pieces.product is not None:
        last.name = names.new_value(f"{base}_gate")
        gated = 0 if pieces.product.inputs[1] is source else 1
        pieces.product.replace_input_with(gated, last)
        last = pieces.product.outputs[0]
    output.replace_all_uses_with(last, replace_graph_outputs=True)
    for node in pieces.nodes:
        if node is not pieces.product:
            graph.remove(node, safe=True)
    last.name = output.name
    if output.shape is not None:
        last.shape = output.shape
    if output.type is not None:
        last.type = output.type
