"""A recipe: everything that decides the numbers of a quantized model.

Techniques take a recipe and give another one. None of them edits the float model, so that any
number of recipes can be written and compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from onnxq.apply import Encodings, apply_plan
from onnxq.calibration import Range, resolve_ranges
from onnxq.graph.constants import add_initializer
from onnxq.graph.copies import ModelCopy, copy_model
from onnxq.graph.names import Names
from onnxq.graph.offload import include_weights
from onnxq.numerics.affine import Array, Parameters
from onnxq.plan import ActivationKey, ActivationPlan, Plan
from onnxq.plan.planner import StaticPlanner
from onnxq.plan.statistics import WeightStatistics
from onnxq.plan.translate import translate_plan


@dataclass(frozen=True)
class TunedWeight:
    """A weight whose integers were chosen with data.

    Attributes:
        tensor: real values that lie on the grid of the scales, so that rounding keeps them.
        statistics: ranges that the scales come from.
    """

    tensor: ir.TensorProtocol
    statistics: WeightStatistics


BiasPlace = tuple[ir.Node, int]
"""A node and the index of the input that its bias is, or will be."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to write.

    Attributes:
        planner: of the float model, simplified, perhaps equalized.
        plan: every decision, about its nodes and values.
        ranges: of each activation that is quantized ahead of time.
        weights: by the constant of the float model.
        biases: one value a channel, by where it is read.
        wide_ranges: of each activation that has 16 bits for accuracy.
    """

    planner: StaticPlanner
    plan: Plan
    ranges: Mapping[ir.Value, Range]
    weights: Mapping[ir.Value, TunedWeight] = field(default_factory=dict)
    biases: Mapping[BiasPlace, Array] = field(default_factory=dict)
    wide_ranges: Mapping[ir.Value, Range] = field(default_factory=dict)

    @property
    def model(self) -> ir.Model:
        """The float model."""
        return self.planner.model

    def find_range(self, activation: ActivationPlan) -> Range:
        """The range of an activation of the plan, in its type."""
        is_wide = activation.scheme != self.planner.options.activations
        return (self.wide_ranges if is_wide else self.ranges)[activation.value]

    @property
    def parameters(self) -> dict[ActivationKey, Parameters]:
        """Scale and zero point of each activation of the plan."""
        found: dict[ActivationKey, Parameters] = {}
        for one in self.plan.decisions.activations:
            found |= resolve_ranges((one,), {one.value: self.find_range(one)})
        return found


def apply_recipe(recipe: Recipe) -> ir.Model:
    """A quantized copy of the model of a recipe, which is left as it is."""
    planner = recipe.planner
    copy = copy_model(recipe.model)
    for value, weight in recipe.weights.items():
        copy.values[value].const_value = weight.tensor
    _write_biases(copy, recipe.biases)
    plan = translate_plan(_with_statistics(recipe), copy)
    encodings = Encodings()
    encodings.fill(
        {(copy.values[value], scheme): one for (value, scheme), one in recipe.parameters.items()}
    )
    apply_plan(
        copy.model,
        plan,
        planner.target,
        encodings,
        operators=planner.options.writes_operators,
    )
    include_weights(copy.model)
    return copy.model


def _with_statistics(recipe: Recipe) -> Plan:
    tensors = tuple(
        replace(one, statistics=recipe.weights[one.constant.value].statistics)
        if one.constant.value in recipe.weights
        else one
        for one in recipe.plan.tensors
    )
    return replace(recipe.plan, tensors=tensors)


def _write_biases(copy: ModelCopy, biases: Mapping[BiasPlace, Array]) -> None:
    names = Names(copy.model)
    for (node, index), elements in biases.items():
        reader = copy.nodes[node]
        old = reader.inputs[index] if index < len(reader.inputs) else None
        wanted = f"{node.name or node.op_type}_bias" if old is None else f"{old.name}_corrected"
        graph = reader.graph
        if not isinstance(graph, ir.Graph):
            raise ValueError(f"node '{node.name}' is in no graph")
        tensor = ir.Tensor(np.ascontiguousarray(elements))
        value = add_initializer(graph, tensor, names.new_value(wanted))
        if index >= len(reader.inputs):
            reader.resize_inputs(index + 1)
        reader.replace_input_with(index, value)
