"""The plan of a model, for a copy of that model."""

from __future__ import annotations

from dataclasses import replace

from onnxq.graph.constants import Constant, Use, constant_tensor
from onnxq.graph.copies import ModelCopy
from onnxq.plan.integer_nodes import IntegerNode
from onnxq.plan.types import ActivationPlan, CalibratedNode, Plan, TensorPlan, UsePlan


def translate_plan(plan: Plan, copy: ModelCopy) -> Plan:
    """Every decision, about the nodes and values of a copy.

    Args:
        plan: made for the original.
        copy: of it. A constant whose tensor was replaced there keeps its decision.
    """
    calibration = plan.calibration
    if calibration is not None:
        calibration = replace(
            calibration,
            nodes=tuple(_translate_calibrated(one, copy) for one in calibration.nodes),
            activations=tuple(_translate_activation(one, copy) for one in calibration.activations),
        )
    tensors = tuple(_translate_tensor(one, copy) for one in plan.tensors)
    return replace(plan, tensors=tensors, calibration=calibration)


def _translate_tensor(tensor: TensorPlan, copy: ModelCopy) -> TensorPlan:
    constant = tensor.constant
    value = copy.values[constant.value]
    return replace(
        tensor,
        constant=Constant(
            value,
            constant_tensor(value) or constant.tensor,
            copy.scopes[constant.scope.graph],
            constant.overridable,
        ),
        uses=tuple(_translate_use(use, copy) for use in tensor.uses),
    )


def _translate_use(use: UsePlan, copy: ModelCopy) -> UsePlan:
    if use.use is None:
        return use
    one = use.use
    return replace(use, use=Use(copy.nodes[one.node], one.input_index, one.transposed))


def _translate_calibrated(node: CalibratedNode, copy: ModelCopy) -> CalibratedNode:
    one = node.one
    return replace(
        node,
        one=IntegerNode(
            copy.nodes[one.node],
            one.rule,
            tuple(copy.values[value] for value in one.inputs),
            tuple(copy.values[value] for value in one.outputs),
            None if one.absorbed is None else copy.nodes[one.absorbed],
            one.bounds,
        ),
    )


def _translate_activation(activation: ActivationPlan, copy: ModelCopy) -> ActivationPlan:
    return replace(
        activation,
        value=copy.values[activation.value],
        members=tuple(copy.values[value] for value in activation.members),
    )
