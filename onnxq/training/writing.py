"""Putting what was learned back into the graph that it came from."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import torch

from onnxq.graph.constants import constant_tensor
from onnxq.training.quantities import Quantities
from onnxq.training.tensors import to_numpy

_FOUR_BITS = {ir.DataType.INT4: ml_dtypes.int4, ir.DataType.UINT4: ml_dtypes.uint4}


def write_back(quantities: Quantities) -> None:
    """Replace the constants of the graph by what is learned; nodes and names stay.

    The numbers are those that the engine computed with, so the file and the simulation agree.
    """
    with torch.no_grad():
        computed = quantities.compute()
    for value, tensor in computed.items():
        replace_constant(value, tensor)


def replace_constant(value: ir.Value, tensor: torch.Tensor) -> None:
    """Give an initializer other elements of the type that it has."""
    before = constant_tensor(value)
    if before is None:
        raise ValueError(f"'{value.name}' is not a constant")
    dtype = _FOUR_BITS.get(before.dtype) or before.dtype.numpy()
    array = to_numpy(tensor).reshape(before.shape.numpy())
    if np.dtype(dtype).kind in "iu" or before.dtype in _FOUR_BITS:
        array = np.rint(array.astype(np.float64))
        if before.dtype not in _FOUR_BITS:
            limits = np.iinfo(dtype)
            array = np.clip(array, limits.min, limits.max)
    new = ir.Tensor(array.astype(dtype), dtype=before.dtype, name=value.name)
    producer = value.producer()
    if producer is None:
        value.const_value = new
    else:
        producer.attributes["value"] = ir.AttrTensor("value", new)
