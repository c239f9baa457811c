"""Planning in one line, for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from onnxq.plan import DynamicOptions, Plan, TensorPlan, parse_weight_type, plan_dynamic
from onnxq.targets import Target, find_target
from tests.models import FloatArray, make_model, to_ir

ORT = find_target("ort-cpu")
ONNX = find_target("onnx")
INEXACT = replace(ORT, adds_products_exactly=False)
"""As on x86 without VNNI."""


def plan(
    model: onnx.ModelProto, *, target: Target = ORT, weights: str = "int8", **options: Any
) -> Plan:
    """The plan of a model as it is, without simplification."""
    asked = DynamicOptions(weights=parse_weight_type(weights), **options)
    return plan_dynamic(to_ir(model), target, asked)


def plan_tensor(model: onnx.ModelProto, name: str = "w", **kwargs: Any) -> TensorPlan:
    """The decision about one tensor."""
    (found,) = (tensor for tensor in plan(model, **kwargs).tensors if tensor.name == name)
    return found


def forms(tensor: TensorPlan) -> dict[str, str]:
    """The form of each reader."""
    return {use.node: use.form.value for use in tensor.uses}


def conv_model(weight: FloatArray, *, group: int = 1, extra: int = 0) -> onnx.ModelProto:
    """A convolution 'conv' with the kernel 'k', and ``extra`` elements of a matrix beside it."""
    axes = ", ".join(["8"] * (weight.ndim - 2))
    weights = {"k": weight}
    nodes = f"[conv] c = Conv<group = {group}>(image, k)"
    inputs = f"float[1, {weight.shape[1] * group}, {axes}] image"
    outputs = "float[] c"
    if extra:
        weights["w"] = np.ones((extra // 16, 16), np.float32)
        nodes += " [mm] y = MatMul(x, w)"
        inputs += f", float[N, {extra // 16}] x"
        outputs += ", float[] y"
    return make_model(nodes, inputs, outputs, weights)
