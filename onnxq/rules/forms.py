"""When a form applies: each check returns the reason for its refusal, or None."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import onnx_ir as ir

from onnxq.graph.attributes import float_attribute, int_attribute, is_set
from onnxq.graph.constants import Use, constant_tensor, dimensions
from onnxq.rules.roles import Form
from onnxq.targets import Target

Check = Callable[[Use, ir.TensorProtocol, Target], str | None]

_ATTENTION_ATTRIBUTES = frozenset({"num_heads", "unidirectional", "mask_filter_value"})
_ATTENTION_INPUTS = 5
_FUSED_ACTIVATIONS = frozenset(
    {
        "Elu",
        "HardSigmoid",
        "LeakyRelu",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Softsign",
        "Tanh",
        "ThresholdedRelu",
    }
)


def refuse_integer_matmul(use: Use, tensor: ir.TensorProtocol, target: Target) -> str | None:
    """MatMul and Gemm as DynamicQuantizeLinear and MatMulInteger."""
    rank = len(tensor.shape)
    if rank < 2:
        return "a vector, not a matrix"
    other = use.node.inputs[1 - use.input_index]
    if other is None or constant_tensor(other) is not None:
        return "both operands are constant"
    if use.input_index == 0:
        if rank > 2:
            return "constant on the left with batch axes"
        if use.node.op_type == "MatMul" and (other.shape is None or len(other.shape) < 2):
            return "constant on the left of a tensor of unknown rank"
        if other.shape is not None and other.shape[-1] == 1:
            return "no gain: constant on the left of a single column"
    elif other.shape is None and rank > 2:
        return "a stack of matrices beside a tensor of unknown rank"
    elif other.shape is not None and len(other.shape) < 2:
        return "the other operand is a vector"
    if use.node.op_type == "Gemm" and float_attribute(use.node, "alpha", 1.0) == 0.0:
        return "alpha is 0"
    return _refuse_size(use, tensor, target)


def refuse_blocked_matmul(use: Use, tensor: ir.TensorProtocol, target: Target) -> str | None:
    """MatMul and Gemm with 4-bit weights in blocks."""
    if len(tensor.shape) != 2:
        return "4-bit kernels take matrices only"
    if is_set(use.node, "transA"):
        return "4-bit kernels cannot transpose the activation"
    if not target.contrib_operators and not _has_plain_bias(use.node):
        return "onnxruntime would widen a 4-bit weight with such a bias at every run"
    return refuse_integer_matmul(use, tensor, target)


def refuse_integer_lstm(use: Use, tensor: ir.TensorProtocol, target: Target) -> str | None:
    """LSTM as DynamicQuantizeLSTM."""
    if not target.contrib_operators:
        return f"target '{target.name}' has no integer LSTM"
    if use.transposed or tensor.dtype != ir.DataType.FLOAT:
        return "the integer kernel takes float32 weights in their own layout only"
    if any(constant_tensor(use.node.inputs[index]) is None for index in (1, 2)):
        return "not all weights of the LSTM are constant"
    if is_set(use.node, "layout"):
        return "the integer kernel has no batch-first layout"
    hidden = dimensions(tensor)[1] // 4
    if hidden < target.integer_lstm_min_hidden:
        return f"no gain: hidden size {hidden} is under {target.integer_lstm_min_hidden}"
    return None


def refuse_integer_attention(use: Use, tensor: ir.TensorProtocol, target: Target) -> str | None:
    """com.microsoft Attention as QAttention."""
    if not target.contrib_operators:
        return f"target '{target.name}' has no integer attention"
    if tensor.dtype != ir.DataType.FLOAT or len(tensor.shape) != 2:
        return "the integer kernel takes a float32 matrix only"
    unknown = set(use.node.attributes) - _ATTENTION_ATTRIBUTES
    if unknown:
        return f"the integer kernel has no attribute '{min(unknown)}'"
    if any(value is not None for value in use.node.inputs[_ATTENTION_INPUTS:]):
        return "the integer kernel takes no attention bias"
    return None


def refuse_lookup(use: Use, tensor: ir.TensorProtocol, _target: Target) -> str | None:
    """Gather on the stored table, dequantizing only what was looked up."""
    axis = int_attribute(use.node, "axis", 0)
    if use.transposed or axis not in (0, -len(tensor.shape)):
        return "looked up along another axis than the first"
    return None


FORM_CHECKS: Mapping[Form, Check] = {
    Form.BLOCKED_MATMUL: refuse_blocked_matmul,
    Form.INTEGER_MATMUL: refuse_integer_matmul,
    Form.INTEGER_LSTM: refuse_integer_lstm,
    Form.INTEGER_ATTENTION: refuse_integer_attention,
    Form.LOOKUP: refuse_lookup,
}


def refuse_filter_bank(node: ir.Node, shape: tuple[int, ...], target: Target) -> str | None:
    """Convolutions of a signal-processing front end, which have one input channel and many taps."""
    taps = math.prod(shape[2:])
    if (
        node.op_type == "Conv"
        and shape[1] == 1
        and int_attribute(node, "group", 1) == 1
        and taps >= target.filter_bank_min_taps
    ):
        return f"a filter bank of {taps} taps, whose stop band int8 would fill with noise"
    return None


def output_columns(use: Use, tensor: ir.TensorProtocol) -> int:
    """How many output features a matrix of MatMul or Gemm makes."""
    axis = -1 if use.input_index == 1 else -2
    if is_set(use.node, "transB" if use.input_index == 1 else "transA") != use.transposed:
        axis = -3 - axis
    return dimensions(tensor)[axis]


def _has_plain_bias(node: ir.Node) -> bool:
    """Whether onnxruntime still finds the 4-bit weight behind what is added to the product.

    It makes one Gemm of MatMul and Add first, and of a Gemm and its activation, and then looks for
    a bare Gemm with a vector for a bias.
    """
    if node.op_type == "Gemm":
        return all(value is None or constant_tensor(value) is not None for value in node.inputs[2:])
    for add in (reader for reader, _ in node.outputs[0].uses() if reader.op_type == "Add"):
        tensors = [constant_tensor(value) for value in add.inputs]
        if not any(tensor is not None and len(tensor.shape) == 1 for tensor in tensors):
            return False
        if any(reader.op_type in _FUSED_ACTIVATIONS for reader, _ in add.outputs[0].uses()):
            return False
    return True


def _refuse_size(use: Use, tensor: ir.TensorProtocol, target: Target) -> str | None:
    columns = output_columns(use, tensor)
    if columns < target.integer_matrix_min_columns:
        return f"no gain: only {columns} output columns"
    rows, width = dimensions(tensor)[-2:]
    elements = rows * width
    if elements < target.integer_matrix_min_elements:
        return f"no gain: only {elements} elements in the matrix"
    return None
