"""The real weights behind the integers of a quantized model."""

from __future__ import annotations

import onnx_ir as ir
import torch

from onnxq.graph.constants import constant_tensor, dimensions, iterate_constants
from onnxq.training.tensors import to_torch
from onnxq.training.weights import WeightUse, iterate_weights

_LARGEST_DIFFERENCE = 0.5
"""Share of a weight's norm by which its integers may differ from it, with two bits at the most."""


def find_masters(model: ir.Model, float_model: ir.Model) -> dict[str, torch.Tensor]:
    """Float weights by the name of their integers.

    ``onnxq`` names integers after the weight that they came from; the numbers decide whether they
    did.

    Args:
        model: quantized.
        float_model: simplified, as it was before it was quantized.
    """
    floats = {
        constant.value.name or "": constant.tensor
        for constant in iterate_constants(float_model)
        if constant.tensor.dtype == ir.DataType.FLOAT
    }
    found = {}
    for use in iterate_weights(model):
        name = use.elements.name or ""
        real = floats.get(name.rpartition("_")[0])
        dequantized = None if real is None else dequantize(use)
        if real is None or dequantized is None or dimensions(real) != tuple(dequantized.shape):
            continue
        weight = to_torch(real.numpy())
        difference = torch.linalg.vector_norm(dequantized - weight)
        if float(difference) <= _LARGEST_DIFFERENCE * float(torch.linalg.vector_norm(weight)):
            found[name] = weight
    return found


def dequantize(use: WeightUse) -> torch.Tensor | None:
    """The real numbers that integers stand for; None where their scale is not known."""
    elements, scale = constant_tensor(use.elements), constant_tensor(use.scale)
    if elements is None or scale is None:
        return None
    steps = to_torch(elements.numpy()).to(torch.float32)
    zero_point = constant_tensor(use.zero_point)
    if zero_point is not None:
        steps = steps - to_torch(zero_point.numpy()).to(torch.float32).reshape(use.axes)
    return steps * to_torch(scale.numpy()).reshape(use.axes)
