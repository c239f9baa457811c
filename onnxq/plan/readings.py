"""The readers of a weight, each with the form that it could take."""

from __future__ import annotations

from dataclasses import dataclass, replace

from onnxq.graph.attributes import has_reference
from onnxq.graph.constants import Constant, Use
from onnxq.plan.context import Context
from onnxq.plan.requirements import form_opset
from onnxq.rules.forms import FORM_CHECKS
from onnxq.rules.roles import Form, WeightRole, find_role


@dataclass(frozen=True)
class Reading:
    """One reader with its role and the form it could take."""

    use: Use
    role: WeightRole | None
    form: Form
    reason: str
    axes: tuple[int, ...]


def read_use(use: Use, constant: Constant, context: Context) -> Reading:
    """A reader, with the best form that its operator and the target allow."""
    role = find_role(use.node, use.input_index)
    if role is None:
        return Reading(use, None, Form.STORAGE, "", ())
    form, reason = _choose_form(use, role, constant, context)
    rank = len(constant.tensor.shape)
    axes = role.axes(use.node, rank)
    if use.transposed:
        axes = tuple(sorted(rank - 1 - axis for axis in axes))
    if any(axis >= rank for axis in axes):
        axes = ()
    return Reading(use, role, form, reason, axes)


def _choose_form(
    use: Use, role: WeightRole, constant: Constant, context: Context
) -> tuple[Form, str]:
    if use.node in context.calibrated:
        return Form.CALIBRATED, ""
    if use.node in context.refused:
        return Form.STORAGE, context.refused[use.node]
    if has_reference(use.node):
        return Form.STORAGE, "an attribute is set by the caller of its function"
    reasons: list[str] = []
    for form in role.forms:
        if form is Form.BLOCKED_MATMUL and context.options.weights.bits != 4:
            continue
        refusal = FORM_CHECKS[form](use, constant.tensor, context.target)
        opset = form_opset(form, context.target)
        if refusal is None and not context.has_opset(constant, opset):
            refusal = context.explain_opset(opset)
        if refusal is None:
            return form, "; ".join(dict.fromkeys(reasons))
        reasons.append(refusal)
    if not role.forms:
        reasons.append(f"no integer kernel for {use.node.op_type} without calibration")
    return Form.STORAGE, "; ".join(dict.fromkeys(reasons))


def align_reading(reading: Reading, primary: Reading, context: Context) -> Reading:
    """Make a reader that wants other scales than the primary one read dequantized weights."""
    own_scales = reading.form.is_integer and context.options.per_channel
    if own_scales and reading.axes != primary.axes:
        label = context.label(primary.use.node)
        return replace(
            reading, form=Form.STORAGE, reason=f"shares its weight with {label}, on other axes"
        )
    return reading
