"""Calibrated integers, written as pairs of QuantizeLinear and DequantizeLinear.

The runtime fuses a node between DequantizeLinear and QuantizeLinear into an integer kernel. Where
each pair stands decides whether it does:

- An integer node is followed by its pair right away; every reader reads behind it.
- A float tensor is quantized for its integer readers; its float readers read the float tensor.
- Readers in another type than the node before them have a pair of their own behind its pair.
- Scales and zero points have rank 0; weights have one scale a channel; a bias is int32 with the
  scale of the activation times that of the weight.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from onnxq.apply.encodings import Encodings
from onnxq.apply.float_layers import find_layers_at_risk, separate_bias
from onnxq.apply.numbers import Numbers
from onnxq.apply.rewriter import Rewriter
from onnxq.apply.weights import parameters_of
from onnxq.graph.constants import constant_tensor
from onnxq.plan import ActivationKey, ActivationPlan, CalibratedNode, Plan, TensorPlan
from onnxq.plan.statistics import hold_bias
from onnxq.rules.calibrated import input_channels
from onnxq.rules.roles import Form
from onnxq.schemes import ActivationScheme, WeightType


@dataclass(frozen=True)
class Pair:
    """An activation as integers, and what they stand for."""

    integers: ir.Value
    dequantized: ir.Value
    activation: ActivationPlan


def write_pairs(rewriter: Rewriter, plan: Plan, encodings: Encodings) -> None:
    """Write all pairs of a plan.

    Post: every integer node reads dequantized integers, and is followed by its pair where the plan
    says so; float layers that read such integers are kept from becoming integer layers.
    """
    writer = _PairWriter(rewriter, plan, encodings)
    for node in plan.decisions.nodes:
        writer.write_node(node)
    writer.protect_float_layers()


class _PairWriter:
    def __init__(self, rewriter: Rewriter, plan: Plan, encodings: Encodings) -> None:
        self._rewriter = rewriter
        self._numbers = Numbers(rewriter, encodings)
        self._activations = plan.decisions.owners
        self._uses = {
            use.use.node: (use.form, tensor)
            for tensor in plan.changes
            for use in tensor.uses
            if use.use is not None and use.use.input_index == 1
        }
        for node in plan.decisions.nodes:
            self._make_room_for_bias(node, encodings)
        self._pairs: dict[tuple[ActivationKey, ir.Graph], Pair] = {}
        self._originals: dict[ir.Value, ir.Value] = {}
        self._weights: dict[tuple[ir.Value, ir.Graph], ir.Value] = {}

    def _make_room_for_bias(self, node: CalibratedNode, encodings: Encodings) -> None:
        layer = node.one.node
        if layer not in self._uses or node.operator == "MatMul" or len(layer.inputs) < 3:
            return
        bias = constant_tensor(layer.inputs[2])
        weight = self._uses[layer][1]
        if bias is None or weight.statistics is None or weight.scheme is None:
            return
        scale = float(encodings[self._activations[node.one.inputs[0], node.scheme]].scale)
        wider = hold_bias(weight.statistics, bias.numpy(), scale, weight.scheme)
        if wider is weight.statistics:
            return
        replaced = replace(weight, statistics=wider)
        for other, (other_form, plan) in list(self._uses.items()):
            if plan is weight:
                self._uses[other] = (other_form, replaced)

    def write_node(self, node: CalibratedNode) -> None:
        """Pairs before a node where there are none yet, and behind it."""
        self._write_inputs(node)
        if node.one.rule.weight_index is not None:
            self._write_weight(node)
        if node.quantizes_output:
            for value in node.one.outputs:
                self._write_output(value, node.scheme)
        elif node.operator == "MatMul" and not self._rewriter.target.contrib_operators:
            separate_bias(self._rewriter, node.one.node)

    def protect_float_layers(self) -> None:
        """Give float layers that the runtime would quantize on its own one scale a channel.

        It leaves layers alone whose activation has more than one scale.
        """
        for pair in self._pairs.values():
            for layer in find_layers_at_risk(pair.dequantized):
                form = self._uses.get(layer, (Form.FLOAT, None))[0]
                channels = input_channels(layer)
                if form in (Form.STORAGE, Form.FLOAT) and channels is not None:
                    self._dequantize_by_channel(pair, layer, channels)

    def _write_inputs(self, node: CalibratedNode) -> None:
        reader = node.one.node
        graph = self._rewriter.scope_of(reader).graph
        for index, value in enumerate(reader.inputs):
            if value is None:
                continue
            original = self._originals.get(value, value)
            if original not in node.one.inputs:
                continue
            key = original, node.scheme
            if (key, graph) not in self._pairs:
                activation = self._activations[key]
                self._pairs[key, graph] = self._add_pair(value, activation, reader, None)
            reader.replace_input_with(index, self._pairs[key, graph].dequantized)

    def _write_output(self, value: ir.Value, scheme: ActivationScheme) -> None:
        producer = value.producer()
        if producer is None:
            raise ValueError(f"'{value.name}' has no producer")
        readers = list(value.uses())
        pair = self._add_pair(value, self._activations[value, scheme], None, producer)
        for reader, index in readers:
            reader.replace_input_with(index, pair.dequantized)
        self._pairs[(value, scheme), self._rewriter.scope_of(producer).graph] = pair
        self._originals[pair.dequantized] = value

    def _add_pair(
        self,
        value: ir.Value,
        activation: ActivationPlan,
        before: ir.Node | None,
        after: ir.Node | None,
    ) -> Pair:
        place = before or after
        if place is None:
            raise ValueError("a pair has to stand somewhere")
        scope = self._rewriter.scope_of(place)
        made = [value]
        for operator, suffix, constants in self._numbers.steps_of_pair(scope, activation):
            inputs = (made[-1], *constants)
            name = f"{value.name}_{suffix}"
            if before is not None:
                (output,) = self._rewriter.add_node(before, operator, inputs, name=name)
            else:
                (output,) = self._rewriter.add_node_after(place, operator, inputs, name=name)
                place = output.producer() or place
            leave_unnamed(output)
            made.append(output)
        return Pair(made[-2], made[-1], activation)

    def _write_weight(self, node: CalibratedNode) -> None:
        layer, activation = node.one.node, self._activations[node.one.inputs[0], node.scheme]
        plan = self._uses[layer][1]
        bias = layer.inputs[2] if node.operator != "MatMul" and len(layer.inputs) > 2 else None
        layer.replace_input_with(1, self._dequantize_weight(layer, plan))
        if bias is None:
            return
        scope = self._rewriter.scope_of(layer)
        integers, scale = self._numbers.of_bias(scope, bias, activation, plan)
        (value,) = self._rewriter.add_node(
            layer,
            "DequantizeLinear",
            (integers, scale),
            name=f"{bias.name}_dq",
            attributes={"axis": 0} if plan.scale_axes else {},
        )
        leave_unnamed(value)
        layer.replace_input_with(2, value)

    def _dequantize_weight(self, layer: ir.Node, plan: TensorPlan) -> ir.Value:
        """The weight as DequantizeLinear of its integers, in the body of its reader."""
        graph = self._rewriter.scope_of(layer).graph
        key = (plan.constant.value, graph)
        if key in self._weights:
            return self._weights[key]
        store, axes = self._rewriter.weights, plan.scale_axes
        shape = tuple(plan.shape[axis] for axis in axes)
        elements = store.elements(plan, tuple(range(len(plan.shape))))
        # Without a zero point, also one of 0, onnxruntime does not find the integers of a Gemm.
        if self._is_widened(plan):
            elements = self._widen(layer, plan, elements)
            zero_point = store.no_zero_point(plan, shape, ir.DataType.INT8)
        else:
            zero_point = store.explicit_zero_point(plan, shape)
        numbers = (store.scale(plan, shape), zero_point)
        (self._weights[key],) = self._rewriter.add_node(
            layer,
            "DequantizeLinear",
            (elements, *numbers),
            name=f"{plan.constant.value.name}_dq",
            attributes={"axis": axes[0]} if axes else {},
        )
        leave_unnamed(self._weights[key])
        return self._weights[key]

    def _widen(self, layer: ir.Node, plan: TensorPlan, elements: ir.Value) -> ir.Value:
        """4-bit integers less their zero points in int8, which the runtime computes at load.

        With zero points in the DequantizeLinear, one a channel, its convolutions would be slower
        than float (docs/decisions/0043).
        """
        name, dtype = f"{plan.constant.value.name}_int8", ir.DataType.INT8
        widened = self._rewriter.cast(layer, elements, dtype, name=name)
        offset = self._rewriter.weights.offset(plan, parameters_of(plan).scale.shape, dtype)
        if offset is None:
            return widened
        name = f"{plan.constant.value.name}_shifted"
        (shifted,) = self._rewriter.add_node(layer, "Sub", (widened, offset), name=name)
        leave_unnamed(shifted)
        return shifted

    def _is_widened(self, plan: TensorPlan) -> bool:
        """Whether 4-bit integers become int8 where the runtime does that once, at load."""
        four_bit = plan.scheme is not None and plan.scheme.type is WeightType.INT4
        return four_bit and self._rewriter.target.folds_casts

    def _dequantize_by_channel(self, pair: Pair, layer: ir.Node, channels: tuple[int, int]) -> None:
        count, axis = channels
        scope = self._rewriter.scope_of(layer)
        numbers = self._numbers.of_activation(scope, pair.activation, channels=count)
        (value,) = self._rewriter.add_node(
            layer,
            "DequantizeLinear",
            (pair.integers, *numbers),
            name=f"{layer.name or layer.op_type}_input_dq",
            attributes={"axis": axis},
        )
        layer.replace_input_with(0, value)


def leave_unnamed(value: ir.Value) -> None:
    """Take the name of the node that makes a value, which says nothing that the value does not.

    There are four such nodes a layer; with names they would be a tenth of the file of a small CNN.
    """
    producer = value.producer()
    if producer is not None:
        producer.name = ""
