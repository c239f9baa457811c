"""Blocks of a quantized model that can be kept in float as a whole, and what that costs.

A border between integers and floats costs time, so that single layers are no good choice. Blocks
are cut where at most one tensor of integers crosses.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxq.algorithms.recipe import Recipe
from onnxq.calibration import count_multiplications, find_joined_regions
from onnxq.graph.constants import dimensions, require_constant
from onnxq.graph.copies import copy_model
from onnxq.graph.names import Names
from onnxq.plan import CalibratedNode, Plan, TensorPlan
from onnxq.rules.calibrated import Behaviour
from onnxq.rules.roles import Form
from onnxq.runtime.session import Feeds, Session

MOST_BLOCKS = 16
"""Of one chain; each has about so large a part of its multiplications."""


@dataclass(frozen=True)
class Block:
    """Nodes that are integer or float together.

    Attributes:
        name: of its layers, for reports.
        nodes: in the float model, in graph order.
    """

    name: str
    nodes: tuple[ir.Node, ...]


def find_blocks(plan: Plan, elements: Mapping[ir.Value, int]) -> tuple[Block, ...]:
    """All integer computation of a plan, in graph order; each block has at least one weight.

    Args:
        plan: every decision.
        elements: of each activation, in one sample.
    """
    blocks = list(_merge(list(_cut(plan.decisions.nodes)), elements))
    blocks += [Block(name, (reader,)) for reader, name in _find_other_layers(plan).items()]
    return tuple(blocks)


def _merge(pieces: list[list[CalibratedNode]], elements: Mapping[ir.Value, int]) -> Iterable[Block]:
    """Neighbours together until they are large enough to be worth two borders."""
    sizes = [sum(_count_work(node, elements) for node in piece) for piece in pieces]
    enough = sum(sizes) / MOST_BLOCKS
    waiting: list[CalibratedNode] = []
    size = 0.0
    for piece, own in zip(pieces, sizes, strict=True):
        waiting += piece
        size += own
        if size >= enough:
            yield _name_block(waiting)
            waiting, size = [], 0.0
    if waiting:
        yield _name_block(waiting)


def _count_work(node: CalibratedNode, elements: Mapping[ir.Value, int]) -> float:
    """Multiplications of a layer."""
    if node.one.rule.weight_index is None:
        return 0.0
    shape = dimensions(require_constant(node.one.node.inputs[node.one.rule.weight_index]))
    if node.one.behaviour is Behaviour.CONVOLUTION:
        return float(elements.get(node.one.outputs[0], 0) * math.prod(shape[1:]))
    return float(elements.get(node.one.inputs[0], 0) * max(shape))


def _cut(nodes: tuple[CalibratedNode, ...]) -> Iterable[list[CalibratedNode]]:
    readers: dict[ir.Value, int] = {}
    for position, node in enumerate(nodes):
        for value in node.one.inputs:
            readers[value] = position
    layers = [at for at, node in enumerate(nodes) if node.one.rule.weight_index is not None]
    last_layer = max(layers, default=-1)
    current: list[CalibratedNode] = []
    alive: set[ir.Value] = set()
    for position, node in enumerate(nodes):
        current.append(node)
        if node.quantizes_output:
            alive.update(node.one.outputs)
        alive = {value for value in alive if readers.get(value, -1) > position}
        has_weight = any(one.one.rule.weight_index is not None for one in current)
        if has_weight and position < last_layer and len(alive) <= 1:
            yield current
            current = []
    if current:
        yield current


def _name_block(nodes: list[CalibratedNode]) -> Block:
    layers = [one.name for one in nodes if one.one.rule.weight_index is not None]
    name = layers[0] if len(layers) == 1 else f"{layers[0]} to {layers[-1]}"
    return Block(name, tuple(one.one.node for one in nodes))


def _find_other_layers(plan: Plan) -> dict[ir.Node, str]:
    """Layers with a weight of integers that compute on floats, or quantize them when they run."""
    found: dict[ir.Node, str] = {}
    for tensor in plan.changes:
        if tensor.scheme is None or tensor.scheme.type.is_half:
            continue
        for use in tensor.uses:
            if use.use is not None and use.form not in (Form.CALIBRATED, Form.FLOAT):
                found.setdefault(use.use.node, use.node)
    return found


@dataclass(frozen=True)
class Costs:
    """What integers save, in multiplications of convolutions.

    Attributes:
        elements: of each activation of a model, in one sample.
        crossing_multiplications: what an element costs that enters or leaves integers, or goes
            from 8 to 16 bits or back.
        wide_gain: share of what integers save that 16 bits save.
    """

    elements: Mapping[ir.Value, int]
    crossing_multiplications: float
    wide_gain: float

    def count_mixed(self, plan: Plan, kept_float: Iterable[Block], wide: Iterable[Block]) -> float:
        """How much a plan saves, with some of its blocks in float and others in 16 bits."""
        in_float = {node for block in kept_float for node in block.nodes}
        saved = self.count_saved(plan, in_float)
        in_16_bits: set[ir.Node] = set()
        for block in wide:
            inside = self.describe(plan, block)[0]
            saved -= inside - self.count_wide(inside)
            in_16_bits.update(block.nodes)
        nodes = [one for one in plan.decisions.nodes if one.one.node not in in_float]
        return saved - self.crossing_multiplications * self._count_rounded(nodes, in_16_bits)

    def count_wide(self, saved: float) -> float:
        """What 16 bits save of what integers save; what loses there loses no less in them."""
        return min(saved, self.wide_gain * saved)

    def _count_rounded(self, nodes: Iterable[CalibratedNode], wide: Collection[ir.Node]) -> int:
        """Elements that one node gives and another reads in another width."""
        nodes = tuple(nodes)
        made = {
            value: one.one.node in wide
            for one in nodes
            if one.quantizes_output
            for value in one.one.outputs
        }
        rounded = {
            value
            for one in nodes
            for value in one.one.inputs
            if value in made and made[value] != (one.one.node in wide)
        }
        return sum(self.elements.get(value, 0) for value in rounded)

    def count_saved(self, plan: Plan, kept_float: Collection[ir.Node] = ()) -> float:
        """How much a plan saves, with some of its nodes in float."""
        nodes = tuple(one for one in plan.decisions.nodes if one.one.node not in kept_float)
        saved = 0.0
        for region in find_joined_regions(nodes):
            gained, crossing = count_multiplications(region, self.elements)
            saved += gained - self.crossing_multiplications * crossing
        for tensor in plan.changes:
            saved += self._count_weights(tensor, kept_float)
        return saved

    def describe(self, plan: Plan, block: Block) -> tuple[float, float, float]:
        """What a block saves inside, and what its borders cost before and behind it."""
        own = set(block.nodes)
        nodes = [one for one in plan.decisions.nodes if one.one.node in own]
        made = {value for one in nodes if one.quantizes_output for value in one.one.outputs}
        entering = {value for one in nodes for value in one.one.inputs if value not in made}
        leaving = {value for value in made if any(reader not in own for reader, _ in value.uses())}
        others = {node for one in plan.decisions.nodes if (node := one.one.node) not in own}
        others |= {
            use.use.node
            for tensor in plan.changes
            for use in tensor.uses
            if use.use is not None and use.use.node not in own
        }
        before, behind = (
            self.crossing_multiplications * sum(self.elements.get(value, 0) for value in values)
            for values in (entering, leaving)
        )
        return self.count_saved(plan, others) + before + behind, before, behind

    def _count_weights(self, tensor: TensorPlan, kept_float: Collection[ir.Node]) -> float:
        """What its integers save to read, and in products to multiply."""
        if tensor.scheme is None or tensor.scheme.type.is_half:
            return 0.0
        count = 0.0
        for use in tensor.uses:
            if use.use is None or use.use.node in kept_float:
                continue
            count += math.prod(tensor.shape)
            node = use.use.node
            if use.form.is_integer and node.op_type != "Conv" and node.inputs[0] is not None:
                rows = self.elements.get(node.inputs[0], 0)
                count += rows * math.prod(tensor.shape[axis] for axis in tensor.channel_axes)
        return count


def count_elements(recipe: Recipe, feeds: Feeds, path: Path) -> dict[ir.Value, int]:
    """How many elements each activation of a plan has in one sample.

    Args:
        recipe: its float model is run.
        feeds: of the sample.
        path: where to write a model for a while.

    Raises:
        ExecutionError: the model cannot be run.
    """
    plan, graph = recipe.plan, recipe.model.graph
    wanted = [member for one in plan.decisions.activations for member in one.members]
    wanted += [
        use.use.node.inputs[0]
        for tensor in plan.changes
        for use in tensor.uses
        if use.use is not None and use.use.node.inputs and use.use.node.inputs[0] is not None
    ]
    values = [
        value
        for value in dict.fromkeys(wanted)
        if value.graph is graph and value.const_value is None
    ]
    if not values:
        return {}
    copy = copy_model(recipe.model)
    names = Names(copy.model)
    copy.model.graph.outputs.clear()
    for value in values:
        node = ir.node("Size", [copy.values[value]])
        size = node.outputs[0]
        size.name = names.new_value("onnxq_size")
        size.type, size.shape = ir.TensorType(ir.DataType.INT64), ir.Shape([])
        copy.model.graph.append(node)
        copy.model.graph.outputs.append(size)
    ir.save(copy.model, path, external_data=f"{path.name}.data", max_workers=1)
    sizes = Session(path, lean=True).run(feeds)
    return {value: int(np.asarray(size)) for value, size in zip(values, sizes, strict=True)}
