"""What multiplies and shifts the channels of a layer, folded into its weight and bias.

Every kind is folded in one walk in the order of computation, in which the layer takes the place of
what was folded: so chains collapse, however their kinds follow each other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.graph.names import Names
from onnxq.graph.scopes import iterate_scopes
from onnxq.simplify.arithmetic import ARITHMETIC, operand_index, read_arithmetic, refuse_arithmetic
from onnxq.simplify.batch_normalization import (
    read_batch_normalization,
    refuse_batch_normalization,
)
from onnxq.simplify.layers import Change, change_layer


@dataclass(frozen=True)
class Kind:
    """One kind of node that may be folded.

    Attributes:
        refuse: why a node stays, or None.
        read: what a node that was not refused does.
        operand_index: which of its inputs comes from the layer.
    """

    refuse: Callable[[ir.Node], str | None]
    read: Callable[[ir.Node], Change]
    operand_index: Callable[[ir.Node], int | None]


_ARITHMETIC = Kind(refuse_arithmetic, read_arithmetic, operand_index)

KINDS = {
    "BatchNormalization": Kind(
        refuse_batch_normalization, read_batch_normalization, lambda _node: 0
    ),
    **dict.fromkeys(sorted(ARITHMETIC), _ARITHMETIC),
}


def fold_affine(model: ir.Model, kept: Collection[ir.Node] = ()) -> None:
    """Fold all that can be folded and has nothing to do with ``kept``."""
    names = Names(model)
    for scope in iterate_scopes(model):
        if scope.function is not None:
            continue
        for node in list(scope.graph):
            kind = KINDS.get(node.op_type)
            if kind is None or node.domain or _touches(node, kept):
                continue
            if kind.refuse(node) is None:
                _fold(node, kind, scope.graph, names)


def _touches(node: ir.Node, kept: Collection[ir.Node]) -> bool:
    producers = (value.producer() for value in node.inputs if value is not None)
    return node in kept or any(producer in kept for producer in producers)


def _fold(node: ir.Node, kind: Kind, graph: ir.Graph, names: Names) -> None:
    index = kind.operand_index(node)
    source = None if index is None else node.inputs[index]
    layer = None if source is None else source.producer()
    if source is None or layer is None:
        raise ValueError(f"node '{node.name}' follows no layer")
    change_layer(layer, kind.read(node), graph, names)
    output = node.outputs[0]
    output.replace_all_uses_with(source, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    source.name = output.name
    if output.shape is not None:
        source.shape = output.shape
    if output.type is not None:
        source.type = output.type
