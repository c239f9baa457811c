"""LSTM with integer weights (com.microsoft DynamicQuantizeLSTM)."""

from __future__ import annotations

import onnx_ir as ir

from onnxq.apply.rewriter import Job, Rewriter
from onnxq.apply.weights import scheme_of
from onnxq.rules.roles import MICROSOFT

LSTM_ATTRIBUTES = frozenset(
    {
        "activation_alpha",
        "activation_beta",
        "activations",
        "clip",
        "direction",
        "hidden_size",
        "input_forget",
    }
)
_FLOAT_INPUTS = 8
_WEIGHT_LAYOUT = (0, 2, 1)


def rewrite_lstm(rewriter: Rewriter, jobs: list[Job]) -> None:
    """Replace an LSTM node: weights transposed, then the scales and zero points as extra inputs."""
    node = jobs[0].use.node
    inputs: list[ir.Value | None] = [*node.inputs, *[None] * (_FLOAT_INPUTS - len(node.inputs))]
    extra: list[ir.Value | None] = []
    for job in sorted(jobs, key=lambda one: one.use.input_index):
        inputs[job.use.input_index] = rewriter.weights.elements(
            job.tensor, _WEIGHT_LAYOUT, preferred=True
        )
        extra += _add_scale_and_zero_point(rewriter, job)
    new = rewriter.add_node(
        node,
        "DynamicQuantizeLSTM",
        [*inputs, *extra],
        name=f"{node.name or 'lstm'}_integers",
        # Left out is ``layout``, which this operator does not have (0 was its only legal value).
        attributes={
            name: value for name, value in node.attributes.items() if name in LSTM_ATTRIBUTES
        },
        domain=MICROSOFT,
        outputs=len(node.outputs),
    )
    rewriter.succeed(node, new)


def _add_scale_and_zero_point(rewriter: Rewriter, job: Job) -> list[ir.Value | None]:
    plan = job.tensor
    shape = plan.shape[: len(scheme_of(plan).axes)]
    return [
        rewriter.weights.scale(plan, shape),
        rewriter.weights.explicit_zero_point(plan, shape),
    ]
