"""SmoothQuant: large channels of an activation are divided, and its weights multiplied.

Some channels of what transformers multiply are a hundred times larger than the rest, which with one
scale for the tensor leaves the rest few integers. ``x W = (x / s) (s W)`` moves the difficulty into
the weights, which have more scales (Xiao et al. 2022, arXiv:2211.10438).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxq.algorithms.absorbing import find_absorbing_constants
from onnxq.algorithms.layers import Layer, find_layers
from onnxq.algorithms.recipe import Recipe
from onnxq.calibration import Range
from onnxq.graph.constants import add_initializer, require_constant
from onnxq.graph.copies import ModelCopy, copy_model
from onnxq.graph.names import Names
from onnxq.graph.offload import offload_array
from onnxq.numerics.affine import Array
from onnxq.numerics.equalization import find_outlier_factors, find_smooth_factors
from onnxq.rules.roles import Form
from onnxq.runtime.session import Feeds, Session


@dataclass(frozen=True)
class Smoothable:
    """An activation of floats, and the integer products that read it.

    Attributes:
        value: in the float model.
        layers: MatMul and Gemm.
        low: smallest value of each channel, shape [K].
        high: largest value of each channel, shape [K].
    """

    value: ir.Value
    layers: tuple[Layer, ...]
    low: Array
    high: Array

    @property
    def magnitudes(self) -> Array:
        """Of the largest element of each channel."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    def find_factors(self, alpha: float | None) -> Array:
        """What to divide the channels by, shape [K]; None divides outliers only."""
        if alpha is None:
            return find_outlier_factors(self.magnitudes)
        weight_max = np.max(
            [np.abs(layer.read_weight()).max(axis=(0, 1)) for layer in self.layers], axis=0
        )
        return find_smooth_factors(self.magnitudes, weight_max, alpha=alpha)


def find_smoothable(recipe: Recipe) -> dict[ir.Value, tuple[Layer, ...]]:
    """Activations of floats that integer products read, with these products."""
    made = {
        value
        for node in recipe.plan.decisions.nodes
        if node.quantizes_output
        for value in node.one.outputs
    }
    found: dict[ir.Value, list[Layer]] = {}
    for layer in find_layers(recipe.plan, recipe.model.graph):
        forms = {use.form for use in layer.weight.uses}
        if layer.node.op_type == "Conv" or layer.input in made:
            continue
        if forms <= {Form.CALIBRATED, Form.INTEGER_MATMUL}:
            found.setdefault(layer.input, []).append(layer)
    return {value: tuple(layers) for value, layers in found.items()}


def observe_channels(recipe: Recipe, feeds: Iterable[Feeds], path: Path) -> tuple[Smoothable, ...]:
    """The extremes of each channel of what can be smoothed.

    Args:
        recipe: its float model is run.
        feeds: of the samples.
        path: where to write a model for a while.

    Raises:
        ExecutionError: the model cannot be run.
    """
    wanted = find_smoothable(recipe)
    if not wanted:
        return ()
    copy = copy_model(recipe.model)
    sizes = {value: layers[0].read_weight().shape[2] for value, layers in wanted.items()}
    names = list(_add_channel_probes(copy, sizes))
    weights_path = path.with_name(f"{path.name}.data")
    ir.save(copy.model, path, external_data=weights_path.name, max_workers=1)
    session = Session(path, lean=True)
    extremes: list[Array] = []
    for one in feeds:
        results = [np.asarray(array) for array in session.run(one, names)]
        merge = (np.minimum, np.maximum)
        extremes = [
            merge[at % 2](extremes[at], array) if extremes else array
            for at, array in enumerate(results)
        ]
    del session
    # As large as the float model, and nothing reads it any more.
    weights_path.unlink(missing_ok=True)
    return tuple(
        Smoothable(value, layers, extremes[2 * at], extremes[2 * at + 1])
        for at, (value, layers) in enumerate(wanted.items())
        if extremes
    )


def smooth(
    recipe: Recipe, smoothables: Sequence[Smoothable], alpha: float | None, folder: Path
) -> Recipe:
    """A recipe for the smoothed model.

    Args:
        recipe: for the model as it was; weights and biases that were tuned for it are dropped.
        smoothables: activations to smooth.
        alpha: how much moves into the weights; None for that of outliers only.
        folder: for the new weights; must outlive the recipe.
    """
    folder.mkdir(exist_ok=True)
    copy = copy_model(recipe.model)
    names = Names(copy.model)
    moved: dict[ir.Value, Range] = {}
    for one in smoothables:
        factors = one.find_factors(alpha)
        divided = _divide(copy, one, factors, names)
        moved[divided] = (
            min(0.0, float((one.low / factors).min())),
            max(0.0, float((one.high / factors).max())),
        )
        for layer in one.layers:
            weight = layer.from_matrices(layer.read_weight() * factors)
            value = copy.values[layer.weight.constant.value]
            # At once, so that no two weights are in memory.
            value.const_value = offload_array(weight, folder, name=value.name or "weight")
    smoothed = [copy.nodes[layer.node] for one in smoothables for layer in one.layers]
    planner = recipe.planner.follow(copy).judge_on_samples(smoothed)
    plan = planner.plan()
    ranges = {copy.values[value]: found for value, found in recipe.ranges.items()} | moved
    activations = plan.decisions.activations
    return replace(
        recipe,
        planner=planner,
        plan=plan,
        ranges={one.value: ranges[one.value] for one in activations},
        weights={},
        biases={},
    )


def _divide(copy: ModelCopy, one: Smoothable, factors: Array, names: Names) -> ir.Value:
    """Divide an activation for the products that read it; returns what they read then."""
    places = find_absorbing_constants(one.value, factors.size, [layer.node for layer in one.layers])
    if not places:
        return _insert_division(copy, one, factors, names)
    for node, index in places:
        constant = node.inputs[index]
        tensor = ir.Tensor(require_constant(constant).numpy() / factors)
        name = names.new_value(f"{'' if constant is None else constant.name}_smoothed")
        graph = copy.nodes[node].graph
        # It is of the main graph, as its products are.
        assert isinstance(graph, ir.Graph)
        copy.nodes[node].replace_input_with(index, add_initializer(graph, tensor, name))
    return copy.values[one.value]


def _insert_division(copy: ModelCopy, one: Smoothable, factors: Array, names: Names) -> ir.Value:
    """Put a Mul between an activation and the products that read it."""
    value = copy.values[one.value]
    name = names.new_value(f"{value.name}_smooth_factors")
    inverse = add_initializer(copy.model.graph, ir.Tensor(np.float32(1) / factors), name)
    node = ir.node("Mul", [value, inverse], name=names.new_node(f"{value.name}_smoothed"))
    divided = node.outputs[0]
    divided.name = names.new_value(f"{value.name}_smoothed")
    divided.type, divided.shape = value.type, value.shape
    readers = [copy.nodes[layer.node] for layer in one.layers]
    # Layers are found in the order of the graph.
    copy.model.graph.insert_before(readers[0], node)
    for reader in readers:
        reader.replace_input_with(0, divided)
    return divided


def _add_channel_probes(copy: ModelCopy, sizes: Mapping[ir.Value, int]) -> Iterator[str]:
    """Names of the smallest and of the largest element of each channel, for each value."""
    graph, names = copy.model.graph, Names(copy.model)
    graph.outputs.clear()
    takes_axes = copy.model.opset_imports[""] >= 18
    axes = add_initializer(graph, ir.Tensor(np.array([0])), names.new_value("onnxq_axes"))
    for value, size in sizes.items():
        shape = ir.Tensor(np.array([-1, size]))
        rows = _append(
            graph,
            names,
            ir.node(
                "Reshape",
                [copy.values[value], add_initializer(graph, shape, names.new_value("onnxq_rows"))],
            ),
        )
        for operator in ("ReduceMin", "ReduceMax"):
            attributes = {"keepdims": 0} | ({} if takes_axes else {"axes": [0]})
            inputs = [rows, axes] if takes_axes else [rows]
            reduced = _append(graph, names, ir.node(operator, inputs, attributes=attributes))
            reduced.type, reduced.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([size])
            graph.outputs.append(reduced)
            yield reduced.name or ""


def _append(graph: ir.Graph, names: Names, node: ir.Node) -> ir.Value:
    node.outputs[0].name = names.new_value(f"onnxq_{node.op_type}")
    graph.append(node)
    return node.outputs[0]
