"""One node that may compute on calibrated integers, seen by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.graph.attributes import has_reference
from onnxq.graph.constants import dimensions, require_constant
from onnxq.rules.calibrated import Behaviour, CalibratedRule, clip_bounds, find_calibrated_rule


@dataclass(frozen=True)
class IntegerNode:
    """A node that computes on calibrated integers.

    Attributes:
        node: in the float graph.
        rule: of its operator.
        inputs: activations that it reads as integers.
        outputs: what it gives, behind an absorbed Relu or Clip.
        absorbed: the Relu or Clip that its output range takes over, or None.
        bounds: the limits of that Relu or Clip.
    """

    node: ir.Node
    rule: CalibratedRule
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]
    absorbed: ir.Node | None = None
    bounds: tuple[float, float] | None = None

    @property
    def behaviour(self) -> Behaviour:
        """What it does with integers."""
        return self.rule.behaviour


def weight_shape(one: IntegerNode) -> tuple[int, ...]:
    """Shape of the constant weight of a layer."""
    return dimensions(require_constant(one.node.inputs[one.rule.weight_index or 0]))


def refuse_alone(one: IntegerNode) -> str | None:
    """Why a node cannot compute on integers whatever its neighbours do, or None."""
    if has_reference(one.node):
        return "an attribute is set by the caller of its function"
    reason = one.rule.check(one.node)
    if reason is not None or one.behaviour is Behaviour.PRODUCT:
        return reason
    if any(value.is_graph_output() for value in one.outputs):
        return "an output of the model stays float"
    moved = one.behaviour is Behaviour.MOVEMENT
    if any(_is_moved_into_body(value, one.node, moved=moved) for value in one.outputs):
        return "moved, it is read in the body of another node, which onnxruntime cannot fuse"
    return None


def _is_moved_into_body(value: ir.Value, producer: ir.Node, *, moved: bool) -> bool:
    """Whether a body reads what movements make of a value.

    onnxruntime 1.32 carries a DequantizeLinear past movements and crashes at such a reader.
    """
    for reader, index in value.uses():
        if reader.graph is not producer.graph:
            if moved:
                return True
            continue
        rule = find_calibrated_rule(reader)
        if index != 0 or rule is None or rule.behaviour is not Behaviour.MOVEMENT:
            continue
        if any(_is_moved_into_body(one, reader, moved=True) for one in reader.outputs):
            return True
    return False


def absorb_activation(
    node: ir.Node, rule: CalibratedRule, excluded: Mapping[ir.Node, str]
) -> IntegerNode:
    """The node, with the Relu or Clip behind it if its range can take that over."""
    inputs = rule.activations(node)
    outputs = tuple(node.outputs)
    plain = IntegerNode(node, rule, inputs, outputs)
    if rule.behaviour is Behaviour.MOVEMENT or len(outputs) != 1:
        return plain
    uses = outputs[0].uses()
    if len(uses) != 1 or outputs[0].is_graph_output():
        return plain
    follower = next(iter(uses))[0]
    bounds = clip_bounds(follower)
    if (
        bounds is None
        or follower in excluded
        or follower.graph is not node.graph
        or follower.outputs[0].is_graph_output()
    ):
        return plain
    return IntegerNode(node, rule, inputs, tuple(follower.outputs), follower, bounds)
