"""Storing a tensor as 16-bit floats."""

from __future__ import annotations

from onnxq.graph.attributes import has_reference
from onnxq.graph.constants import Constant, release
from onnxq.numerics.half import reason_half_does_not_fit
from onnxq.plan.context import Context, describe_tensor
from onnxq.plan.requirements import BFLOAT16_CAST_OPSET
from onnxq.plan.small_kernels import is_small_kernel
from onnxq.plan.statistics import read_real
from onnxq.plan.types import TensorPlan, UsePlan
from onnxq.rules.forms import refuse_lookup
from onnxq.rules.roles import Form, find_role
from onnxq.schemes import Scheme, WeightType

HALF_OVERHEAD_BYTES = 100
"""A Cast node with its names, in the file."""

SMALLEST_OPERAND_ELEMENTS = 4096
"""Constants that are no weights (tables, masks, biases) keep their precision below this size."""


def plan_half_model_tensor(constant: Constant, context: Context) -> TensorPlan:
    """Decide about a tensor of a model whose weights shall all become 16-bit floats."""
    has_role = any(find_role(use.node, use.input_index) is not None for use in constant.uses)
    if not has_role and constant.tensor.size < SMALLEST_OPERAND_ELEMENTS:
        return context.leave(constant, "no weight of a layer (bias, table or factor)")
    if context.keep_small_kernels and is_small_kernel(constant):
        return context.leave(constant, "a small kernel, which 16 bits would hurt and hardly shrink")
    return plan_half_tensor(constant, context, context.options.weights)


def plan_half_tensor(
    constant: Constant, context: Context, weight_type: WeightType, reason: str = ""
) -> TensorPlan:
    """Store a tensor as ``weight_type``, or leave it with the reason why not.

    Args:
        constant: the tensor.
        context: of this planning run.
        weight_type: fp16 or bf16.
        reason: why it is not stored as integers, where that was asked for.
    """
    tensor = constant.tensor
    obstacle: str | None
    if tensor.dtype.itemsize <= 2:
        obstacle = f"has 16 bits already ({tensor.dtype.name.lower()})"
    elif weight_type is WeightType.BF16 and not context.has_opset(constant, BFLOAT16_CAST_OPSET):
        obstacle = context.explain_opset(BFLOAT16_CAST_OPSET)
    elif tensor.size * (tensor.dtype.itemsize - 2) <= HALF_OVERHEAD_BYTES:
        obstacle = "too small to shrink"
    elif tensor.nbytes > context.target.fold_limit_bytes and not _is_lookup_only(constant, context):
        obstacle = "too large for the runtime to widen once, at load"
    else:
        obstacle = reason_half_does_not_fit(read_real(tensor), weight_type)
        release(tensor)
    if obstacle is not None:
        return context.leave(constant, "; ".join(filter(None, (reason, obstacle))))
    uses = tuple(_plan_half_uses(constant, context))
    return describe_tensor(constant, scheme=Scheme(type=weight_type), reason=reason, uses=uses)


def _plan_half_uses(constant: Constant, context: Context) -> list[UsePlan]:
    plans = []
    for use in constant.uses:
        role = find_role(use.node, use.input_index)
        is_lookup = (
            role is not None
            and Form.LOOKUP in role.forms
            and not has_reference(use.node)
            and refuse_lookup(use, constant.tensor, context.target) is None
        )
        plans.append(context.plan_use(use, Form.LOOKUP if is_lookup else Form.STORAGE))
    return plans


def _is_lookup_only(constant: Constant, context: Context) -> bool:
    return all(plan.form is Form.LOOKUP for plan in _plan_half_uses(constant, context))
