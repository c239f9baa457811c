"""Products of matrices."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from onnxq.training.operators.call import Call, Inputs, Operator, Outputs, optional, pointwise


def _gemm(call: Call, inputs: Inputs) -> Outputs:
    a, b, c = inputs[0], inputs[1], optional(inputs, 2)
    a = a.t() if call.integer("transA", 0) else a
    b = b.t() if call.integer("transB", 0) else b
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    if c is not None and beta != 0.0:
        return (torch.addmm(c, a, b, beta=beta, alpha=alpha),)
    product = a @ b
    return (product if alpha == 1.0 else alpha * product,)


def _einsum(call: Call, inputs: Inputs) -> Outputs:
    return (torch.einsum(call.text("equation", ""), *inputs),)


OPERATORS: Mapping[str, Operator] = {
    "MatMul": pointwise(torch.matmul),
    "Gemm": _gemm,
    "Einsum": _einsum,
}
