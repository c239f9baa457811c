"""Embeddings: look the rows up in the stored table first, dequantize only those."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq.apply.rewriter import Job, Rewriter
from onnxq.apply.weights import parameters_of
from onnxq.numerics.affine import Array


def rewrite_lookup(rewriter: Rewriter, jobs: list[Job]) -> None:
    """``Gather(table, i)`` -> ``Mul(Cast(Gather(stored, i)), Gather(scale, i))``."""
    (job,) = jobs
    node, plan = job.use.node, job.tensor
    dtype, name = plan.constant.tensor.dtype, node.name or "gather"
    table = rewriter.weights.elements(plan, tuple(range(len(plan.shape))))
    rows = _gather(rewriter, job, table, f"{name}_rows")
    if plan.scheme is not None and plan.scheme.type.is_half:
        rows = rewriter.cast(node, rows, dtype, name=f"{name}_widened")
    else:
        rows = rewriter.cast(node, rows, ir.DataType.FLOAT, name=f"{name}_widened")
        parameters = parameters_of(plan)
        if parameters.has_zero_point:
            offset = _per_row(rewriter, job, parameters.zero_point.astype(np.float32), "offset")
            (rows,) = rewriter.add_node(node, "Sub", (rows, offset), name=f"{name}_shifted")
        scale = _per_row(rewriter, job, parameters.scale, "scale")
        (rows,) = rewriter.add_node(node, "Mul", (rows, scale), name=f"{name}_dequantized")
        if dtype != ir.DataType.FLOAT:
            rows = rewriter.cast(node, rows, dtype, name=f"{name}_narrowed")
    rewriter.replace(node, (rows,))


def _gather(rewriter: Rewriter, job: Job, source: ir.Value, name: str) -> ir.Value:
    return rewriter.add_node(job.use.node, "Gather", (source, job.use.node.inputs[1]), name=name)[0]


def _per_row(rewriter: Rewriter, job: Job, array: Array, kind: str) -> ir.Value:
    """The scales of the rows that are looked up, or the ones that all rows share."""
    scope, name = job.tensor.constant.scope, f"{job.tensor.constant.value.name}_{kind}"
    if array.shape[0] == 1:
        return rewriter.add_array(scope, array.reshape(array.shape[1:]), name=name)
    rows = rewriter.add_array(scope, array, name=name)
    return _gather(rewriter, job, rows, f"{job.use.node.name or 'gather'}_{kind}")
