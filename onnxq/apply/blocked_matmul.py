"""MatMul and Gemm with 4-bit weights in blocks."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq.apply.integer_matmul import add_gemm_bias, float_attribute, weight_layout
from onnxq.apply.rewriter import Job, Rewriter
from onnxq.apply.weights import DATA_TYPES
from onnxq.graph.constants import release
from onnxq.graph.scopes import Scope
from onnxq.numerics.affine import Array, Parameters
from onnxq.numerics.blocks import pack_nibbles, quantize_blocks
from onnxq.plan.statistics import read_real
from onnxq.rules.roles import MICROSOFT
from onnxq.schemes import Scheme

ACCURACY_LEVEL = 4
"""Multiply in int8. The operator's own default (0) ran 20 to 50 times slower than float."""

STORED_MIDPOINT = 8
"""MatMulNBits stores unsigned nibbles; without zero points, 8 stands for 0."""


def rewrite_blocked_matmul(rewriter: Rewriter, jobs: list[Job]) -> None:
    """Replace a MatMul or Gemm node by MatMulNBits, or by a blocked DequantizeLinear and MatMul."""
    (job,) = jobs
    node, plan = job.use.node, job.tensor
    activation, scheme = node.inputs[0], plan.scheme
    if activation is None or scheme is None:
        raise ValueError(f"node '{node.name}' has no activation or no scheme")
    dtype, name = plan.constant.tensor.dtype, node.name or node.op_type.lower()
    weight = _read_matrix(job)
    quantized, parameters = quantize_blocks(weight, scheme)
    if dtype != ir.DataType.FLOAT:
        activation = rewriter.cast(node, activation, ir.DataType.FLOAT, name=f"{name}_float")
    if rewriter.target.contrib_operators:
        product = _add_nbits(rewriter, job, activation, weight.shape, quantized, parameters)
    else:
        rows = weight.shape[0]
        table = _add_dequantize(
            rewriter, job, quantized.reshape(-1, weight.shape[1])[:rows], parameters
        )
        (product,) = rewriter.add_node(node, "MatMul", (activation, table), name=f"{name}_product")
    if dtype != ir.DataType.FLOAT:
        product = rewriter.cast(node, product, dtype, name=f"{name}_narrowed")
    rewriter.replace(node, (add_gemm_bias(rewriter, node, product, dtype),))


def _read_matrix(job: Job) -> Array:
    """The weight as [K, N] in float32, multiplied by the alpha of a Gemm."""
    real = read_real(job.tensor.constant.tensor).transpose(weight_layout(job))
    alpha = float_attribute(job.use.node, "alpha", 1.0)
    result = np.ascontiguousarray(real, np.float32) * np.float32(alpha)
    release(job.tensor.constant.tensor)
    return result


def _add_nbits(
    rewriter: Rewriter,
    job: Job,
    activation: ir.Value,
    shape: tuple[int, ...],
    quantized: Array,
    parameters: Parameters,
) -> ir.Value:
    node, plan = job.use.node, job.tensor
    scope, base = plan.constant.scope, plan.constant.value.name
    scheme = _scheme_of(job)
    offset = STORED_MIDPOINT if scheme.type.is_signed else 0
    # [blocks, block_size, N] -> [N, blocks, block_size], two to a byte.
    packed = pack_nibbles((quantized + offset).transpose(2, 0, 1))
    inputs = [
        activation,
        rewriter.add_array(scope, packed, name=f"{base}_quantized"),
        rewriter.add_array(
            scope, np.ascontiguousarray(parameters.scale[:, 0, :].T), name=f"{base}_scale"
        ),
    ]
    zero_point = parameters.zero_point[:, 0, :].T + offset
    if np.any(zero_point != STORED_MIDPOINT):
        inputs.append(
            rewriter.add_array(scope, pack_nibbles(zero_point), name=f"{base}_zero_point")
        )
    attributes = {
        "K": shape[0],
        "N": shape[1],
        "bits": 4,
        "block_size": quantized.shape[1],
        "accuracy_level": ACCURACY_LEVEL,
    }
    name = f"{node.name or node.op_type.lower()}_product"
    return rewriter.add_node(
        node, "MatMulNBits", inputs, name=name, attributes=attributes, domain=MICROSOFT
    )[0]


def _add_dequantize(
    rewriter: Rewriter, job: Job, quantized: Array, parameters: Parameters
) -> ir.Value:
    node, plan = job.use.node, job.tensor
    scope, base = plan.constant.scope, plan.constant.value.name
    scheme = _scheme_of(job)
    inputs = [
        _add_packed(rewriter, scope, quantized, scheme, f"{base}_quantized"),
        rewriter.add_array(scope, parameters.scale[:, 0, :], name=f"{base}_scale"),
    ]
    if parameters.has_zero_point:
        zero_point = parameters.zero_point[:, 0, :]
        inputs.append(_add_packed(rewriter, scope, zero_point, scheme, f"{base}_zero_point"))
    attributes = {"axis": 0, "block_size": scheme.block_size}
    return rewriter.add_node(
        node, "DequantizeLinear", inputs, name=f"{base}_dequantized", attributes=attributes
    )[0]


def _add_packed(
    rewriter: Rewriter, scope: Scope, values: Array, scheme: Scheme, name: str
) -> ir.Value:
    dtype = DATA_TYPES[scheme.type]
    packed = pack_nibbles(values.reshape(-1))
    tensor = ir.PackedTensor(packed, dtype, shape=ir.Shape(values.shape))
    return rewriter.add_constant(scope, tensor, name=name)


def _scheme_of(job: Job) -> Scheme:
    if job.tensor.scheme is None:
        raise ValueError(f"{job.tensor.name} has no scheme")
    return job.tensor.scheme
