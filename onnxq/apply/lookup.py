"""Embeddings: look the rows up in the stored table first, dequantize only those."""

from __future__ import annotations

import onnx_ir as ir

from onnxq.apply.rewriter import Job, Rewriter
from onnxq.apply.weights import parameters_of, scheme_of


def rewrite_lookup(rewriter: Rewriter, jobs: list[Job]) -> None:
    """``Gather(table, i)`` -> ``Mul(Cast(Gather(stored, i)), Gather(scale, i))``."""
    (job,) = jobs
    node, plan = job.use.node, job.tensor
    dtype, name = plan.constant.tensor.dtype, node.name or "gather"
    table = rewriter.weights.elements(plan, tuple(range(len(plan.shape))))
    rows = _gather(rewriter, job, table, f"{name}_rows")
    if scheme_of(plan).type.is_half:
        rows = rewriter.cast(node, rows, dtype, name=f"{name}_widened")
    else:
        rows = rewriter.cast(node, rows, ir.DataType.FLOAT, name=f"{name}_widened")
        shape = _shape_of_scales(job)
        offset = rewriter.weights.offset(plan, shape)
        if offset is not None:
            offset = _per_row(rewriter, job, offset, f"{name}_offset")
            (rows,) = rewriter.add_node(node, "Sub", (rows, offset), name=f"{name}_shifted")
        scale = _per_row(rewriter, job, rewriter.weights.scale(plan, shape), f"{name}_scale")
        (rows,) = rewriter.add_node(node, "Mul", (rows, scale), name=f"{name}_dequantized")
        if dtype != ir.DataType.FLOAT:
            rows = rewriter.cast(node, rows, dtype, name=f"{name}_narrowed")
    rewriter.replace(node, (rows,))


def _gather(rewriter: Rewriter, job: Job, source: ir.Value, name: str) -> ir.Value:
    return rewriter.add_node(job.use.node, "Gather", (source, job.use.node.inputs[1]), name=name)[0]


def _shape_of_scales(job: Job) -> tuple[int, ...]:
    """With a scale for each row as they are; without the axis of rows where all share theirs."""
    shape = parameters_of(job.tensor).scale.shape
    return shape[1:] if shape[0] == 1 else shape


def _per_row(rewriter: Rewriter, job: Job, source: ir.Value, name: str) -> ir.Value:
    """The scales of the rows that are looked up, or the ones that all rows share."""
    has_rows = parameters_of(job.tensor).scale.shape[0] > 1
    return _gather(rewriter, job, source, name) if has_rows else source
