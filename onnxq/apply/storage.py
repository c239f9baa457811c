"""Weights that are stored small and read as floats.

Written as ``Mul(Cast(quantized), scale)``: onnxruntime computes both once, when it loads the
model, so the speed is that of float. A DequantizeLinear would run again at every inference.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxq.apply.rewriter import Rewriter
from onnxq.apply.weights import parameters_of, scheme_of
from onnxq.plan import TensorPlan

_WIDE_TYPES = (ir.DataType.FLOAT, ir.DataType.DOUBLE)


def store_weight(rewriter: Rewriter, plan: TensorPlan) -> None:
    """Make every remaining reader of a weight read its dequantized elements."""
    natural = tuple(range(len(plan.shape)))
    elements = rewriter.weights.elements(plan, natural)
    dtype = plan.constant.tensor.dtype
    readers = list(plan.constant.value.uses())
    value = _dequantize_at_start(rewriter, plan, elements, dtype)
    for node, index in readers:
        node.replace_input_with(index, value)
    rewriter.take_over_name(plan.constant, value)


def _dequantize_at_start(
    rewriter: Rewriter, plan: TensorPlan, elements: ir.Value, dtype: ir.DataType
) -> ir.Value:
    # The CPU has no arithmetic on 16-bit floats: calculate in float32 and narrow at the end.
    wide = dtype if dtype in _WIDE_TYPES else ir.DataType.FLOAT
    value = _append(rewriter, plan, "Cast", (elements,), "wide", to=int(wide))
    if scheme_of(plan).type.is_half:
        return value
    shape = parameters_of(plan).scale.shape
    offset = rewriter.weights.offset(plan, shape, wide)
    if offset is not None:
        value = _append(rewriter, plan, "Sub", (value, offset), "shifted")
    scale = rewriter.weights.scale(plan, shape, dtype=wide)
    value = _append(rewriter, plan, "Mul", (value, scale), "dequantized")
    if wide != dtype:
        value = _append(rewriter, plan, "Cast", (value,), "narrowed", to=int(dtype))
    return value


def _append(
    rewriter: Rewriter,
    plan: TensorPlan,
    operator: str,
    inputs: tuple[ir.Value, ...],
    suffix: str,
    **attributes: int,
) -> ir.Value:
    """A node right after the one that makes its first input, or at the start of the body."""
    return rewriter.add_node_at_start(
        plan.constant.scope,
        operator,
        inputs,
        name=f"{plan.constant.value.name}_{suffix}",
        attributes=dict(attributes),
        after=inputs[0].producer(),
    )
