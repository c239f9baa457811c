"""What forms and types need of the model file."""

from __future__ import annotations

from onnxq.plan.types import Plan
from onnxq.rules.roles import Form
from onnxq.schemes import WeightType
from onnxq.targets import Target

DYNAMIC_QUANTIZE_LINEAR_OPSET = 11
BFLOAT16_CAST_OPSET = 13
BLOCKED_DEQUANTIZE_OPSET = 21
INT4_IR_VERSION = 10


def form_opset(form: Form, target: Target) -> int:
    """Oldest ai.onnx operator set that has the operators of a form."""
    if form in (Form.INTEGER_MATMUL, Form.INTEGER_ATTENTION):
        return DYNAMIC_QUANTIZE_LINEAR_OPSET
    if form is Form.BLOCKED_MATMUL and not target.contrib_operators:
        return BLOCKED_DEQUANTIZE_OPSET
    return 0


def required_opset(plan: Plan, target: Target) -> int:
    """Oldest ai.onnx operator set that has every operator of the plan."""
    wanted = [form_opset(use.form, target) for tensor in plan.changes for use in tensor.uses]
    wanted += [
        BFLOAT16_CAST_OPSET
        for tensor in plan.changes
        if tensor.scheme is not None and tensor.scheme.type is WeightType.BF16
    ]
    return max(wanted, default=0)


def required_ir_version(plan: Plan, target: Target) -> int:
    """Oldest IR version that has every tensor type of the plan."""
    blocked = any(use.form is Form.BLOCKED_MATMUL for one in plan.changes for use in one.uses)
    return INT4_IR_VERSION if blocked and not target.contrib_operators else 0
