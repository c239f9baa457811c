"""Weights that are stored small and read as floats.

Written as ``Mul(Cast(quantized), scale)``: onnxruntime computes both once, when it loads the
model, so the speed is that of float. A DequantizeLinear would run again at every inference.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq.apply.rewriter import Rewriter
from onnxq.apply.weights import parameters_of
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
    scope, name = plan.constant.scope, plan.constant.value.name
    is_half = plan.scheme is not None and plan.scheme.type.is_half
    # The CPU has no arithmetic on 16-bit floats: calculate in float32 and narrow at the end.
    wide = dtype if dtype in _WIDE_TYPES else ir.DataType.FLOAT

    def append(operator: str, inputs: tuple[ir.Value, ...], suffix: str, **attributes: int) -> None:
        nonlocal value
        value = rewriter.add_node_at_start(
            scope,
            operator,
            inputs,
            name=f"{name}_{suffix}",
            attributes=dict(attributes),
            after=value.producer(),
        )

    value = elements
    append("Cast", (value,), "wide", to=int(wide))
    if is_half:
        return value
    parameters = parameters_of(plan)
    shape, real = parameters.scale.shape, wide.numpy()
    zero_point = rewriter.weights.zero_point(plan, shape)
    if zero_point is not None:
        offset = rewriter.add_array(
            scope, parameters.zero_point.astype(real), name=f"{name}_offset"
        )
        append("Sub", (value, offset), "shifted")
    scale = (
        rewriter.weights.scale(plan, shape)
        if wide == ir.DataType.FLOAT
        else rewriter.add_array(scope, parameters.scale.astype(np.float64), name=f"{name}_scale")
    )
    append("Mul", (value, scale), "dequantized")
    if wide != dtype:
        append("Cast", (value,), "narrowed", to=int(dtype))
    return value
