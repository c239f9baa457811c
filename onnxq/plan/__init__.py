"""Deciding, without touching the graph: model + target + options -> Plan."""

from onnxq.plan.dynamic import plan_dynamic, select
from onnxq.plan.options import (
    DynamicOptions,
    StaticOptions,
    parse_activation_type,
    parse_weight_type,
)
from onnxq.plan.selection import Selection, follow_nodes, name_excluded_nodes
from onnxq.plan.static import plan_static
from onnxq.plan.types import (
    ActivationKey,
    ActivationPlan,
    CalibratedNode,
    CalibrationPlan,
    Plan,
    TensorPlan,
    UsePlan,
)

__all__ = [
    "ActivationKey",
    "ActivationPlan",
    "CalibratedNode",
    "CalibrationPlan",
    "DynamicOptions",
    "Plan",
    "Selection",
    "StaticOptions",
    "TensorPlan",
    "UsePlan",
    "follow_nodes",
    "name_excluded_nodes",
    "parse_activation_type",
    "parse_weight_type",
    "plan_dynamic",
    "plan_static",
    "select",
]
