"""Which tensors of the quantized model stand for which tensors of the float model.

Names decide: quantizers keep the names of node outputs. Where a tensor is quantized right away, and
everything reads it behind that, what its readers get counts.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.graph.constants import constant_tensor

CLIPPING = ("Relu", "Clip")
"""What quantizers drop where the range of the integers clips already."""

LAYERS = (
    *("Conv", "ConvTranspose", "MatMul", "Gemm", "LSTM", "GRU", "RNN"),
    *("FusedConv", "FusedGemm", "FusedMatMul", "Attention"),
)

_INTEGER_SUFFIXES = ("_quantized", "_q", "")

_OUTPUT_NUMBERS: Mapping[str, int] = {
    **dict.fromkeys(("QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul"), 6),
    **dict.fromkeys(("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax"), 3),
    **dict.fromkeys(("QLinearAveragePool", "QLinearGlobalAveragePool"), 3),
    "QLinearConcat": 0,
    "QGemm": 7,
}
"""At which input an operator on integers takes the scale of its output; the zero point follows."""


@dataclass(frozen=True)
class Integers:
    """What the integers that a node gives stand for.

    Attributes:
        node: it has the scale of its output as an input, and may have the zero point behind it.
        index: of the scale.
    """

    node: ir.Node
    index: int

    @property
    def numbers(self) -> tuple[ir.Value, ...]:
        """Scale, and zero point if there is one; they change when the graph is connected."""
        inputs = self.node.inputs[self.index : self.index + 2]
        return tuple(value for value in inputs if value is not None)


@dataclass(frozen=True)
class Match:
    """A tensor that both models have.

    Attributes:
        name: in the float model.
        value: in the quantized model, as its readers get it.
        read: every value of the quantized model that stands for the tensor where it is read.
        integers: where ``value`` holds integers.
        is_pair: whether ``value`` is behind a pair of QuantizeLinear and DequantizeLinear.
    """

    name: str
    value: ir.Value
    read: tuple[ir.Value, ...]
    integers: Integers | None = None
    is_pair: bool = False


@dataclass(frozen=True)
class Layer:
    """The node of the float model that an error is reported for."""

    node: ir.Node
    has_weight: bool


def find_matches(
    quantized: ir.Graph, values: Mapping[str, ir.Value], usable: Container[str] | None = None
) -> dict[str, Match]:
    """Match outputs of nodes, by the name of the tensor in the float model.

    Args:
        quantized: main graph of the quantized model; still with its outputs.
        values: of the main graph of the float model, by name.
        usable: names that may be matched; None for all.
    """
    names = {value.name for node in quantized for value in node.outputs}
    found: dict[str, Match] = {}
    for node in quantized:
        for value in node.outputs:
            match = _match(node, value, values, names)
            if match is None or (usable is not None and match.name not in usable):
                continue
            earlier = found.get(match.name)
            if earlier is None:
                found[match.name] = match
            elif earlier.value is not match.value:
                # Integers, and the same dequantized for others: the error is that of the first.
                read = dict.fromkeys((*earlier.read, *match.read))
                found[match.name] = Match(
                    match.name, earlier.value, tuple(read), earlier.integers, earlier.is_pair
                )
    return {name: one for name, one in found.items() if not _is_inside_integers(one.value)}


def describe_layer(value: ir.Value, boundaries: Container[ir.Value]) -> Layer | None:
    """The layer that computes a tensor of the float model from other matched tensors.

    Args:
        value: the tensor.
        boundaries: all matched tensors.

    Returns:
        The nearest layer with a weight, or else the nearest layer, or the node that makes
        ``value``.
    """
    producer = value.producer()
    if producer is None:
        return None
    waiting, seen = [producer], {producer}
    layers: list[ir.Node] = []
    while waiting:
        node = waiting.pop(0)
        if node.op_type in LAYERS:
            layers.append(node)
        for one in node.inputs:
            before = None if one is None or one in boundaries else one.producer()
            if before is not None and before not in seen:
                seen.add(before)
                waiting.append(before)
    with_weight = next((node for node in layers if _has_weight(node)), None)
    if with_weight is not None:
        return Layer(with_weight, True)
    return Layer(layers[0] if layers else producer, False)


def _match(
    node: ir.Node, value: ir.Value, values: Mapping[str, ir.Value], names: Container[str | None]
) -> Match | None:
    if not value.name or node.op_type == "Constant":
        return None
    integers = _find_integers(node)
    if integers is not None:
        for suffix in _INTEGER_SUFFIXES:
            name = value.name.removesuffix(suffix)
            if value.name.endswith(suffix) and _is_computed(values.get(name)):
                name = _skip_clipping(name, values, names)
                return Match(name, value, (value, *_find_dequantized(value)), integers)
        return None
    if not _is_computed(values.get(value.name)):
        return None
    behind = _find_pair(value)
    if behind:
        return Match(_skip_clipping(value.name, values, names), behind[0], behind, is_pair=True)
    return Match(value.name, value, (value,))


def _is_computed(value: ir.Value | None) -> bool:
    """Whether a value of the float model is an output of a node, and no constant."""
    return value is not None and value.producer() is not None and constant_tensor(value) is None


def _find_integers(node: ir.Node) -> Integers | None:
    index = _OUTPUT_NUMBERS.get(node.op_type)
    if index is None or len(node.inputs) <= index or node.inputs[index] is None:
        return None
    return Integers(node, index)


def _find_pair(value: ir.Value) -> tuple[ir.Value, ...]:
    """What DequantizeLinear gives behind a value that is read by one QuantizeLinear only."""
    quantize = _only_reader(value)
    if quantize is None or quantize.op_type != "QuantizeLinear":
        return ()
    integers = quantize.outputs[0]
    if integers.is_graph_output():
        return ()
    found = _find_dequantized(integers)
    return found if len(found) == len(integers.uses()) else ()


def _find_dequantized(integers: ir.Value) -> tuple[ir.Value, ...]:
    return tuple(
        reader.outputs[0]
        for reader, index in integers.uses()
        if reader.op_type == "DequantizeLinear" and index == 0
    )


def _skip_clipping(name: str, values: Mapping[str, ir.Value], names: Container[str | None]) -> str:
    """The tensor behind a Relu or Clip that the quantized model does without."""
    reader = _only_reader(values[name])
    if reader is None or reader.op_type not in CLIPPING:
        return name
    clipped = reader.outputs[0].name or ""
    return name if not clipped or clipped in names else clipped


def _is_inside_integers(value: ir.Value) -> bool:
    """Whether a value is between a layer and a Relu or Clip that become one integer layer.

    To look at it would keep the runtime from making one of them.
    """
    reader = _only_reader(value)
    return reader is not None and reader.op_type in CLIPPING and bool(_find_pair(reader.outputs[0]))


def _only_reader(value: ir.Value) -> ir.Node | None:
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    ((reader, index),) = uses
    return reader if index == 0 else None


def _has_weight(layer: ir.Node) -> bool:
    return any(_is_constant(value) for value in layer.inputs[:2])


def _is_constant(value: ir.Value | None) -> bool:
    """Whether a value is a constant, at most rearranged; one that a caller may replace too."""
    while value is not None and value.producer() is not None:
        if constant_tensor(value) is not None:
            return True
        inputs = value.producer().inputs  # type: ignore[union-attr]
        value = inputs[0] if len(inputs) == 1 else None
    return value is not None and value.const_value is not None
