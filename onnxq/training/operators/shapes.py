"""Shapes as numbers, and tensors made of a shape. All of these are exact integers on the CPU."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import torch

from onnxq.training.operators.call import Call, Inputs, Operator, Outputs, optional
from onnxq.training.tensors import TORCH_TYPES, to_integers, to_torch


def _shape(call: Call, inputs: Inputs) -> Outputs:
    sizes = list(inputs[0].shape)
    start, end = call.integer("start", 0), call.attributes.get("end")
    return (torch.tensor(sizes[start : None if end is None else int(end)], dtype=torch.int64),)


def _size(_call: Call, inputs: Inputs) -> Outputs:
    return (torch.tensor(inputs[0].numel(), dtype=torch.int64),)


def _constant_of_shape(call: Call, inputs: Inputs) -> Outputs:
    value = call.attributes.get("value", np.zeros(1, np.float32))
    filler = call.place(to_torch(np.asarray(value)).reshape(()))
    return (filler.expand(to_integers(inputs[0])).clone(),)


def _constant(call: Call, _inputs: Inputs) -> Outputs:
    for name, dtype in (
        ("value", None),
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
    ):
        if name in call.attributes:
            return (call.place(to_torch(np.asarray(call.attributes[name], dtype))),)
    raise ValueError(f"a Constant of {', '.join(call.attributes)}")


def _range(_call: Call, inputs: Inputs) -> Outputs:
    start, limit, delta = (one.item() for one in inputs)
    return (torch.arange(start, limit, delta, dtype=inputs[0].dtype),)


def _eye_like(call: Call, inputs: Inputs) -> Outputs:
    value, offset = inputs[0], call.integer("k", 0)
    wanted = call.attributes.get("dtype")
    dtype = value.dtype if wanted is None else TORCH_TYPES[ir.DataType(int(wanted))]
    rows, columns = value.shape
    difference = torch.arange(columns)[None, :] - torch.arange(rows)[:, None]
    return ((difference == offset).to(dtype).to(value.device),)


def _non_zero(_call: Call, inputs: Inputs) -> Outputs:
    return (torch.nonzero(inputs[0]).t().contiguous().cpu(),)


def _one_hot(call: Call, inputs: Inputs) -> Outputs:
    indices, depth, values = inputs
    count = int(depth.item())
    axis = call.integer("axis", -1)
    numbers = indices.to(torch.int64)
    chosen = torch.where(numbers < 0, numbers + count, numbers).unsqueeze(axis)
    sizes = [1] * chosen.dim()
    sizes[axis] = count
    hot = chosen == torch.arange(count, device=chosen.device).reshape(sizes)
    return (torch.where(hot, values[1], values[0]),)


def _trilu(call: Call, inputs: Inputs) -> Outputs:
    value, offset = inputs[0], optional(inputs, 1)
    diagonal = 0 if offset is None else int(offset.item())
    function = torch.triu if call.integer("upper", 1) else torch.tril
    return (function(value, diagonal),)


OPERATORS: Mapping[str, Operator] = {
    "Shape": _shape,
    "Size": _size,
    "ConstantOfShape": _constant_of_shape,
    "Constant": _constant,
    "Range": _range,
    "EyeLike": _eye_like,
    "NonZero": _non_zero,
    "OneHot": _one_hot,
    "Trilu": _trilu,
}
