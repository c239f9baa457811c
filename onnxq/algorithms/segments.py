"""A graph cut before each layer, so that layers can be run one after the other.

A segment is run twice: as it is, and as the quantized model would compute it, with integers
simulated by pairs of QuantizeLinear and DequantizeLinear and with the real values of the stored
weights. The runtime does both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxq.algorithms.borders import IntegerBorders
from onnxq.algorithms.recipe import BiasPlace
from onnxq.apply.numbers import ACTIVATION_TYPES
from onnxq.graph.constants import add_initializer, constant_tensor
from onnxq.graph.names import Names
from onnxq.graph.offload import OFFLOADED_TENSOR_BYTES, include_weights
from onnxq.graph.scopes import iterate_bodies
from onnxq.numerics.affine import Array, Parameters
from onnxq.plan import ActivationKey, ActivationPlan
from onnxq.runtime.session import Session


@dataclass(frozen=True)
class Segment:
    """Nodes that are run together.

    Attributes:
        nodes: in graph order.
        inputs: what they read from earlier segments or from the inputs of the model.
        outputs: what later segments read of them.
        last_reads: inputs that no later segment reads.
    """

    nodes: tuple[ir.Node, ...]
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]
    last_reads: tuple[ir.Value, ...]


def cut_before(graph: ir.Graph, layers: Sequence[ir.Node]) -> tuple[Segment, ...]:
    """Segments of a graph: what is before the first layer, then one that starts at each layer.

    The last one ends at its layer. Nodes that no later layer needs are left out.

    Args:
        graph: a main graph.
        layers: some of its nodes, in graph order.
    """
    starts = set(layers)
    groups: list[list[ir.Node]] = [[]]
    for node in graph:
        if node in starts:
            groups.append([])
        groups[-1].append(node)
        if node is layers[-1]:
            break
    wanted: set[ir.Value] = set()
    segments: list[Segment] = []
    for group in reversed(groups):
        later = set(wanted)
        nodes: list[ir.Node] = []
        for node in reversed(group):
            if node not in starts and not wanted.intersection(node.outputs):
                continue
            nodes.append(node)
            wanted.update(_reads_from_outside(node))
        made = [value for node in reversed(nodes) for value in node.outputs]
        own = set(made)
        reads = dict.fromkeys(v for node in reversed(nodes) for v in _reads_from_outside(node))
        inputs = tuple(value for value in reads if value not in own)
        wanted.difference_update(own)
        segments.append(
            Segment(
                tuple(reversed(nodes)),
                inputs,
                tuple(value for value in made if value in later),
                tuple(value for value in inputs if value not in later),
            )
        )
    return tuple(reversed(segments))


class SegmentModel:
    """A model of its own out of the nodes of a segment."""

    def __init__(self, model: ir.Model, segment: Segment) -> None:
        constants = dict.fromkeys(
            value
            for node in segment.nodes
            for value in _all_reads(node)
            if _is_constant_of(value, model.graph)
        )
        view = ir.GraphView(
            segment.inputs,
            segment.outputs,
            nodes=segment.nodes,
            initializers=tuple(constants),
            opset_imports=model.graph.opset_imports,
            name="segment",
        )
        graph = view.clone()
        self.model = ir.Model(graph, ir_version=model.ir_version)
        for identifier, function in model.clone().functions.items() if model.functions else ():
            self.model.functions[identifier] = function
        self.nodes = dict(zip(segment.nodes, graph, strict=True))
        self._graph = graph
        self._names = Names(self.model)
        self._values = {
            value: twin
            for node, copy in self.nodes.items()
            for value, twin in zip(node.outputs, copy.outputs, strict=True)
        }
        self._values.update(zip(segment.inputs, graph.inputs, strict=True))
        for value in constants:
            self._values[value] = graph.initializers[value.name or ""]

    def set_constant(self, value: ir.Value, elements: Array) -> None:
        """Other elements for a constant of the float model, where the segment reads it."""
        twin = self._values.get(value)
        if twin is not None:
            twin.const_value = ir.Tensor(elements)

    def set_bias(self, place: BiasPlace, elements: Array) -> None:
        """Another bias for one reader of it, where the segment has that."""
        node, index = place
        reader = self.nodes.get(node)
        if reader is None:
            return
        value = add_initializer(
            self._graph, ir.Tensor(elements), self._names.new_value("onnxq_bias")
        )
        if index >= len(reader.inputs):
            reader.resize_inputs(index + 1)
        reader.replace_input_with(index, value)

    def simulate(
        self, borders: IntegerBorders, parameters: Mapping[ActivationKey, Parameters]
    ) -> None:
        """Put a pair behind each activation that is quantized, as the plan says."""
        for value, twin in list(self._values.items()):
            if value in borders.made and twin.producer() is not None:
                made = borders.made[value]
                self._values[value] = self._quantize(twin, list(twin.uses()), made, parameters)
                self._rename_output(twin, self._values[value])
        for node, reader in self.nodes.items():
            for value, activation in borders.entering.get(node, {}).items():
                twin = self._values[value]
                uses = [(reader, at) for at, one in enumerate(reader.inputs) if one is twin]
                self._quantize(twin, uses, activation, parameters)
            if node in borders.at_run_time:
                self._quantize_at_run_time(reader, borders.at_run_time[node])

    def _quantize_at_run_time(self, reader: ir.Node, index: int) -> None:
        """Put a pair before a product whose activation is quantized when it is run."""
        value = reader.inputs[index]
        if value is None:
            return
        node = ir.node("DynamicQuantizeLinear", [value], num_outputs=3)
        for output in node.outputs:
            output.name = self._names.new_value("onnxq_integers")
        back = ir.node("DequantizeLinear", list(node.outputs))
        back.outputs[0].name = self._names.new_value("onnxq_real")
        self._graph.extend([node, back])
        reader.replace_input_with(index, back.outputs[0])

    def _quantize(
        self,
        value: ir.Value,
        uses: Iterable[tuple[ir.Node, int]],
        activation: ActivationPlan,
        parameters: Mapping[ActivationKey, Parameters],
    ) -> ir.Value:
        """Put a pair behind a value, for some of its readers; returns what they read then."""
        numbers = parameters[activation.key]
        dtype = ACTIVATION_TYPES[activation.scheme.type].numpy()
        scale = self._add(np.asarray(numbers.scale, np.float32))
        zero_point = self._add(np.asarray(numbers.zero_point, dtype))
        last = value
        low, high = activation.scheme.range
        levels = [self._add(np.asarray(one, dtype)) for one in (low, high)]
        steps = (
            ("QuantizeLinear", (scale, zero_point)),
            *((("Clip", levels),) if activation.scheme.type.bits == 4 else ()),
            ("DequantizeLinear", (scale, zero_point)),
        )
        for operator, constants in steps:
            node = ir.node(operator, [last, *constants])
            node.outputs[0].name = self._names.new_value(f"onnxq_{operator}")
            self._graph.append(node)
            last = node.outputs[0]
        for reader, index in uses:
            reader.replace_input_with(index, last)
        return last

    def _rename_output(self, value: ir.Value, successor: ir.Value) -> None:
        for index, output in enumerate(self._graph.outputs):
            if output is value:
                name = value.name
                value.name = self._names.new_value("onnxq_float")
                successor.name = name
                self._graph.outputs[index] = successor

    def _add(self, array: Array) -> ir.Value:
        return add_initializer(self._graph, ir.Tensor(array), self._names.new_value("onnxq_number"))

    def finish(self) -> ir.Model:
        """The model, ready to be saved."""
        self._graph.sort()
        include_weights(self.model)
        return self.model

    def open(self, path: Path, feeds: Mapping[str, Array]) -> Session:
        """Save the model and load it; it is empty afterwards.

        Args:
            path: where to.
            feeds: a value for each input, for its type.

        Raises:
            ExecutionError: onnxruntime cannot load it.
        """
        for value in self._graph.inputs:
            array = feeds[value.name or ""]
            value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
            value.shape = ir.Shape([None] * array.ndim)
        ir.save(
            self.finish(),
            path,
            external_data=f"{path.name}.data",
            size_threshold_bytes=OFFLOADED_TENSOR_BYTES,
            max_workers=1,
        )
        session = Session(path, lean=True, keeps_float_layers=True)
        # A graph is a cycle, and the command line collects none: the weights of all segments of a
        # sweep would stay.
        for value in self._graph.initializers.values():
            value.const_value = None
        return session


def _reads_from_outside(node: ir.Node) -> list[ir.Value]:
    """What a node and its bodies read that is computed, or fed, in the graph of the node."""
    return [value for value in _all_reads(node) if constant_tensor(value) is None]


def _all_reads(node: ir.Node) -> list[ir.Value]:
    values = [value for value in node.inputs if value is not None]
    for _, body in iterate_bodies(node):
        own = set(body.inputs) | set(body.initializers.values())
        own |= {value for inner in body for value in inner.outputs}
        for inner in body:
            values += [value for value in _all_reads(inner) if value not in own]
        values += [value for value in body.outputs if value not in own]
    return values


def _is_constant_of(value: ir.Value, graph: ir.Graph) -> bool:
    return value.const_value is not None and graph.initializers.get(value.name or "") is value
