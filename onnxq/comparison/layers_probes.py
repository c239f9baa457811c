"""One model that runs both models and sums up, inside the graph, what each layer loses.

It holds the float model, the quantized model, and the quantized model once more with the tensors of
the float model put in wherever it reads one that both have: what is then wrong at the output of a
layer is what that layer adds. No activation leaves the runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.comparison.layers_matching import Match, describe_layer, find_matches
from onnxq.comparison.twin import Twin
from onnxq.graph.scopes import iterate_bodies, node_label


@dataclass(frozen=True)
class FloatTypes:
    """Types of a tensor in both models."""

    float_type: np.dtype[np.generic]
    quantized_type: np.dtype[np.generic]


@dataclass(frozen=True)
class KindProbe:
    """Names of the outputs that tell shape and type of a tensor, in both models."""

    name: str
    shapes: tuple[str, str]
    elements: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class LayerProbe:
    """Names of the outputs that sum up the error at one tensor.

    Attributes:
        node: label of the layer in the float model.
        operator: its type.
        tensor: the tensor.
        has_weight: whether the layer has a weight.
        signal: sum of squares of the float tensor.
        accumulated: sum of squares of the error in the quantized model.
        added: the same with float tensors as inputs of the layer; '' where both models compute
            the tensor from its inputs in the same way.
    """

    node: str
    operator: str
    tensor: str
    has_weight: bool
    signal: str
    accumulated: str
    added: str

    @property
    def outputs(self) -> tuple[str, ...]:
        """Those that there are."""
        return tuple(name for name in (self.signal, self.accumulated, self.added) if name)


def add_kind_probes(
    float_model: ir.Model, quantized: ir.Model
) -> tuple[ir.Model, tuple[KindProbe, ...]]:
    """Both models, with the kinds of all tensors that may stand for each other as outputs."""
    twin = Twin(float_model, quantized)
    copy = twin.copy_quantized()
    matches = find_matches(copy, twin.values)
    matches = {name: one for name, one in matches.items() if _is_tensor(twin.values[name])}
    if not matches or not twin.connect(copy):
        return twin.finish(), ()
    values = {name: _dequantize(copy, match) for name, match in matches.items()}
    twin.adopt(copy, values.values())
    flat, start, end = (twin.add_numbers([number]) for number in (-1, 0, 1))
    probes = []
    for name, value in values.items():
        both = (twin.values[name], value)
        first = [
            twin.append("Slice", (twin.append("Reshape", (one, flat)), start, end)) for one in both
        ]
        shapes = [twin.expose(twin.append("Shape", (one,))) for one in both]
        elements = [twin.expose(one) for one in first]
        probes.append(KindProbe(name, (shapes[0], shapes[1]), (elements[0], elements[1])))
    return twin.finish(), tuple(probes)


def add_layer_probes(
    float_model: ir.Model, quantized: ir.Model, usable: Mapping[str, FloatTypes]
) -> tuple[ir.Model, tuple[LayerProbe, ...]]:
    """Both models, with the errors of their layers as outputs.

    Args:
        float_model: is left as it is; tensors are shared.
        quantized: likewise; of the same operator set.
        usable: tensors that are of floats and of the same shape in both models.
    """
    prober = _LayerProber(Twin(float_model, quantized), usable)
    probes = prober.add()
    return prober.twin.finish(), probes


class _LayerProber:
    def __init__(self, twin: Twin, usable: Mapping[str, FloatTypes]) -> None:
        self.twin = twin
        self._types = usable
        self._labels = {
            node: node_label(node, position) for position, node in enumerate(twin.model.graph)
        }

    def add(self) -> tuple[LayerProbe, ...]:
        """Probes for all layers, in the order of the quantized model."""
        whole, local = (self.twin.copy_quantized() for _ in range(2))
        matches, own = (find_matches(one, self.twin.values, self._types) for one in (whole, local))
        self.twin.connect(whole)
        self.twin.connect(local)
        values = self._feed_float_tensors(local, own)
        boundaries = {self.twin.values[name] for name in matches}
        layers = {name: describe_layer(self.twin.values[name], boundaries) for name in matches}
        listed = [
            name
            for name in matches
            if (layer := layers[name]) is not None and (layer.has_weight or name in values)
        ]
        results = {name: _dequantize(whole, matches[name]) for name in listed}
        self.twin.adopt(whole, results.values())
        self.twin.adopt(local, values.values())
        probes = []
        for name in listed:
            layer = layers[name]
            if layer is not None:
                signal, reference = self._sum_signal(name)
                added = values.get(name)
                probe = LayerProbe(
                    node=self._labels[layer.node],
                    operator=layer.node.op_type,
                    tensor=name,
                    has_weight=layer.has_weight,
                    signal=signal,
                    accumulated=self._sum_error(name, results[name], reference),
                    added="" if added is None else self._sum_error(name, added, reference),
                )
                probes.append(probe)
        return tuple(probes)

    def _feed_float_tensors(
        self, local: ir.Graph, matches: Mapping[str, Match]
    ) -> dict[str, ir.Value]:
        """Let a copy read float tensors; returns what its layers then compute, where it differs."""
        values = {}
        for name, match in matches.items():
            readers = [use for value in match.read for use in value.uses()]
            values[name] = _dequantize(local, match)
            for node, index in readers:
                if node.outputs[0] not in match.read:
                    self._feed(name, match, node, index)
        equal = self.twin.reuse_equal_nodes(local)
        return {
            name: value
            for name, value in values.items()
            if matches[name].is_pair or value not in equal
        }

    def _feed(self, name: str, match: Match, node: ir.Node, index: int) -> None:
        value, types = self.twin.values[name], self._types[name]
        read = node.inputs[index]
        if types.float_type != types.quantized_type:
            to = ir.DataType.from_numpy(types.quantized_type)
            value = self.twin.append("Cast", (value,), to=int(to))
        if match.integers is not None and read is match.value:
            value = self.twin.append("QuantizeLinear", (value, *match.integers.numbers))
        node.replace_input_with(index, value)

    def _sum_signal(self, name: str) -> tuple[str, ir.Value]:
        value = self._to_float32(self.twin.values[name], self._types[name].float_type)
        total = self.twin.append("ReduceSumSquare", (value,), keepdims=0)
        return self.twin.expose(total), value

    def _sum_error(self, name: str, value: ir.Value, reference: ir.Value) -> str:
        value = self._to_float32(value, self._types[name].quantized_type)
        error = self.twin.append("Sub", (value, reference))
        return self.twin.expose(self.twin.append("ReduceSumSquare", (error,), keepdims=0))

    def _to_float32(self, value: ir.Value, kind: np.dtype[np.generic]) -> ir.Value:
        if kind == np.float32:
            return value
        return self.twin.append("Cast", (value,), to=int(ir.DataType.FLOAT))


def _dequantize(graph: ir.Graph, match: Match) -> ir.Value:
    """The matched tensor as floats."""
    if match.integers is None:
        return match.value
    node = ir.node("DequantizeLinear", [match.value, *match.integers.numbers])
    node.outputs[0].name = f"{match.value.name}_dequantized"
    graph.append(node)
    return node.outputs[0]


def _is_tensor(value: ir.Value) -> bool:
    """Whether a value is no sequence, as far as its name and its node tell."""
    kinds = [value.type]
    producer = value.producer()
    if producer is not None:
        kinds += [output.type for _, body in iterate_bodies(producer) for output in body.outputs]
        if "Sequence" in producer.op_type or "Optional" in producer.op_type:
            return producer.op_type in ("ConcatFromSequence", "SequenceAt", "SequenceLength")
    return not any(isinstance(one, ir.SequenceType | ir.OptionalType) for one in kinds)
