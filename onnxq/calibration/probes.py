"""Extra outputs of the float model that summarise its activations.

The summary is made inside the graph, so that no activation leaves the runtime: the smallest and the
largest value, and every n-th element for a histogram. Memory does not depend on the size of the
activations, nor on the number of samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.graph.constants import add_initializer, constant_tensor
from onnxq.graph.copies import copy_model
from onnxq.graph.names import Names
from onnxq.graph.scopes import iterate_bodies, iterate_scopes
from onnxq.numerics.affine import Array
from onnxq.plan import ActivationPlan

SAMPLED_ELEMENTS = 8192
"""Of one activation in one run; up to twice as many, because the step is a whole odd number."""

_NOTHING: Mapping[str, Array] = {
    "minimum": np.array(np.inf, np.float32),
    "maximum": np.array(-np.inf, np.float32),
    "sample": np.empty(0, np.float32),
    "size": np.array(0, np.int64),
}


@dataclass(frozen=True)
class Probe:
    """Names of the outputs that summarise one activation; empty for what is not summarised.

    An activation in a branch that was not taken gives the extremes +inf and -inf, and no elements.
    """

    activation: ActivationPlan
    minimum: str
    maximum: str
    sample: str
    size: str

    @property
    def outputs(self) -> tuple[str, ...]:
        """Those that there are."""
        return tuple(name for name in (self.minimum, self.maximum, self.sample, self.size) if name)


@dataclass(frozen=True)
class ProbedModel:
    """A float model with probes."""

    model: ir.Model
    probes: tuple[Probe, ...]


def add_probes(
    model: ir.Model, activations: Iterable[ActivationPlan], *, sampled: bool
) -> ProbedModel:
    """A copy of ``model`` with a probe for each activation.

    Args:
        model: is left as it is; the copy shares its tensors.
        activations: in the main graph, or in the bodies of If nodes.
        sampled: whether elements are wanted of every activation, or only of those whose extremes
            may be those of a mask.
    """
    copy = copy_model(model)
    prober = _Prober(copy.model, sampled=sampled)
    probes = tuple(prober.add(one, copy.values[one.value]) for one in activations)
    return ProbedModel(copy.model, probes)


class _Prober:
    def __init__(self, model: ir.Model, *, sampled: bool) -> None:
        self._model = model
        self._sampled = sampled
        self._names = Names(model)
        self._constants: dict[tuple[str, int], ir.Value] = {}
        self._parents = {
            body: node
            for scope in iterate_scopes(model)
            for node in scope.graph
            for _, body in iterate_bodies(node)
        }

    def add(self, activation: ActivationPlan, value: ir.Value) -> Probe:
        """Summarise ``value`` in outputs of the main graph."""
        graph = self._graph_of(value)
        minimum = maximum = sample = ""
        size = self._append(graph, "Size", (value,))
        if activation.bounds is not None and activation.bounds[0] == 0.0 and not self._sampled:
            # Everything is at least 0. This operator reads the runtime's own layout of images; the
            # general ones would have every activation written once more in the common layout.
            pooled = value
            if _has_channels(value):
                pooled = self._append(graph, "GlobalMaxPool", (value,))
            maximum = self._lift(graph, self._reduce(graph, "ReduceMax", pooled), "maximum")
        else:
            minimum = self._lift(graph, self._reduce(graph, "ReduceMin", value), "minimum")
            maximum = self._lift(graph, self._reduce(graph, "ReduceMax", value), "maximum")
        if self._sampled or minimum:
            # Extremes alone do not show an attention mask, which is no part of the range.
            sample = self._lift(graph, self._pick(graph, value, size), "sample")
        return Probe(activation, minimum, maximum, sample, size=self._lift(graph, size, "size"))

    def _graph_of(self, value: ir.Value) -> ir.Graph:
        producer = value.producer()
        graph = self._model.graph if producer is None else producer.graph
        if not isinstance(graph, ir.Graph):
            raise ValueError(f"'{value.name}' is in a function")
        return graph

    def _reduce(self, graph: ir.Graph, operator: str, value: ir.Value) -> ir.Value:
        return self._append(graph, operator, (value,), keepdims=0)

    def _pick(self, graph: ir.Graph, value: ir.Value, size: ir.Value) -> ir.Value:
        """Every n-th element, n odd: sizes of images and numbers of channels are mostly even."""
        parts = self._append(graph, "Div", (size, self._number("elements", SAMPLED_ELEMENTS)))
        halves = self._append(graph, "Div", (parts, self._number("two", 2)))
        doubled = self._append(graph, "Mul", (halves, self._number("two", 2)))
        step = self._append(graph, "Add", (doubled, self._number("one", 1)))
        flat = self._append(graph, "Reshape", (value, self._number("flat", -1)))
        start, end = self._number("start", 0), self._number("end", np.iinfo(np.int64).max)
        return self._append(graph, "Slice", (flat, start, end, start, step))

    def _number(self, name: str, number: int) -> ir.Value:
        key = (name, number)
        if key not in self._constants:
            tensor = ir.Tensor(np.array([number], np.int64))
            unique = self._names.new_value(f"onnxq_{name}")
            self._constants[key] = add_initializer(self._model.graph, tensor, unique)
        return self._constants[key]

    def _append(
        self,
        graph: ir.Graph,
        operator: str,
        inputs: tuple[ir.Value, ...],
        **attributes: int,
    ) -> ir.Value:
        node = ir.node(operator, list(inputs), attributes=attributes)
        node.outputs[0].name = self._names.new_value(f"onnxq_{operator}")
        graph.append(node)
        return node.outputs[0]

    def _lift(self, graph: ir.Graph, value: ir.Value, kind: str) -> str:
        """Make ``value`` an output of its graph, and of every graph around it."""
        kinds = _type_of(kind)
        shape = ir.Shape([None]) if kind == "sample" else ir.Shape([])
        while True:
            value.type, value.shape = kinds, shape
            graph.outputs.append(value)
            if graph is self._model.graph:
                return value.name or ""
            branch = self._parents[graph]
            for _, body in iterate_bodies(branch):
                if body is not graph:
                    body.outputs.append(self._nothing(body, kind))
            branch.resize_outputs(len(branch.outputs) + 1)
            value = branch.outputs[-1]
            value.name = self._names.new_value(f"onnxq_{kind}")
            graph = self._graph_of(value)

    def _nothing(self, graph: ir.Graph, kind: str) -> ir.Value:
        """What the other branch of an If gives."""
        array = _NOTHING[kind]
        name = self._names.new_value(f"onnxq_no_{kind}")
        node = ir.node("Constant", [], attributes={"value": ir.Tensor(array, name=name)})
        value = node.outputs[0]
        value.name, value.type = name, _type_of(kind)
        value.shape = ir.Shape([None]) if kind == "sample" else ir.Shape([])
        graph.append(node)
        return value


def _type_of(kind: str) -> ir.TensorType:
    return ir.TensorType(ir.DataType.INT64 if kind == "size" else ir.DataType.FLOAT)


def _has_channels(value: ir.Value) -> bool:
    """Whether a value is known to have a batch, channels and at least one axis more."""
    if value.shape is not None and len(value.shape) > 0:
        return len(value.shape) > 2
    producer = value.producer()
    source = None if producer is None else producer.inputs[0]
    layer = None if source is None else source.producer()
    if layer is None or layer.op_type != "Conv":
        return False
    tensor = constant_tensor(layer.inputs[1])
    return tensor is not None and len(tensor.shape) > 2
