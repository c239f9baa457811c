"""Deciding, without touching the graph: model + target + options -> Plan."""

from onnxq.plan.dynamic import plan_dynamic
from onnxq.plan.options import DynamicOptions
from onnxq.plan.types import Plan, TensorPlan, UsePlan

__all__ = ["DynamicOptions", "Plan", "TensorPlan", "UsePlan", "plan_dynamic"]
