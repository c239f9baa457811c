"""Cross-layer equalization: channels between two layers get the ranges that suit both weights.

``W2 relu(W1 x + b) = (W2 s) relu((W1 x + b) / s)`` for positive s, as Relu keeps scale (Nagel et
al. 2019, arXiv:1906.04721, section 4.1). A Clip with an upper limit does not: what would need one
limit a channel is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxq.algorithms.layers import Layer, find_layers
from onnxq.algorithms.recipe import Recipe
from onnxq.graph.constants import add_initializer, constant_tensor
from onnxq.graph.copies import ModelCopy, copy_model
from onnxq.graph.names import Names
from onnxq.graph.offload import offload_array
from onnxq.numerics.affine import Array
from onnxq.numerics.equalization import find_cross_layer_factors
from onnxq.plan.planner import StaticPlanner

_KEEPS_SCALE = frozenset({"Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "Identity"})


@dataclass(frozen=True)
class Chain:
    """Convolutions of which each alone reads what the one before gives."""

    layers: tuple[Layer, ...]


def find_chains(recipe: Recipe) -> tuple[Chain, ...]:
    """Pairs of convolutions, and longer chains where depthwise ones stand between."""
    layers = {
        layer.node: layer
        for layer in find_layers(recipe.plan, recipe.model.graph)
        if layer.node.op_type == "Conv" and layer.bias_place is not None
    }
    chains: list[Chain] = []
    used: set[ir.Node] = set()
    for node, layer in layers.items():
        if node in used or _is_depthwise(layer):
            continue
        chain = [layer]
        while (reader := _find_reader(chain[-1].node, layers)) is not None:
            chain.append(reader)
            if not _is_depthwise(reader):
                break
        if len(chain) > 1 and (chain[-1].groups == 1 or _is_depthwise(chain[-1])):
            chains.append(Chain(tuple(chain)))
            # A dense layer at the end of one chain can start the next one.
            used.update(one.node for one in chain[:-1])
    return tuple(chains)


def equalize(recipe: Recipe, chains: Sequence[Chain], folder: Path) -> StaticPlanner:
    """The planner of a model with equal function and equalized weights.

    Args:
        recipe: of the model as it is, which is left alone.
        chains: in it.
        folder: for the new weights; must outlive the result.
    """
    folder.mkdir(exist_ok=True)
    copy = copy_model(recipe.model)
    names = Names(copy.model)
    # The end of one chain may be the start of a later one; all else is written at once, so that
    # memory holds the weights of few layers.
    waiting = {chain.layers[0].node for chain in chains}
    weights: dict[ir.Node, Array] = {}
    biases = {one.node: one.read_bias() for chain in chains for one in chain.layers}
    for chain in chains:
        for layer in chain.layers:
            if layer.node not in weights:
                weights[layer.node] = layer.read_weight()
        magnitudes = list(_measure(chain, weights))
        factors = find_cross_layer_factors(magnitudes)
        for index, factor in enumerate(factors):
            _scale(chain.layers[index], chain.layers[index + 1], factor, weights, biases)
        waiting.discard(chain.layers[0].node)
        for layer in chain.layers:
            if layer.node not in waiting:
                weight = weights.pop(layer.node)
                _write(copy, names, layer, weight, biases[layer.node], folder)
    return recipe.planner.follow(copy)


def _measure(chain: Chain, weights: dict[ir.Node, Array]) -> Iterator[Array]:
    """Largest magnitude of each layer's weights in each channel that the chain shares."""
    for position, layer in enumerate(chain.layers):
        magnitudes = np.abs(weights[layer.node])
        if position == 0 or _is_depthwise(layer):
            yield magnitudes.max(axis=2).reshape(-1)
        else:
            channels = chain.layers[position - 1].channels
            yield magnitudes.reshape(layer.channels, channels, -1).max(axis=(0, 2))


def _scale(
    layer: Layer,
    reader: Layer,
    factor: Array,
    weights: dict[ir.Node, Array],
    biases: dict[ir.Node, Array],
) -> None:
    own = weights[layer.node]
    weights[layer.node] = own / factor.reshape(layer.groups, -1, 1)
    biases[layer.node] = biases[layer.node] / factor
    other = weights[reader.node]
    if _is_depthwise(reader):
        weights[reader.node] = other * factor.reshape(-1, 1, 1)
    else:
        by_input = other.reshape(1, reader.channels, factor.size, -1)
        weights[reader.node] = (by_input * factor[:, None]).reshape(other.shape)


def _write(
    copy: ModelCopy, names: Names, layer: Layer, weight: Array, bias: Array, folder: Path
) -> None:
    value = copy.values[layer.weight.constant.value]
    array = layer.from_matrices(weight).astype(np.float32)
    value.const_value = offload_array(array, folder, name=value.name or "weight")
    node = copy.nodes[layer.node]
    tensor = ir.Tensor(bias.astype(np.float32))
    made = add_initializer(copy.model.graph, tensor, names.new_value(f"{value.name}_bias"))
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, made)


def _is_depthwise(layer: Layer) -> bool:
    return layer.groups > 1 and layer.groups == layer.channels and layer.weight.shape[1] == 1


def _find_reader(node: ir.Node, layers: dict[ir.Node, Layer]) -> Layer | None:
    """The convolution that alone reads a layer, through what keeps scale."""
    value = node.outputs[0]
    while True:
        uses = value.uses()
        if len(uses) != 1 or value.is_graph_output():
            return None
        reader, index = next(iter(uses))
        if reader.graph is not node.graph or index != 0 or reader.domain:
            return None
        if reader in layers:
            found = layers[reader]
            return found if found.groups == 1 or _is_depthwise(found) else None
        if not _keeps_scale(reader):
            return None
        value = reader.outputs[0]


def _keeps_scale(node: ir.Node) -> bool:
    if node.op_type == "Clip":
        # Only a lower limit of 0 scales with its input.
        lower = constant_tensor(node.inputs[1]) if len(node.inputs) > 1 else None
        upper = node.inputs[2] if len(node.inputs) > 2 else None
        return upper is None and lower is not None and float(lower.numpy().reshape(-1)[0]) == 0.0
    return node.op_type in _KEEPS_SCALE and len(node.outputs) == 1
