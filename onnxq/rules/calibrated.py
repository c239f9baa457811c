"""Which operators can compute on calibrated integers, and what each needs.

To add an operator is to add a row to ``CALIBRATED_RULES``. The rows follow the kernels that
onnxruntime has for QuantizeLinear/DequantizeLinear pairs; an operator without a row stays float.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.graph.attributes import float_attribute, has_reference, int_attribute, is_set
from onnxq.graph.constants import constant_tensor, dimensions

SMALLEST_BOUND = 1e-30
"""Between narrower limits a scale would not be a normal float32 number."""


class Behaviour(enum.Enum):
    """What an operator does with integers."""

    CONVOLUTION = "convolution"
    """Multiplies by a weight; fast only if its output is quantized, too."""
    PRODUCT = "product"
    """Multiplies by a matrix; its output may stay float."""
    ELEMENTWISE = "elementwise"
    """Calculates on integers of several tensors; worth it between integer nodes only."""
    MOVEMENT = "movement"
    """Moves integers: the output has the scale of the input."""


NodeCheck = Callable[[ir.Node], str | None]


@dataclass(frozen=True)
class CalibratedRule:
    """One operator.

    Attributes:
        operator: type, of the domain ai.onnx.
        behaviour: what it does with integers.
        check: the reason why a node cannot, by its attributes and constants; None if it can.
        weight_index: which input is the weight.
    """

    operator: str
    behaviour: Behaviour
    check: NodeCheck
    weight_index: int | None = None

    def activations(self, node: ir.Node) -> tuple[ir.Value, ...]:
        """The inputs that are quantized activations."""
        values = node.inputs if self.behaviour is Behaviour.ELEMENTWISE else node.inputs[:1]
        return tuple(value for value in values if value is not None)


def find_calibrated_rule(node: ir.Node) -> CalibratedRule | None:
    """The row for a node, or None if its operator always stays float."""
    return None if node.domain else _RULES.get(node.op_type)


def clip_bounds(node: ir.Node) -> tuple[float, float] | None:
    """What a Relu or Clip limits its input to; None for other nodes and for bounds not constant."""
    if node.domain or has_reference(node):
        return None
    if node.op_type == "Relu":
        return 0.0, math.inf
    if node.op_type != "Clip" or "min" in node.attributes or "max" in node.attributes:
        return None
    bounds = [-math.inf, math.inf]
    for index, value in enumerate(node.inputs[1:3]):
        if value is None:
            continue
        tensor = constant_tensor(value)
        if tensor is None or tensor.size != 1:
            return None
        bounds[index] = float(tensor.numpy().reshape(-1)[0])
    low, high = bounds
    if not low <= 0.0 <= high or low == high:
        return None
    tiny = any(0.0 < abs(bound) < SMALLEST_BOUND for bound in bounds)
    return None if tiny else (low, high)


def bias_elements(node: ir.Node) -> int | None:
    """Length of the constant bias of a Conv or Gemm; 0 without one, None if it is no vector."""
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return 0
    tensor = constant_tensor(value)
    if tensor is None or tensor.dtype != ir.DataType.FLOAT:
        return None
    shape = dimensions(tensor)
    return tensor.size if shape and tensor.size == shape[-1] else None


def _refuse_float_type(node: ir.Node) -> str | None:
    tensor = constant_tensor(node.inputs[1])
    if tensor is None:
        return "its weight is not constant"
    if tensor.dtype != ir.DataType.FLOAT:
        return f"integer kernels take float32 models; the weight is {tensor.dtype.name.lower()}"
    return None


def refuse_convolution(node: ir.Node) -> str | None:
    """Conv with a constant float32 kernel and a constant bias."""
    reason = _refuse_float_type(node)
    if reason is not None:
        return reason
    channels = dimensions(tensor)[0] if (tensor := constant_tensor(node.inputs[1])) else 0
    return None if bias_elements(node) in (0, channels) else "its bias is not a constant vector"


def refuse_gemm(node: ir.Node) -> str | None:
    """Gemm that is x W + b and no more."""
    reason = _refuse_float_type(node)
    if reason is not None:
        return reason
    if is_set(node, "transA"):
        return "the integer kernel cannot transpose the activation"
    if float_attribute(node, "alpha", 1.0) != 1.0 or float_attribute(node, "beta", 1.0) != 1.0:
        return "the integer kernel takes alpha and beta of 1 only"
    tensor = constant_tensor(node.inputs[1])
    shape = () if tensor is None else dimensions(tensor)
    if len(shape) != 2:
        return "its weight is no matrix"
    columns = shape[0] if is_set(node, "transB") else shape[1]
    return None if bias_elements(node) in (0, columns) else "its bias is not a constant vector"


def refuse_matmul(node: ir.Node) -> str | None:
    """MatMul by a constant float32 matrix on the right."""
    reason = _refuse_float_type(node)
    if reason is not None:
        return reason
    tensor = constant_tensor(node.inputs[1])
    return None if tensor is not None and len(tensor.shape) == 2 else "its weight is no matrix"


def refuse_constant_operand(node: ir.Node) -> str | None:
    """Arithmetic between activations."""
    if any(constant_tensor(value) is not None for value in node.inputs):
        return "one operand is constant"
    return None


def refuse_pooling(node: ir.Node) -> str | None:
    """MaxPool without indices."""
    return "gives indices, too" if len(node.outputs) > 1 and node.outputs[1].uses() else None


def refuse_resize(node: ir.Node) -> str | None:
    """Resize that only picks neighbours: the runtime mixes them in float."""
    attribute = node.attributes.get("mode")
    mode = "nearest" if attribute is None else attribute.as_string()
    if mode != "nearest":
        return f"no integer kernel for {mode} interpolation"
    coordinates = node.attributes.get("coordinate_transformation_mode")
    if coordinates is not None and coordinates.as_string() == "tf_crop_and_resize":
        return "fills with a value of its own"
    return None


def refuse_nothing(_node: ir.Node) -> str | None:
    """Movements that every kernel can do."""
    return None


def input_channels(node: ir.Node) -> tuple[int, int] | None:
    """Size and axis of the activation along which a layer with a constant weight sums.

    The axis is the channel axis of Conv and ConvTranspose and the last axis of MatMul and Gemm.
    """
    tensor = constant_tensor(node.inputs[1]) if len(node.inputs) > 1 else None
    if tensor is None or node.domain or len(tensor.shape) < 2:
        return None
    shape = dimensions(tensor)
    if node.op_type == "Conv":
        return shape[1] * int_attribute(node, "group", 1), 1
    if node.op_type == "ConvTranspose":
        return shape[0], 1
    if node.op_type == "Gemm":
        size = shape[1] if is_set(node, "transB") else shape[0]
        return size, 0 if is_set(node, "transA") else 1
    return (shape[-2], -1) if node.op_type == "MatMul" else None


CALIBRATED_RULES: tuple[CalibratedRule, ...] = (
    CalibratedRule("Conv", Behaviour.CONVOLUTION, refuse_convolution, 1),
    CalibratedRule("MatMul", Behaviour.PRODUCT, refuse_matmul, 1),
    CalibratedRule("Gemm", Behaviour.PRODUCT, refuse_gemm, 1),
    CalibratedRule("Add", Behaviour.ELEMENTWISE, refuse_constant_operand),
    CalibratedRule("Mul", Behaviour.ELEMENTWISE, refuse_constant_operand),
    CalibratedRule("Concat", Behaviour.ELEMENTWISE, refuse_constant_operand),
    CalibratedRule("Sigmoid", Behaviour.ELEMENTWISE, refuse_nothing),
    CalibratedRule("LeakyRelu", Behaviour.ELEMENTWISE, refuse_nothing),
    CalibratedRule("GlobalAveragePool", Behaviour.ELEMENTWISE, refuse_nothing),
    CalibratedRule("MaxPool", Behaviour.MOVEMENT, refuse_pooling),
    CalibratedRule("Resize", Behaviour.MOVEMENT, refuse_resize),
    CalibratedRule("Reshape", Behaviour.MOVEMENT, refuse_nothing),
    CalibratedRule("Flatten", Behaviour.MOVEMENT, refuse_nothing),
    CalibratedRule("Transpose", Behaviour.MOVEMENT, refuse_nothing),
    CalibratedRule("Squeeze", Behaviour.MOVEMENT, refuse_nothing),
    CalibratedRule("Unsqueeze", Behaviour.MOVEMENT, refuse_nothing),
    CalibratedRule("Slice", Behaviour.MOVEMENT, refuse_nothing),
    CalibratedRule("Gather", Behaviour.MOVEMENT, refuse_nothing),
    CalibratedRule("Split", Behaviour.MOVEMENT, refuse_nothing),
)

_RULES = {rule.operator: rule for rule in CALIBRATED_RULES}
