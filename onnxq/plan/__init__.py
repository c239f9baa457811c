"""Deciding, without touching the graph: model + target + options -> Plan."""

from onnxq.plan.dynamic import plan_dynamic
from onnxq.plan.options import DynamicOptions, parse_weight_type
from onnxq.plan.types import Plan, TensorPlan, UsePlan

__all__ = ["DynamicOptions", "Plan", "TensorPlan", "UsePlan", "parse_weight_type", "plan_dynamic"]
