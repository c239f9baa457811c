"""From numpy to torch and back; integers of shapes."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

Array = npt.NDArray[Any]

TORCH_TYPES = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.DOUBLE: torch.float64,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
    ir.DataType.INT8: torch.int8,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.INT16: torch.int16,
    ir.DataType.UINT16: torch.int32,
    ir.DataType.INT32: torch.int32,
    ir.DataType.UINT32: torch.int64,
    ir.DataType.INT64: torch.int64,
    ir.DataType.BOOL: torch.bool,
    ir.DataType.INT4: torch.int8,
    ir.DataType.UINT4: torch.uint8,
}
"""The type that holds the numbers of an ONNX type; wider where torch has no arithmetic for it."""

_WIDENED = {np.dtype(np.uint16): np.int32, np.dtype(np.uint32): np.int64}


def to_torch(array: Array) -> torch.Tensor:
    """A tensor of its own memory with the numbers of ``array``.

    >>> to_torch(np.float32([1, 2])).tolist()
    [1.0, 2.0]
    """
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    if array.dtype.kind == "V":  # 4-bit types of ml_dtypes
        array = array.astype(np.uint8 if array.dtype == ml_dtypes.uint4 else np.int8)
    wider = _WIDENED.get(array.dtype)
    # A copy, because arrays of mapped files cannot be written to, of which torch warns.
    return torch.from_numpy(np.array(array, dtype=wider, order="C"))


def to_numpy(tensor: torch.Tensor) -> Array:
    """An array with the numbers of ``tensor``.

    >>> to_numpy(torch.tensor([1.5])).tolist()
    [1.5]
    """
    detached = tensor.detach().cpu()
    if detached.dtype is torch.bfloat16:
        return np.asarray(detached.to(torch.float32).numpy(), ml_dtypes.bfloat16)
    array: Array = detached.numpy()
    return array


def to_integers(tensor: torch.Tensor) -> list[int]:
    """The elements of a tensor that holds a shape, axes or the like.

    >>> to_integers(torch.tensor([2, -1]))
    [2, -1]
    """
    return [int(value) for value in tensor.reshape(-1).tolist()]


def as_float(tensor: torch.Tensor) -> torch.Tensor:
    """Integers as float32, floats as they are: fake quantization keeps integers in floats."""
    return tensor if tensor.is_floating_point() else tensor.to(torch.float32)
