"""Operators of com.microsoft in numpy, for the reference implementation, which has none of them.

Written from their documentation (``ContribOperators.md`` of onnxruntime), in float64, so that only
the rounding of the result is left.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx.reference.op_run import OpRun

Array = npt.NDArray[Any]


def dequantize(values: Array, scale: Array, zero_point: Array | None) -> Array:
    """``(q - z) s`` exactly; scales of columns belong to the last axis."""
    zero = np.zeros((), np.int64) if zero_point is None else zero_point.astype(np.int64)
    return (values.astype(np.int64) - zero) * scale.astype(np.float64)


class MatMulIntegerToFloat(OpRun):  # type: ignore[misc]
    """``(q - z) (W - z_W) s s_W + bias``."""

    op_domain = "com.microsoft"

    def _run(
        self,
        values: Array,
        weight: Array,
        scale: Array,
        weight_scale: Array,
        zero_point: Array | None = None,
        weight_zero_point: Array | None = None,
        bias: Array | None = None,
    ) -> tuple[Array]:
        activation = dequantize(values, scale, zero_point)
        product = activation @ dequantize(weight, weight_scale, weight_zero_point)
        return (np.asarray(product if bias is None else product + bias, np.float32),)


class QGemm(OpRun):  # type: ignore[misc]
    """The same with an int32 bias of the scale ``s s_W``, and maybe quantized again."""

    op_domain = "com.microsoft"

    def _run(
        self,
        values: Array,
        scale: Array,
        zero_point: Array,
        weight: Array,
        weight_scale: Array,
        weight_zero_point: Array,
        bias: Array | None = None,
        output_scale: Array | None = None,
        output_zero_point: Array | None = None,
        transB: int = 0,
    ) -> tuple[Array]:
        if transB:
            # Scales and zero points of columns belong to the rows of the transposed weight.
            weight = weight.T
        product = dequantize(values, scale, zero_point) @ dequantize(
            weight, weight_scale, weight_zero_point
        )
        if bias is not None:
            product = product + bias * (scale.astype(np.float64) * weight_scale.astype(np.float64))
        if output_scale is None or output_zero_point is None:
            return (product.astype(np.float32),)
        limits = np.iinfo(output_zero_point.dtype)
        steps = np.rint(product / np.float64(output_scale)) + output_zero_point
        return (np.clip(steps, limits.min, limits.max).astype(output_zero_point.dtype),)


OPERATORS = (MatMulIntegerToFloat, QGemm)
