"""MatMul and Gemm with 4-bit weights in blocks."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq.apply.integer_matmul import add_gemm_bias, weight_layout
from onnxq.apply.rewriter import BlockKey, Job, Rewriter
from onnxq.apply.weights import DATA_TYPES, scheme_of
from onnxq.graph.attributes import float_attribute
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

CENTRED = ("LayerNormalization", "SkipLayerNormalization")
"""Operators that subtract the mean of what they give."""


def rewrite_blocked_matmul(rewriter: Rewriter, jobs: list[Job]) -> None:
    """Replace a MatMul or Gemm node by MatMulNBits, or by a blocked DequantizeLinear and MatMul."""
    (job,) = jobs
    node, plan = job.use.node, job.tensor
    activation = node.inputs[0]
    if activation is None:
        raise ValueError(f"node '{node.name}' has no activation")
    dtype, name = plan.constant.tensor.dtype, node.name or node.op_type.lower()
    if dtype != ir.DataType.FLOAT:
        activation = rewriter.cast(node, activation, ir.DataType.FLOAT, name=f"{name}_float")
    if rewriter.target.contrib_operators:
        product = _add_nbits(rewriter, job, activation)
    else:
        table = _add_dequantize(rewriter, job)
        (product,) = rewriter.add_node(node, "MatMul", (activation, table), name=f"{name}_product")
    if dtype != ir.DataType.FLOAT:
        product = rewriter.cast(node, product, dtype, name=f"{name}_narrowed")
    # Of a MatMul and an Add the runtime would make a Gemm, in which it does not find the weight.
    operator = "Add" if rewriter.target.contrib_operators else "Sub"
    rewriter.replace(node, (add_gemm_bias(rewriter, node, product, dtype, operator=operator),))


def block_key(job: Job) -> BlockKey:
    """What the integers of a weight depend on."""
    alpha = float_attribute(job.use.node, "alpha", 1.0)
    return job.tensor.constant.value, weight_layout(job), alpha


def read_matrix(job: Job) -> Array:
    """The weight as [K, N] in float32, multiplied by the alpha of a Gemm."""
    real = read_real(job.tensor.constant.tensor).transpose(weight_layout(job))
    alpha = float_attribute(job.use.node, "alpha", 1.0)
    result = np.ascontiguousarray(real, np.float32) * np.float32(alpha)
    del real
    release(job.tensor.constant.tensor)
    return result


def _quantize(rewriter: Rewriter, job: Job) -> tuple[Array, Parameters]:
    """Integers and parameters, chosen with data where they were."""
    known = rewriter.blocks.get(block_key(job))
    return known or quantize_blocks(
        read_matrix(job), scheme_of(job.tensor), keeps_sums=not _reads_normalized(job)
    )


def _reads_normalized(job: Job) -> bool:
    """Whether the elements of each input sum to about 0, so that the sum of a column is free."""
    activation = job.use.node.inputs[0]
    producer = None if activation is None else activation.producer()
    return producer is not None and producer.op_type in CENTRED


def _add_nbits(rewriter: Rewriter, job: Job, activation: ir.Value) -> ir.Value:
    node, plan = job.use.node, job.tensor
    layout = weight_layout(job)
    weight = rewriter.weights.share_packed(block_key(job), lambda: _pack(rewriter, job))
    attributes = {
        "K": plan.shape[layout[0]],
        "N": plan.shape[layout[1]],
        "bits": 4,
        "block_size": scheme_of(job.tensor).block_size,
        "accuracy_level": ACCURACY_LEVEL,
    }
    name = f"{node.name or node.op_type.lower()}_product"
    return rewriter.add_node(
        node,
        "MatMulNBits",
        [activation, *weight],
        name=name,
        attributes=attributes,
        domain=MICROSOFT,
    )[0]


def _pack(rewriter: Rewriter, job: Job) -> tuple[ir.Value, ...]:
    """The weight as MatMulNBits reads it: elements, scales and, where needed, zero points."""
    scope, base = job.tensor.constant.scope, job.tensor.constant.value.name
    scheme = scheme_of(job.tensor)
    quantized, parameters = _quantize(rewriter, job)
    offset = STORED_MIDPOINT if scheme.type.is_signed else 0
    # [blocks, block_size, N] -> [N, blocks, block_size], two to a byte.
    packed = pack_nibbles((quantized + offset).transpose(2, 0, 1))
    scale = np.ascontiguousarray(parameters.scale[:, 0, :].T)
    inputs = [
        rewriter.add_array(scope, packed, name=f"{base}_{scheme.type.value}"),
        rewriter.add_array(scope, scale, name=f"{base}_scale"),
    ]
    zero_point = parameters.zero_point[:, 0, :].T + offset
    if np.any(zero_point != STORED_MIDPOINT):
        array = pack_nibbles(zero_point)
        inputs.append(rewriter.add_array(scope, array, name=f"{base}_zero_point"))
    return tuple(inputs)


def _add_dequantize(rewriter: Rewriter, job: Job) -> ir.Value:
    """A blocked DequantizeLinear, which onnxruntime turns into the same kernel.

    It does so only with constants in the body of the node itself.
    """
    node, base = job.use.node, job.tensor.constant.value.name
    scope, scheme = rewriter.scope_of(node), scheme_of(job.tensor)
    blocks, parameters = _quantize(rewriter, job)
    rows = job.tensor.shape[weight_layout(job)[0]]
    quantized = blocks.reshape(-1, blocks.shape[2])[:rows]
    inputs = [
        _add_packed(rewriter, scope, quantized, scheme, f"{base}_{scheme.type.value}"),
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
