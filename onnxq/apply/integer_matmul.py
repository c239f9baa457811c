"""MatMul and Gemm with a constant matrix, computed in integers.

Written with standard operators in the shape that onnxruntime fuses into one kernel
(DynamicQuantizeMatMul, or MatMulIntegerToFloat where the activation has several readers):

    q, s, z = DynamicQuantizeLinear(x)
    y = Cast(MatMulInteger(q, W, z)) * (s * scale_of_W) [+ bias]
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq.apply.rewriter import Job, Rewriter
from onnxq.graph.attributes import float_attribute, is_set
from onnxq.graph.constants import constant_tensor


def rewrite_integer_matmul(rewriter: Rewriter, jobs: list[Job]) -> None:
    """Replace a MatMul or Gemm node; a constant on the left is computed as (x^T W^T)^T.

    The integer kernels take their fast path (unsigned x signed) only with the weight on the right.
    """
    (job,) = jobs
    node, plan = job.use.node, job.tensor
    dtype, name = plan.constant.tensor.dtype, node.name or node.op_type.lower()
    on_left = job.use.input_index == 0
    activation = node.inputs[1 - job.use.input_index]
    if activation is None:
        raise ValueError(f"node '{node.name}' has no activation")
    # A Gemm is of rank 2; a MatMul whose constant is on the left has an activation of known rank.
    rank = 2 if node.op_type == "Gemm" or activation.shape is None else len(activation.shape)
    if _must_transpose(node, on_left=on_left):
        transposed = f"{name}_input_transposed"
        activation = transpose_last_axes(rewriter, node, activation, transposed, rank=rank)
    product = _multiply(rewriter, job, activation, name)
    if dtype != ir.DataType.FLOAT:
        product = rewriter.cast(node, product, dtype, name=f"{name}_narrowed")
    if on_left:
        transposed = f"{name}_output_transposed"
        product = transpose_last_axes(rewriter, node, product, transposed, rank=rank)
    rewriter.replace(node, (add_gemm_bias(rewriter, node, product, dtype),))


def add_gemm_bias(
    rewriter: Rewriter,
    node: ir.Node,
    product: ir.Value,
    dtype: ir.DataType,
    *,
    operator: str = "Add",
) -> ir.Value:
    """``product + beta * C`` of a Gemm; the product itself for a MatMul or a Gemm without C.

    With ``operator`` "Sub" it is written as ``product - (-beta * C)``.
    """
    bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
    beta = float_attribute(node, "beta", 1.0)
    if bias is None or beta == 0.0:
        return product
    beta = -beta if operator == "Sub" else beta
    name = node.name or "gemm"
    if beta != 1.0:
        scope, numpy_type = rewriter.scope_of(node), dtype.numpy()
        tensor = constant_tensor(bias)
        if tensor is not None:
            scaled = (tensor.numpy().astype(np.float64) * beta).astype(numpy_type)
            bias = rewriter.add_array(scope, scaled, name=f"{name}_bias")
        else:
            factor = rewriter.add_array(scope, np.array(beta, numpy_type), name=f"{name}_beta")
            (bias,) = rewriter.add_node(node, "Mul", (bias, factor), name=f"{name}_bias")
    return rewriter.add_node(node, operator, (product, bias), name=f"{name}_biased")[0]


def transpose_last_axes(
    rewriter: Rewriter, before: ir.Node, value: ir.Value, name: str, *, rank: int
) -> ir.Value:
    """Swap the last two axes of an activation."""
    permutation = [*range(rank - 2), rank - 1, rank - 2]
    return rewriter.add_node(
        before, "Transpose", (value,), name=name, attributes={"perm": permutation}
    )[0]


def weight_layout(job: Job) -> tuple[int, ...]:
    """The order of axes that puts the reduction before the output columns."""
    rank = len(job.tensor.shape)
    natural = tuple(range(rank))
    swapped = (*natural[:-2], rank - 1, rank - 2)
    node, on_left = job.use.node, job.use.input_index == 0
    flag = is_set(node, "transA" if on_left else "transB")
    # An odd number of transpositions (by the node, on its way, by standing on the left) is one.
    return swapped if (flag + job.use.transposed + on_left) % 2 else natural


def _must_transpose(node: ir.Node, *, on_left: bool) -> bool:
    if not on_left:
        return is_set(node, "transA")
    return not is_set(node, "transB")


def _multiply(rewriter: Rewriter, job: Job, activation: ir.Value, name: str) -> ir.Value:
    node, plan = job.use.node, job.tensor
    quantized = rewriter.quantize_activation(node, activation, plan.constant.tensor.dtype)
    weight = rewriter.weights.elements(plan, weight_layout(job), preferred=True)
    shape = _scale_shape(job)
    zero_point = rewriter.weights.zero_point(plan, shape)
    inputs = [quantized.values, weight, quantized.zero_point]
    (product,) = rewriter.add_node(
        node,
        "MatMulInteger",
        inputs if zero_point is None else [*inputs, zero_point],
        name=f"{name}_integers",
    )
    widened = rewriter.cast(node, product, ir.DataType.FLOAT, name=f"{name}_widened")
    factor = float_attribute(node, "alpha", 1.0)
    weight_scale = rewriter.weights.scale(plan, shape, factor=factor)
    (scale,) = rewriter.add_node(node, "Mul", (quantized.scale, weight_scale), name=f"{name}_scale")
    return rewriter.add_node(node, "Mul", (widened, scale), name=f"{name}_product")[0]


def _scale_shape(job: Job) -> tuple[int, ...]:
    """One scale a column: [N]; for a stack of matrices, which is never on the left, [..., 1, N]."""
    plan = job.tensor
    if plan.scheme is None or not plan.scheme.axes:
        return ()
    if len(plan.shape) > 2:
        return (*plan.shape[:-2], 1, plan.shape[-1])
    return (plan.shape[plan.scheme.axes[0]],)
