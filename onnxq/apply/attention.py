"""The fused com.microsoft Attention with an integer projection (QAttention)."""

from __future__ import annotations

import numpy as np

from onnxq.apply.rewriter import Job, Rewriter
from onnxq.apply.weights import scheme_of
from onnxq.rules.roles import MICROSOFT


def rewrite_attention(rewriter: Rewriter, jobs: list[Job]) -> None:
    """Attention(x, W, b) -> QAttention(q, W, b, s, scale_of_W, mask, z, zero_point_of_W, past)."""
    (job,) = jobs
    node, plan = job.use.node, job.tensor
    activation = node.inputs[0]
    if activation is None:
        raise ValueError(f"node '{node.name}' has no activation")
    bias, mask, past = (
        node.inputs[index] if index < len(node.inputs) else None for index in (2, 3, 4)
    )
    if bias is None:
        zeros = np.zeros(plan.shape[1], np.float32)
        bias = rewriter.add_array(
            plan.constant.scope, zeros, name=f"{node.name or 'attention'}_bias"
        )
    quantized = rewriter.quantize_activation(node, activation, plan.constant.tensor.dtype)
    shape = (plan.shape[1],) if scheme_of(plan).axes else ()
    new = rewriter.add_node(
        node,
        "QAttention",
        [
            quantized.values,
            rewriter.weights.elements(plan, (0, 1)),
            bias,
            quantized.scale,
            rewriter.weights.scale(plan, shape),
            mask,
            quantized.zero_point,
            rewriter.weights.explicit_zero_point(plan, shape),
            past,
        ],
        name=f"{node.name or 'attention'}_integers",
        attributes=dict(node.attributes),
        domain=MICROSOFT,
        outputs=len(node.outputs),
    )
    rewriter.succeed(node, new)
