"""What forms and types need of the model file."""

from __future__ import annotations

from onnxq.plan.types import Plan
from onnxq.rules.roles import Form
from onnxq.schemes import WeightType
from onnxq.targets import Target

DYNAMIC_QUANTIZE_LINEAR_OPSET = 11
BFLOAT16_CAST_OPSET = 13
BLOCKED_DEQUANTIZE_OPSET = 21
PER_CHANNEL_DEQUANTIZE_OPSET = 13
WIDE_AND_NARROW_TYPES_OPSET = 21
"""Of QuantizeLinear with 16 bits and DequantizeLinear with 4."""
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
    if plan.decisions.nodes:
        wanted.append(calibration_opset(plan))
    return max(wanted, default=0)


def calibration_opset(plan: Plan) -> int:
    """Oldest ai.onnx operator set that has the types of calibrated weights and activations."""
    unusual = any(
        tensor.best_form is Form.CALIBRATED
        and tensor.scheme is not None
        and tensor.scheme.type.bits != 8
        for tensor in plan.changes
    )
    if unusual or any(one.scheme.type.bits != 8 for one in plan.decisions.activations):
        return WIDE_AND_NARROW_TYPES_OPSET
    return PER_CHANNEL_DEQUANTIZE_OPSET


def required_ir_version(plan: Plan, target: Target) -> int:
    """Oldest IR version that has every tensor type of the plan."""
    if required_opset(plan, target) >= WIDE_AND_NARROW_TYPES_OPSET:
        return INT4_IR_VERSION
    blocked = any(use.form is Form.BLOCKED_MATMUL for one in plan.changes for use in one.uses)
    return INT4_IR_VERSION if blocked and not target.contrib_operators else 0
