"""Pad with zeros before Conv, which can do that by itself."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import onnx_ir as ir

from onnxq.graph.attributes import float_attribute, has_reference
from onnxq.graph.constants import constant_tensor, dimensions
from onnxq.graph.scopes import iterate_scopes

_SPATIAL_AXIS = 2
_INTEGER_CONVOLUTIONS = frozenset({"ConvInteger", "QLinearConv"})


def fold_pads(model: ir.Model, kept: Collection[ir.Node] = ()) -> None:
    """Let each Conv do the padding before it, and remove a Pad that nothing reads any more."""
    for scope in iterate_scopes(model):
        if scope.function is not None:
            continue
        for node in list(scope.graph):
            while not _touches(node, kept) and refuse_padding(node) is None:
                _fold(node, scope.graph)


def _touches(node: ir.Node, kept: Collection[ir.Node]) -> bool:
    return node in kept or padding_of(node) in kept


def padding_of(convolution: ir.Node) -> ir.Node | None:
    """The Pad that a node reads first, or None."""
    source = convolution.inputs[0] if convolution.inputs else None
    producer = None if source is None else source.producer()
    if producer is None or producer.op_type != "Pad" or producer.domain:
        return None
    return producer


def refuse_padding(convolution: ir.Node) -> str | None:
    """Why a node does not take over the Pad before it, or None if it can."""
    pad = padding_of(convolution)
    if pad is None:
        return "does not follow a Pad"
    if convolution.op_type in _INTEGER_CONVOLUTIONS:
        return "a convolution of integers pads with its zero point"
    if convolution.op_type != "Conv" or convolution.domain:
        return "is no convolution"
    if has_reference(pad) or has_reference(convolution):
        return "has an attribute that the caller of its function sets"
    if pad.graph is not convolution.graph:
        return "the Pad is in another body"
    if _text(convolution, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return "the convolution chooses its padding by the size of its input"
    if _text(pad, "mode", "constant") != "constant":
        return "the Pad repeats its input"
    if not _is_zero(pad):
        return "the Pad is not of zeros"
    rank = _rank(convolution)
    if rank is None:
        return "the rank of the convolution is not known"
    pads = _read_pads(pad, rank)
    if pads is None:
        return "the pads are not constant"
    if min(pads, default=0) < 0:
        return "the Pad crops"
    if any(pads[:_SPATIAL_AXIS]) or any(pads[rank : rank + _SPATIAL_AXIS]):
        return "the Pad adds batches or channels"
    return None


def _text(node: ir.Node, name: str, default: str) -> str:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_string()


def _is_zero(pad: ir.Node) -> bool:
    value = pad.inputs[2] if len(pad.inputs) > 2 else None
    if value is None:
        return float_attribute(pad, "value", 0.0) == 0
    tensor = constant_tensor(value)
    return tensor is not None and not tensor.numpy().any()


def _rank(convolution: ir.Node) -> int | None:
    weight = convolution.inputs[1]
    tensor = constant_tensor(weight)
    if tensor is not None:
        return len(tensor.shape)
    return None if weight is None or weight.shape is None else len(weight.shape)


def _read_pads(pad: ir.Node, rank: int) -> list[int] | None:
    """The pads of every axis, first all that come before and then all that come after."""
    attribute = pad.attributes.get("pads")
    given = list(attribute.as_ints()) if attribute is not None else _read_integers(pad, 1)
    axes: list[int] | None = list(range(rank))
    if len(pad.inputs) > 3 and pad.inputs[3] is not None:
        axes = _read_integers(pad, 3)
    if given is None or axes is None or len(given) != 2 * len(axes):
        return None
    result = [0] * (2 * rank)
    for index, axis in enumerate(axes):
        result[axis % rank] = given[index]
        result[rank + axis % rank] = given[len(axes) + index]
    return result


def _read_integers(node: ir.Node, index: int) -> list[int] | None:
    tensor = constant_tensor(node.inputs[index]) if len(node.inputs) > index else None
    if tensor is None or len(dimensions(tensor)) != 1:
        return None
    return [int(one) for one in np.asarray(tensor.numpy())]


def _fold(convolution: ir.Node, graph: ir.Graph) -> None:
    pad, rank = padding_of(convolution), _rank(convolution)
    pads = None if pad is None or rank is None else _read_pads(pad, rank)
    if pad is None or rank is None or pads is None:
        raise ValueError(f"node '{convolution.name}' follows no Pad")
    added = [*pads[_SPATIAL_AXIS:rank], *pads[rank + _SPATIAL_AXIS :]]
    own = _own_pads(convolution, len(added))
    total = [one + other for one, other in zip(own, added, strict=True)]
    convolution.attributes.pop("auto_pad", None)
    convolution.attributes["pads"] = ir.AttrInt64s("pads", total)
    convolution.replace_input_with(0, pad.inputs[0])
    output = pad.outputs[0]
    if not output.uses() and not output.is_graph_output():
        graph.remove(pad, safe=True)


def _own_pads(convolution: ir.Node, count: int) -> Sequence[int]:
    attribute = convolution.attributes.get("pads")
    return [0] * count if attribute is None else attribute.as_ints()
