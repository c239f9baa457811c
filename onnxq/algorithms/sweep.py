"""A sweep: the layers of a model one after the other, each with what it reads on samples.

Every layer is seen in the float model and in the quantized model as it is up to there, with all
earlier layers as they were left. So what one layer could not keep, the next ones can make up for.
Activations between segments are kept for all samples, in memory or in files; weights and moments
of one layer at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxq.algorithms.borders import IntegerBorders
from onnxq.algorithms.layers import Keep, Layer, find_layers
from onnxq.algorithms.recipe import Recipe, TunedWeight
from onnxq.algorithms.segments import Segment, SegmentModel, cut_before
from onnxq.algorithms.store import MOST_BYTES, ActivationStore
from onnxq.algorithms.stored_weights import StoredWeights
from onnxq.algorithms.visits import FloatRows, LayerChange, LayerSample, Visit
from onnxq.calibration import resolve_ranges
from onnxq.errors import ExecutionError
from onnxq.graph.constants import release
from onnxq.graph.offload import offload_array
from onnxq.numerics.activations import simulate_at_run_time
from onnxq.numerics.affine import Array, Parameters, dequantize, quantize
from onnxq.plan import ActivationKey, ActivationPlan, TensorPlan
from onnxq.rules.roles import Form
from onnxq.runtime.session import Feeds, Session

FEWEST_ROWS = 1024
"""Rows of a layer that are looked at, over all samples."""

ROWS_AN_INPUT = 4
"""More of them for layers with many inputs, whose moments would be singular."""

USUAL_SAMPLES = 32
"""That these are for; with more samples there are more rows."""

MOST_ROW_ELEMENTS = 1 << 23
"""Elements in them: 32 MB of float32 for each of the two models."""

BIAS_INPUTS = (0, 1, 2)
"""Of Conv and Gemm the last one, of an Add either one."""

Track = Callable[[Iterable[Any], int | None], Iterable[Any]]


def sweep(
    recipe: Recipe,
    feeds: Iterable[Feeds],
    visits: Mapping[str, Visit],
    *,
    folder: Path,
    results: Path,
    track: Track,
    restarts: Collection[ir.Node] = (),
) -> dict[str, Recipe]:
    """Visit every layer in graph order, and change it as the visit says.

    Each visit has a quantized model of its own. The float model is run once for all.

    Args:
        recipe: to start from; its float model is left as it is.
        feeds: the inputs of each sample.
        visits: each looks at a layer, and says what to change; by name.
        folder: for temporary files.
        results: folder for the weights that were chosen; must outlive the result.
        track: shows progress over layers.
        restarts: layers before which the quantized models are put back to the activations of the
            float model, so that what follows shows its own errors only.

    Returns:
        What each visit made of the recipe.

    Raises:
        ExecutionError: a part of the model cannot be run by itself.
    """
    graph = recipe.model.graph
    layers = tuple(find_layers(recipe.plan, graph))
    if not layers:
        return dict.fromkeys(visits, recipe)
    segments = cut_before(graph, [layer.node for layer in layers])
    most_bytes = MOST_BYTES // len(visits)
    floats = _FloatModel(recipe, folder, ActivationStore(folder / "float"))
    weights = StoredWeights()
    found = []
    for at, visit in enumerate(visits.values()):
        kept, made = folder / f"quantized-{at}", results / str(at)
        made.mkdir()
        store = ActivationStore(kept, most_bytes=most_bytes)
        found.append((_QuantizedModel(recipe, folder, store, made, weights), visit))
    floats.start(feeds, [one.store for one, _ in found])
    for segment, layer in track(zip(segments, layers, strict=False), len(layers)):
        floats.advance(segment)
        _advance_all([one for one, _ in found], segment, is_first=segment is segments[0])
        # What the segment read; from here on only the weight of the layer is needed.
        weights.forget()
        choices = _choose_places(layer, floats.store.samples)
        rows = floats.take_rows(layer, choices)
        for quantized, visit in found:
            if layer.node in restarts:
                quantized.store.copy(floats.store)
            sample = quantized.sample(layer, rows, choices)
            if sample.is_usable:
                quantized.change(layer, visit(sample))
    return {name: one.recipe for name, (one, _) in zip(visits, found, strict=True)}


def _advance_all(models: Sequence[_QuantizedModel], segment: Segment, *, is_first: bool) -> None:
    """Run a segment in all models, which are the same as long as no layer was visited."""
    first, *others = models
    first.advance(segment)
    for one in others:
        if is_first:
            one.store.copy(first.store)
        else:
            one.advance(segment)


def _choose_places(layer: Layer, samples: int) -> list[_Choice]:
    """For each sample, at which places of its output to look at a layer."""
    groups, _, inputs = layer.matrices_shape
    wanted = max(FEWEST_ROWS, ROWS_AN_INPUT * inputs) * max(USUAL_SAMPLES, samples) // USUAL_SAMPLES
    share = max(1, min(wanted, MOST_ROW_ELEMENTS // (groups * inputs)) // samples)
    return [_Choice(share, index) for index in range(samples)]


def _run_segment(segment: Segment, store: ActivationStore, session: Session) -> None:
    """Compute what later segments read, for all samples."""
    names = [value.name or "" for value in segment.outputs]
    for index in range(store.samples):
        fed = {value.name or "": store.get(index, value) for value in segment.inputs}
        for value, array in zip(segment.outputs, session.run(fed, names), strict=True):
            store.put(index, value, _require_array(value, array))
        for value in segment.last_reads:
            store.drop(index, value)


def _open(made: SegmentModel, segment: Segment, store: ActivationStore, folder: Path) -> Session:
    first = {value.name or "": store.get(0, value) for value in segment.inputs}
    return made.open(folder / "segment.onnx", first)


@dataclass(frozen=True)
class _FloatModel:
    recipe: Recipe
    folder: Path
    store: ActivationStore

    def start(self, feeds: Iterable[Feeds], others: Sequence[ActivationStore]) -> None:
        """Read the samples, for the quantized models, too."""
        inputs = {value.name: value for value in self.recipe.model.graph.inputs}
        for index, one in enumerate(feeds):
            for name, array in one.items():
                if name in inputs:
                    for store in (self.store, *others):
                        store.put(index, inputs[name], array)

    def advance(self, segment: Segment) -> None:
        """Run a segment for all samples."""
        if segment.outputs:
            made = SegmentModel(self.recipe.model, segment)
            _run_segment(segment, self.store, _open(made, segment, self.store, self.folder))

    def take_rows(self, layer: Layer, choices: Sequence[Keep]) -> FloatRows:
        """What a layer reads; its input has just been computed."""
        rows = [
            layer.take_rows(self.store.get(index, layer.input), keep)
            for index, keep in enumerate(choices)
        ]
        samples = np.repeat(np.arange(len(rows)), [one.shape[1] for one in rows])
        return FloatRows(layer=layer, rows=np.concatenate(rows, axis=1), samples=samples)


@dataclass
class _QuantizedModel:
    recipe: Recipe
    folder: Path
    store: ActivationStore
    results: Path
    weights: StoredWeights

    def __post_init__(self) -> None:
        self._tensors = {one.constant.value: one for one in self.recipe.plan.changes}
        decisions = self.recipe.plan.decisions
        self._borders = IntegerBorders.of(self.recipe.plan)
        self._outputs = {
            node.one.node: self._borders.made[node.one.outputs[0]]
            for node in decisions.nodes
            if node.quantizes_output
        }
        self._parameters = self.recipe.parameters

    def advance(self, segment: Segment) -> None:
        """Run a segment for all samples."""
        if not segment.outputs:
            return
        made = SegmentModel(self.recipe.model, segment)
        for value in dict.fromkeys(one for node in segment.nodes for one in node.inputs):
            if value is not None and value in self._tensors:
                made.set_constant(value, self._read_quantized(value, self._tensors[value]))
        for place in ((node, at) for node in segment.nodes for at in BIAS_INPUTS):
            if place in self.recipe.biases:
                made.set_bias(place, self.recipe.biases[place])
        made.simulate(self._borders, self._parameters)
        _run_segment(segment, self.store, _open(made, segment, self.store, self.folder))

    def sample(self, layer: Layer, floats: FloatRows, choices: Sequence[Keep]) -> LayerSample:
        """What a layer reads in both models; its input has just been computed."""
        rows = np.concatenate(
            [self._take_rows(layer, index, keep) for index, keep in enumerate(choices)], axis=1
        )
        # What another integer node gives in the same type is on the grid already.
        entering = self._borders.entering.get(layer.node, {}).get(layer.input)
        if entering is not None:
            rows = _simulate(rows, entering, self._parameters)
        value = layer.weight.constant.value
        tensor = self._tensors[value]
        return LayerSample(
            layer=layer,
            floats=floats,
            quantized_rows=rows,
            tensor=tensor,
            stored_weight=self._read_quantized(value, tensor),
            output=self._outputs.get(layer.node),
            ranges=self.recipe.ranges,
        )

    def _take_rows(self, layer: Layer, index: int, keep: Keep) -> Array:
        read = self.store.get(index, layer.input)
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

    def _read_quantized(self, value: ir.Value, tensor: TensorPlan) -> Array:
        tuned = self.recipe.weights.get(value)
        if tuned is not None:
            array = np.array(tuned.tensor.numpy())
            release(tuned.tensor)
            return array
        return self.weights.read(value, tensor)


def _require_array(value: ir.Value, found: Any) -> Array:
    if isinstance(found, np.ndarray):
        return found
    reason = f"'{value.name}', which is no tensor, is read on both sides of a layer"
    raise ExecutionError(f"layers cannot be run one after the other: {reason}", reason=reason)


def _simulate(
    real: Array, activation: ActivationPlan, parameters: Mapping[ActivationKey, Parameters]
) -> Array:
    low, high = activation.scheme.range
    own = parameters[activation.key]
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
