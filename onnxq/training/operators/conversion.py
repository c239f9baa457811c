"""Cast."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
import torch

from onnxq.training.operators.call import Call, Inputs, Operator, Outputs
from onnxq.training.tensors import TORCH_TYPES

_INTEGERS = frozenset({torch.int8, torch.uint8, torch.int16, torch.int32})


def _cast(call: Call, inputs: Inputs) -> Outputs:
    (value,) = inputs
    wanted = TORCH_TYPES[ir.DataType(call.integer("to", 1))]
    if value.requires_grad and wanted in _INTEGERS:
        # Integers of fake quantization, which are held in floats.
        return (value,)
    return (call.place(value.to(wanted)),)


def _cast_like(_call: Call, inputs: Inputs) -> Outputs:
    return (inputs[0].to(inputs[1].dtype),)


OPERATORS: Mapping[str, Operator] = {"Cast": _cast, "CastLike": _cast_like}
