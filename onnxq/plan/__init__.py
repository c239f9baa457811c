"""Deciding, without touching the graph: model + target + options -> Plan."""

from onnxq.plan.dynamic import plan_dynamic, select
from onnxq.plan.options import DynamicOptions, parse_weight_type
from onnxq.plan.selection import Selection, follow_nodes, name_excluded_nodes
from onnxq.plan.types import Plan, TensorPlan, UsePlan

__all__ = [
    "DynamicOptions",
    "Plan",
    "Selection",
    "TensorPlan",
    "UsePlan",
    "follow_nodes",
    "name_excluded_nodes",
    "parse_weight_type",
    "plan_dynamic",
    "select",
]
