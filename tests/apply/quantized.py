"""A float model and what ``onnxq`` makes of it, ready to run and to look into."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

import onnxq
from onnxq.pipelines import QuantizationResult
from tests.apply.microsoft_operators import OPERATORS
from tests.models import save

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]

ELEMENT_TYPES = {
    "float": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "double": np.dtype(np.float64),
}
"""numpy types by their name in the textual form of ONNX."""

TARGETS = ("ort-cpu", "onnx")


@dataclass(frozen=True)
class Quantized:
    """Both models; the float one is kept as it was built."""

    float_model: onnx.ModelProto
    path: Path
    result: QuantizationResult

    @cached_property
    def model(self) -> onnx.ModelProto:
        return onnx.load(str(self.path))

    @cached_property
    def optimized(self) -> onnx.ModelProto:
        """The graph that onnxruntime really runs."""
        return optimize(self.path)

    def run(self, feeds: Feeds) -> list[Array]:
        return run(self.model, feeds)

    def run_float(self, feeds: Feeds) -> list[Array]:
        return run(self.float_model, feeds)

    def run_reference(self, feeds: Feeds) -> list[Array]:
        """As the reference implementation of ONNX computes it."""
        return list(ReferenceEvaluator(self.model, new_ops=list(OPERATORS)).run(None, dict(feeds)))

    def run_twin(self, feeds: Feeds) -> list[Array]:
        """The float model on the weights as the quantized file holds them."""
        return run(self.make_twin(), feeds)

    def make_twin(self) -> onnx.ModelProto:
        """The float model with every initializer replaced by what the quantized model reads."""
        twin = onnx.ModelProto()
        twin.CopyFrom(self.float_model)
        kept = {tensor.name for graph in iterate_graphs(self.model) for tensor in graph.initializer}
        for graph in iterate_graphs(twin):
            for tensor in graph.initializer:
                if tensor.name not in kept:
                    stored = self.read_constant(tensor.name)
                    tensor.CopyFrom(numpy_helper.from_array(stored, tensor.name))
        return twin

    def initializer(self, name: str) -> Array:
        """One initializer of the quantized model."""
        found = [
            tensor
            for graph in iterate_graphs(self.model)
            for tensor in graph.initializer
            if tensor.name == name
        ]
        assert len(found) == 1, f"{name}: {[t.name for t in self.model.graph.initializer]}"
        return numpy_helper.to_array(found[0])

    def read_constant(self, name: str) -> Array:
        """What a value of the quantized model is that depends on constants only."""
        for graph in iterate_graphs(self.model):
            for tensor in graph.initializer:
                if tensor.name == name:
                    return numpy_helper.to_array(tensor)
            for node in graph.node:
                if name in node.output:
                    inputs = {one: self.read_constant(one) for one in node.input if one}
                    return np.asarray(ReferenceEvaluator(node).run(None, inputs)[0])
        raise KeyError(name)

    def operators(self) -> dict[str, int]:
        """How often each operator occurs in the file, in every body."""
        return count_operators(self.model)


def quantize(model: onnx.ModelProto, folder: Path, **options: Any) -> Quantized:
    """Save ``model`` in ``folder`` and quantize it through the public interface."""
    source = save(model, folder / "model.onnx")
    result = onnxq.quantize_dynamic(source, folder / "quantized.onnx", **options)
    return Quantized(model, result.output, result)


def run(model: onnx.ModelProto, feeds: Feeds) -> list[Array]:
    """Outputs of a model in onnxruntime, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, dict(feeds)))


def optimize(path: Path) -> onnx.ModelProto:
    """A model as onnxruntime optimises it at its default level."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the others would spin
    options.log_severity_level = 4
    optimized = path.with_name(f"{path.stem}.optimized.onnx")
    options.optimized_model_filepath = str(optimized)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return onnx.load(str(optimized))


def iterate_graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """The main graph, every body in it, and the local functions."""
    yield from _iterate_bodies(model.graph)
    yield from model.functions


def count_operators(model: onnx.ModelProto) -> dict[str, int]:
    """How often each operator occurs, in every body."""
    counts: dict[str, int] = {}
    for graph in iterate_graphs(model):
        for node in graph.node:
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts


def domains(model: onnx.ModelProto) -> set[str]:
    """The domains of all nodes, 'ai.onnx' for the standard one."""
    return {node.domain or "ai.onnx" for graph in iterate_graphs(model) for node in graph.node}


def activation_step(activation: Array) -> float:
    """The scale that DynamicQuantizeLinear chooses: 255 steps over the range with zero in it."""
    return float(max(activation.max(), 0.0) - min(activation.min(), 0.0)) / 255


def quantize_like_dynamic_quantize_linear(activation: Array) -> Array:
    """The values that DynamicQuantizeLinear leaves of an activation, as float32."""
    (quantized, scale, zero_point) = ReferenceEvaluator(
        onnx.helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])
    ).run(None, {"x": activation})
    return (quantized.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def gaussian_noise_db(values: Array, step: Array | float) -> float:
    """SQNR of ``values`` on a grid: rounding errors have the power step^2 / 12 (Bennett 1948)."""
    power = float(np.mean(np.square(values, dtype=np.float64)))
    return 10 * math.log10(power / (float(np.mean(np.square(step, dtype=np.float64))) / 12))


def _iterate_bodies(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _iterate_bodies(attribute.g)
