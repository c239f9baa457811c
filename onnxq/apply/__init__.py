"""The only code that edits the graph to make a plan real."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir

from onnxq.apply.attention import rewrite_attention
from onnxq.apply.blocked_matmul import block_key, read_matrix, rewrite_blocked_matmul
from onnxq.apply.calibrated import write_pairs
from onnxq.apply.encodings import Encodings
from onnxq.apply.integer_matmul import rewrite_integer_matmul
from onnxq.apply.levels import leave_out_clips
from onnxq.apply.lookup import rewrite_lookup
from onnxq.apply.lstm import rewrite_lstm
from onnxq.apply.operators import write_float_products, write_operators
from onnxq.apply.rewriter import BlockKey, Blocks, Job, Rewriter
from onnxq.apply.storage import store_weight
from onnxq.graph.scopes import iterate_scopes
from onnxq.plan import Plan
from onnxq.rules.roles import Form
from onnxq.targets import Target

__all__ = [
    "FORM_REWRITES",
    "BlockKey",
    "Blocks",
    "Encodings",
    "Job",
    "apply_plan",
    "block_key",
    "find_jobs",
    "read_matrix",
]

FORM_REWRITES: Mapping[Form, Callable[[Rewriter, list[Job]], None]] = {
    Form.BLOCKED_MATMUL: rewrite_blocked_matmul,
    Form.INTEGER_MATMUL: rewrite_integer_matmul,
    Form.INTEGER_LSTM: rewrite_lstm,
    Form.INTEGER_ATTENTION: rewrite_attention,
    Form.LOOKUP: rewrite_lookup,
}
"""What each form does to a node; the jobs are the weights that the node reads in that form."""


def apply_plan(
    model: ir.Model,
    plan: Plan,
    target: Target,
    encodings: Encodings | None = None,
    *,
    operators: bool = False,
    blocks: Blocks | None = None,
) -> None:
    """Edit ``model`` in place.

    Args:
        model: the float model.
        plan: made for it.
        target: that it was made for.
        encodings: numbers of calibrated activations, asked for when the model is written.
        operators: write calibrated nodes as operators on integers, not between pairs.
        blocks: integers of 4-bit weights that were chosen with data.

    Pre: the plan was made from this very model, and its opset has every operator it needs.
    Post: no node reads a tensor that the plan stores otherwise; names of inputs and outputs, and
    every node that the plan does not mention, are as they were.
    """
    rewriter = Rewriter(model, target, blocks)
    if plan.calibration is not None:
        write_pairs(rewriter, plan, encodings or Encodings())
        if operators:
            write_operators(rewriter, plan)
        else:
            write_float_products(rewriter, plan)
        leave_out_clips(plan)
    jobs = find_jobs(plan)
    for scope in list(iterate_scopes(model)):
        for node in list(scope.graph):
            if node in jobs:
                FORM_REWRITES[jobs[node][0].form](rewriter, jobs[node])
    for tensor in plan.changes:
        if tensor.constant.value.uses():
            store_weight(rewriter, tensor)
    rewriter.finish()


def find_jobs(plan: Plan) -> dict[ir.Node, list[Job]]:
    """For each node that gets a new form the weights that it reads in it."""
    jobs: dict[ir.Node, list[Job]] = {}
    for tensor in plan.changes:
        for use in tensor.uses:
            if use.form in FORM_REWRITES and use.use is not None:
                jobs.setdefault(use.use.node, []).append(Job(tensor, use.use, use.form))
    return jobs
