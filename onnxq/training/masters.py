"""The real weights behind the integers of a quantized model."""

from __future__ import annotations

import onnx_ir as ir
import torch

from onnxq.graph.constants import constant_tensor, dimensions, iterate_constants
from onnxq.training.tensors import to_torch
from onnxq.training.weights import iterate_weights

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
        elements, scale = constant_tensor(use.elements), constant_tensor(use.scale)
        if real is None or elements is None or scale is None:
            continue
        if dimensions(real) != dimensions(elements):
            continue
        weight = to_torch(real.numpy())
        integers = to_torch(elements.numpy()).to(torch.float32)
        dequantized = integers * to_torch(scale.numpy()).reshape(use.axes or ())
        difference = torch.linalg.vector_norm(dequantized - weight)
        if float(difference) <= _LARGEST_DIFFERENCE * float(torch.linalg.vector_norm(weight)):
            found[name] = weight
    return found
