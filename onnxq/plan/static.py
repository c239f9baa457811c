"""Planning with calibration: which activations become integers, and what is left to other forms."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import replace

import onnx_ir as ir

from onnxq.graph.constants import constant_tensor
from onnxq.graph.scopes import iterate_bodies, iterate_scopes
from onnxq.plan.context import Context
from onnxq.plan.dynamic import plan_weights, select
from onnxq.plan.integer_nodes import IntegerNode
from onnxq.plan.options import StaticOptions
from onnxq.plan.regions import Regions, find_regions
from onnxq.plan.selection import Selection
from onnxq.plan.types import (
    ActivationKey,
    ActivationPlan,
    CalibratedNode,
    CalibrationPlan,
    Plan,
    SkippedNode,
)
from onnxq.rules.calibrated import Behaviour, CalibratedRule, find_calibrated_rule
from onnxq.rules.roles import Form
from onnxq.schemes import ActivationScheme
from onnxq.targets import Target

_IN_BODY = "in the body of a Loop or Scan, whose activations cannot be observed"
_IN_FUNCTION = "in a model-local function, whose activations cannot be observed"


def plan_static(
    model: ir.Model,
    target: Target,
    options: StaticOptions,
    selection: Selection | None = None,
    *,
    refused: Mapping[ir.Node, str] | None = None,
    kept_float: Mapping[ir.Node, str] | None = None,
    wide: frozenset[ir.Node] = frozenset(),
    judged_on_samples: frozenset[ir.Node] = frozenset(),
) -> Plan:
    """Decide for every node, every activation and every constant float tensor.

    Args:
        model: simplified.
        target: to plan for.
        options: what the user asks.
        selection: made before the model was simplified; None to make it from ``model``.
        refused: nodes that must stay float for reasons found in the data.
        kept_float: nodes that stay float, weights included, for accuracy.
        wide: nodes that compute on integers of 16 bits, for accuracy.
        judged_on_samples: nodes whose weights stay integers even where they look spoiled.

    Raises:
        SelectorError: a selector in the options matches no node.
        UsageError: the target has no kernels for the types asked for.
    """
    options.check_target(target)
    if selection is None:
        selection = select(model, options.uncalibrated)
    context = Context(
        target,
        options.uncalibrated,
        selection,
        can_raise_opset=not model.functions,
        calibrated_weights=options.weight_scheme(target),
        kept_float=kept_float or {},
        wide=wide,
        judged_on_samples=judged_on_samples,
    )
    excluded = {**selection.excluded, **(refused or {}), **context.kept_float}
    while True:
        regions = _find_regions(model, target, options, excluded)
        calibrated = frozenset(
            node for node, one in regions.nodes.items() if one.rule.weight_index is not None
        )
        # What its neighbours leave in float has no weight of 8 bits either.
        narrowed = {node: why for node, why in regions.refused.items() if node in wide}
        kept = {**context.kept_float, **narrowed}
        decided = replace(context, calibrated=calibrated, kept_float=kept)
        plan = plan_weights(model, decided, mode="static")
        unusable = _find_unusable_weights(plan, calibrated)
        if not unusable:
            break
        excluded.update(unusable)
    return replace(plan, calibration=_describe(model, regions, context, options))


def find_observable_graphs(model: ir.Model) -> Iterator[ir.Graph]:
    """The main graph and the bodies of If nodes in it: what else can be seen from outside."""
    waiting = [model.graph]
    while waiting:
        graph = waiting.pop(0)
        yield graph
        for node in graph:
            if node.op_type == "If" and not node.domain:
                waiting.extend(body for _, body in iterate_bodies(node))


def _find_regions(
    model: ir.Model, target: Target, options: StaticOptions, excluded: Mapping[ir.Node, str]
) -> Regions:
    wanted = options.dynamic_matmul
    return find_regions(
        find_observable_graphs(model),
        target=target,
        refused=excluded,
        dynamic_matmul=target.dynamic_matmul if wanted is None else wanted,
    )


def _find_unusable_weights(plan: Plan, calibrated: frozenset[ir.Node]) -> dict[ir.Node, str]:
    """Layers whose weight cannot be stored as it would have to be, with the reason."""
    planned = {
        use.use.node
        for tensor in plan.changes
        for use in tensor.uses
        if use.form is Form.CALIBRATED and use.use is not None
    }
    reasons = {
        use.use.node: tensor.explanation or "its weight has another form for another reader"
        for tensor in plan.tensors
        for use in tensor.uses
        if use.use is not None and use.use.input_index == 1
    }
    return {
        node: reasons.get(node, "its weight is no constant of this model")
        for node in calibrated - planned
    }


def _describe(
    model: ir.Model, regions: Regions, context: Context, options: StaticOptions
) -> CalibrationPlan:
    paths = _name_values(model)
    nodes = tuple(
        CalibratedNode(
            name=context.label(node),
            operator=node.op_type,
            one=one,
            scheme=options.wide_activations if node in context.wide else options.activations,
            quantizes_output=regions.quantizes_output(one),
        )
        for node, one in regions.nodes.items()
    )
    return CalibrationPlan(
        nodes, _describe_activations(nodes, paths), tuple(_find_skipped(model, regions, context))
    )


def _describe_activations(
    nodes: tuple[CalibratedNode, ...], paths: Mapping[ir.Value, str]
) -> tuple[ActivationPlan, ...]:
    bounds = {
        value: node.one.bounds
        for node in nodes
        if node.quantizes_output
        for value in node.one.outputs
    }
    schemes: dict[ir.Value, dict[ActivationScheme, None]] = {}
    for node in nodes:
        for value in (*node.one.inputs, *(node.one.outputs if node.quantizes_output else ())):
            schemes.setdefault(value, {})[node.scheme] = None
    members: dict[ActivationKey, list[ir.Value]] = {}
    for value, root in _find_roots(nodes).items():
        for scheme in schemes[value]:
            members.setdefault((root, scheme), []).append(value)
    return tuple(
        ActivationPlan(
            name=paths.get(root, root.name or "?"),
            scheme=scheme,
            value=root,
            members=tuple(values),
            bounds=bounds.get(root),
            member_names=tuple(paths.get(value, value.name or "?") for value in values),
        )
        for (root, scheme), values in members.items()
    )


def _find_roots(nodes: tuple[CalibratedNode, ...]) -> dict[ir.Value, ir.Value]:
    """For every quantized tensor the one whose range it has."""
    producers = {
        value: node.one for node in nodes if node.quantizes_output for value in node.one.outputs
    }
    roots: dict[ir.Value, ir.Value] = {}

    def find(value: ir.Value) -> ir.Value:
        path = []
        while value not in roots:
            one: IntegerNode | None = producers.get(value)
            if one is None or one.behaviour is not Behaviour.MOVEMENT:
                roots[value] = value
                break
            path.append(value)
            value = one.inputs[0]
        for passed in path:
            roots[passed] = roots[value]
        return roots[value]

    for node in nodes:
        for value in (*node.one.inputs, *(node.one.outputs if node.quantizes_output else ())):
            find(value)
    return roots


def _find_skipped(model: ir.Model, regions: Regions, context: Context) -> Iterator[SkippedNode]:
    observable = set(find_observable_graphs(model))
    made = {value for one in regions.nodes.values() for value in one.outputs}
    for scope in iterate_scopes(model):
        for node in scope.graph:
            rule = find_calibrated_rule(node)
            if rule is None or node in regions.nodes or not _is_telling(node, rule, made):
                continue
            reason = regions.refused.get(node)
            if reason is None and scope.graph not in observable:
                reason = _IN_BODY if scope.function is None else _IN_FUNCTION
            if reason is not None:
                yield SkippedNode(context.label(node), node.op_type, reason)


def _is_telling(node: ir.Node, rule: CalibratedRule, made: Container[ir.Value | None]) -> bool:
    """Whether a user wants to know why a node stays float: a layer, or next to integers."""
    if rule.weight_index is not None:
        return constant_tensor(node.inputs[rule.weight_index]) is not None
    return rule.behaviour is Behaviour.ELEMENTWISE and any(value in made for value in node.inputs)


def _name_values(model: ir.Model) -> dict[ir.Value, str]:
    """Every tensor with its scope."""
    names: dict[ir.Value, str] = {}
    for scope in iterate_scopes(model):
        for value in scope.graph.inputs:
            names[value] = scope.path_of(value.name or "?")
        for node in scope.graph:
            for value in node.outputs:
                names[value] = scope.path_of(value.name or "?")
    return names
