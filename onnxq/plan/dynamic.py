"""Planning without data: which weights become integers, and how their readers compute."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from onnxq.graph.constants import FLOAT_TYPES, Constant, iterate_constants
from onnxq.graph.scopes import iterate_scopes
from onnxq.plan.context import Context
from onnxq.plan.half import plan_half_model_tensor, plan_half_tensor
from onnxq.plan.integer import plan_integer_tensor
from onnxq.plan.options import DynamicOptions
from onnxq.plan.selection import Selection, select_nodes
from onnxq.plan.small_kernels import HALF_BUDGET, INTEGER_BUDGET, fit_budget
from onnxq.plan.types import Plan, SkippedNode, TensorPlan
from onnxq.rules.roles import WEIGHT_ROLES, Form
from onnxq.schemes import WeightType
from onnxq.targets import Target

SMALLEST_TENSOR_ELEMENTS = 64
"""A smaller tensor would grow: a scale and two nodes take about 160 bytes in the file."""

_WEIGHT_OPERATORS = {role.operator: role.domain for role in WEIGHT_ROLES if role.forms}


def plan_dynamic(
    model: ir.Model,
    target: Target,
    options: DynamicOptions,
    selection: Selection | None = None,
) -> Plan:
    """Decide for every constant float tensor of a model.

    Args:
        model: simplified, or not.
        target: to plan for.
        options: what the user asks.
        selection: made before the model was simplified; None to make it from ``model``.

    Raises:
        SelectorError: a selector in the options matches no node.
    """
    if selection is None:
        selection = select(model, options)
    context = Context(target, options, selection, can_raise_opset=not model.functions)
    return plan_weights(model, context, mode="dynamic")


def plan_weights(model: ir.Model, context: Context, *, mode: str) -> Plan:
    """Decide for every constant float tensor, given what is decided about activations."""
    used = [
        constant
        for constant in iterate_constants(model)
        if constant.tensor.dtype in FLOAT_TYPES
        and constant.value.uses()
        and not _is_calibrated_bias(constant, context)
    ]
    worthwhile = [one for one in used if _is_worthwhile(one, context)]
    context = replace(context, keep_small_kernels=_keeps_small_kernels(worthwhile, context.options))
    tensors = [_plan_tensor(constant, context) for constant in worthwhile]
    while refused := _find_incomplete_nodes(tensors):
        context.refused.update(refused)
        tensors = [_plan_tensor(constant, context) for constant in worthwhile]
    return Plan(
        mode=mode,
        target=context.target.name,
        tensors=tuple(tensors),
        skipped=_find_nodes_without_weight(model, context, used),
        ignored_tensors=len(used) - len(worthwhile),
        ignored_bytes=sum(one.tensor.nbytes for one in used)
        - sum(one.tensor.nbytes for one in worthwhile),
    )


def select(model: ir.Model, options: DynamicOptions) -> Selection:
    """The selection that the options ask for.

    Raises:
        SelectorError: a selector matches no node.
    """
    return select_nodes(
        model, include=options.include, exclude=options.exclude, op_types=options.op_types
    )


def _is_worthwhile(constant: Constant, context: Context) -> bool:
    return constant.tensor.size >= SMALLEST_TENSOR_ELEMENTS or any(
        use.node in context.calibrated and use.input_index == 1 for use in constant.uses
    )


def _is_calibrated_bias(constant: Constant, context: Context) -> bool:
    """Whether a constant is only the bias of calibrated layers, whose sums decide its integers."""
    return all(use.node in context.calibrated and use.input_index == 2 for use in constant.uses)


def _keeps_small_kernels(constants: list[Constant], options: DynamicOptions) -> bool:
    if options.weights.is_half:
        return fit_budget(constants, extra_bytes_per_element=2, budget=HALF_BUDGET)
    return fit_budget(constants, extra_bytes_per_element=1, budget=INTEGER_BUDGET)


def _plan_tensor(constant: Constant, context: Context) -> TensorPlan:
    reason = _reason_to_leave(constant, context)
    if reason is not None:
        return context.leave(constant, reason)
    kept = [use.node for use in constant.uses if use.node in context.kept_float]
    if kept:
        return plan_half_tensor(constant, context, WeightType.FP16, context.kept_float[kept[0]])
    calibrated = any(use.node in context.calibrated for use in constant.uses)
    if context.options.weights.is_half and not calibrated:
        return plan_half_model_tensor(constant, context)
    return plan_integer_tensor(constant, context)


def _reason_to_leave(constant: Constant, context: Context) -> str | None:
    if constant.overridable:
        return "is a graph input too: a caller may feed another value"
    if constant.value.is_graph_output():
        return "is an output of the model"
    for use in constant.uses:
        reason = context.selection.excluded.get(use.node)
        if reason is not None:
            shared = "" if len(constant.uses) == 1 else f" (read by {context.label(use.node)})"
            return reason + shared
    return None


def _find_incomplete_nodes(tensors: list[TensorPlan]) -> dict[ir.Node, str]:
    """LSTMs for which only some of the weights became integers: the kernel needs all of them."""
    forms: dict[ir.Node, set[Form]] = {}
    for tensor in tensors:
        for plan in tensor.uses:
            if plan.use is not None and plan.operator == "LSTM" and plan.use.input_index in (1, 2):
                forms.setdefault(plan.use.node, set()).add(plan.form)
    return {
        node: "another weight of the same node is not int8"
        for node, found in forms.items()
        if Form.INTEGER_LSTM in found and len(found) > 1
    }


def _find_nodes_without_weight(
    model: ir.Model, context: Context, constants: list[Constant]
) -> tuple[SkippedNode, ...]:
    skipped = []
    readers = {use.node for constant in constants for use in constant.uses}
    for scope in iterate_scopes(model):
        for node in scope.graph:
            if _WEIGHT_OPERATORS.get(node.op_type) != node.domain or node.op_type == "Gather":
                continue
            if node not in readers:
                skipped.append(
                    SkippedNode(context.label(node), node.op_type, "no constant operand")
                )
    return tuple(skipped)
