"""A sweep: the layers of a model one after the other, each with what it reads on samples.

Every layer is seen in the float model and in the quantized model as it is up to there, with all
earlier layers as they were left. So what one layer could not keep, the next ones can make up for.
Activations between segments are kept for all samples, in memory or in files; weights and moments
of one layer at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxq.algorithms.layers import Keep, Layer, find_layers
from onnxq.algorithms.recipe import Recipe, TunedWeight
from onnxq.algorithms.segments import IntegerBorders, Segment, SegmentModel, cut_before
from onnxq.algorithms.store import ActivationStore
from onnxq.algorithms.visits import LayerChange, LayerSample, Visit
from onnxq.apply.weights import compute_elements, parameters_of
from onnxq.calibration import resolve_ranges
from onnxq.errors import ExecutionError
from onnxq.graph.constants import release
from onnxq.graph.offload import offload_array
from onnxq.numerics.activations import simulate_at_run_time
from onnxq.numerics.affine import Array, Parameters, dequantize, quantize
from onnxq.plan import ActivationPlan, TensorPlan
from onnxq.rules.roles import Form
from onnxq.runtime.session import Feeds, Session

FEWEST_ROWS = 1024
"""Rows of a layer that are looked at, over all samples."""

ROWS_AN_INPUT = 4
"""More of them for layers with many inputs, whose moments would be singular."""

MOST_ROW_ELEMENTS = 1 << 23
"""Elements in them: 32 MB of float32 for each of the two models."""

BIAS_INPUTS = (0, 1, 2)
"""Of Conv and Gemm the last one, of an Add either one."""

Track = Callable[[Iterable[Any], int | None], Iterable[Any]]


def sweep(
    recipe: Recipe,
    feeds: Iterable[Feeds],
    visit: Visit,
    *,
    folder: Path,
    results: Path,
    track: Track,
    restarts: Collection[ir.Node] = (),
) -> Recipe:
    """Visit every layer in graph order, and change it as the visit says.

    Args:
        recipe: to start from; its float model is left as it is.
        feeds: the inputs of each sample.
        visit: looks at a layer, and says what to change.
        folder: for temporary files.
        results: folder for the weights that were chosen; must outlive the result.
        track: shows progress over layers.
        restarts: layers before which the quantized model is put back to the activations of the
            float model, so that what follows shows its own errors only.

    Raises:
        ExecutionError: a part of the model cannot be run by itself.
    """
    graph = recipe.model.graph
    layers = tuple(find_layers(recipe.plan, graph))
    if not layers:
        return recipe
    segments = cut_before(graph, [layer.node for layer in layers])
    run = _Run(recipe, folder, results)
    run.start(feeds)
    for segment, layer in track(zip(segments, layers, strict=False), len(layers)):
        run.advance(segment)
        if layer.node in restarts:
            run.restart()
        sample = run.sample(layer)
        if sample.is_usable:
            run.change(layer, visit(sample))
    return run.recipe


@dataclass
class _Run:
    recipe: Recipe
    folder: Path
    results: Path
    samples: int = 0

    def __post_init__(self) -> None:
        self._float = ActivationStore(self.folder / "float")
        self._quantized = ActivationStore(self.folder / "quantized")
        self._tensors = {one.constant.value: one for one in self.recipe.plan.changes}
        decisions = self.recipe.plan.decisions
        self._borders = IntegerBorders.of(self.recipe.plan)
        self._outputs = {
            node.one.node: self._borders.owners[node.one.outputs[0]]
            for node in decisions.nodes
            if node.quantizes_output
        }
        self._parameters = resolve_ranges(decisions.activations, self.recipe.ranges)

    def start(self, feeds: Iterable[Feeds]) -> None:
        """Read the samples."""
        inputs = {value.name: value for value in self.recipe.model.graph.inputs}
        for index, one in enumerate(feeds):
            self.samples = index + 1
            for name, array in one.items():
                if name in inputs:
                    self._float.put(index, inputs[name], array)
                    self._quantized.put(index, inputs[name], array)

    def restart(self) -> None:
        """Forget the errors so far."""
        self._quantized.copy(self._float)

    def advance(self, segment: Segment) -> None:
        """Run a segment in both models, for all samples."""
        if not segment.outputs:
            return
        for store, is_quantized in ((self._float, False), (self._quantized, True)):
            session = self._open(segment, store, is_quantized=is_quantized)
            names = [value.name or "" for value in segment.outputs]
            for index in range(self.samples):
                fed = {value.name or "": store.get(index, value) for value in segment.inputs}
                for value, array in zip(segment.outputs, session.run(fed, names), strict=True):
                    store.put(index, value, _require_array(value, array))
                for value in segment.last_reads:
                    store.drop(index, value)

    def sample(self, layer: Layer) -> LayerSample:
        """What a layer reads; its input has just been computed."""
        whole = layer.read_weight()
        groups, _, inputs = whole.shape
        wanted = max(FEWEST_ROWS, ROWS_AN_INPUT * inputs)
        share = max(1, min(wanted, MOST_ROW_ELEMENTS // (groups * inputs)) // self.samples)
        choices = [_Choice(share, index) for index in range(self.samples)]
        float_rows = np.concatenate(
            [
                layer.take_rows(self._float.get(index, layer.input), keep)
                for index, keep in enumerate(choices)
            ],
            axis=1,
        )
        quantized_rows = np.concatenate(
            [self._take_quantized_rows(layer, index, keep) for index, keep in enumerate(choices)],
            axis=1,
        )
        if layer.node in self._borders.inputs and layer.input not in self._borders.made:
            # What another integer node gives is on the grid already.
            owner = self._borders.owners[layer.input]
            quantized_rows = _simulate(quantized_rows, owner, self._parameters)
        value = layer.weight.constant.value
        tensor = self._tensors[value]
        return LayerSample(
            layer=layer,
            float_rows=float_rows,
            quantized_rows=quantized_rows,
            tensor=tensor,
            stored_weight=self._read_quantized(value, tensor),
            output=self._outputs.get(layer.node),
            ranges=self.recipe.ranges,
        )

    def _take_quantized_rows(self, layer: Layer, index: int, keep: Keep) -> Array:
        read = self._quantized.get(index, layer.input)
        if any(use.form is Form.INTEGER_MATMUL for use in layer.weight.uses):
            read = simulate_at_run_time(read)
        return layer.take_rows(read, keep)

    def change(self, layer: Layer, change: LayerChange) -> None:
        """Take over what a visit decided."""
        recipe, value = self.recipe, layer.weight.constant.value
        if change.tensor is not None:
            self._tensors[value] = change.tensor
        tensor = self._tensors[value]
        if change.weight is not None and tensor.statistics is not None:
            name = value.name or "weight"
            stored = offload_array(change.weight, self.results, name=name)
            tuned = TunedWeight(stored, tensor.statistics)
            recipe = replace(recipe, weights={**recipe.weights, value: tuned})
        if change.bias is not None and layer.bias_place is not None:
            recipe = replace(recipe, biases={**recipe.biases, layer.bias_place: change.bias})
        output = self._outputs.get(layer.node)
        if change.range is not None and output is not None:
            recipe = replace(recipe, ranges={**recipe.ranges, output.value: change.range})
            self._parameters |= resolve_ranges((output,), recipe.ranges)
        self.recipe = recipe

    def _open(self, segment: Segment, store: ActivationStore, *, is_quantized: bool) -> Session:
        made = SegmentModel(self.recipe.model, segment)
        if is_quantized:
            for value in dict.fromkeys(one for node in segment.nodes for one in node.inputs):
                if value is not None and value in self._tensors:
                    made.set_constant(value, self._read_quantized(value, self._tensors[value]))
            for place in ((node, at) for node in segment.nodes for at in BIAS_INPUTS):
                if place in self.recipe.biases:
                    made.set_bias(place, self.recipe.biases[place])
            made.simulate(self._borders, self._parameters)
        first = {value.name or "": store.get(0, value) for value in segment.inputs}
        return made.open(self.folder / "segment.onnx", first)

    def _read_quantized(self, value: ir.Value, tensor: TensorPlan) -> Array:
        tuned = self.recipe.weights.get(value)
        if tuned is not None:
            array = np.array(tuned.tensor.numpy())
            release(tuned.tensor)
            return array
        return simulate_weight(tensor)


def _require_array(value: ir.Value, found: Any) -> Array:
    if isinstance(found, np.ndarray):
        return found
    reason = f"'{value.name}', which is no tensor, is read on both sides of a layer"
    raise ExecutionError(f"layers cannot be run one after the other: {reason}", reason=reason)


def simulate_weight(tensor: TensorPlan) -> Array:
    """The real values of a weight as it would be stored without any data."""
    scheme = tensor.scheme
    if scheme is None or scheme.block_size is not None:
        return np.array(tensor.constant.tensor.numpy())
    elements = compute_elements(tensor)
    if scheme.type.is_half:
        return elements.astype(tensor.constant.tensor.dtype.numpy())
    return dequantize(elements.astype(np.int32), parameters_of(tensor))


def _simulate(
    real: Array, activation: ActivationPlan, parameters: Mapping[ir.Value, Parameters]
) -> Array:
    low, high = activation.scheme.range
    own = parameters[activation.value]
    return dequantize(quantize(real, own, quantized_min=low, quantized_max=high), own)


@dataclass(frozen=True)
class _Choice:
    """So many places of each sample, the same ones in both models."""

    share: int
    seed: int

    def __call__(self, count: int) -> Array:
        if count <= self.share:
            return np.arange(count)
        # One in each stretch: a fixed step would see some columns of an image only.
        edges = np.arange(self.share + 1) * count // self.share
        random = np.random.default_rng(self.seed).random(self.share)
        return edges[:-1] + (random * np.diff(edges)).astype(np.int64)
