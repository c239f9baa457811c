"""Weights in a file instead of in memory, while a model is worked on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

WEIGHTS_NAME = "onnxq-offloaded-weights"
OFFLOADED_TENSOR_BYTES = 1024
"""Smaller tensors stay in memory."""


def offload_weights(model: ir.Model, folder: Path) -> None:
    """Move the weights of a model to a file, from which each is mapped when it is looked at.

    A runtime that loads a copy of the model, saved into the same folder, reads the same file.

    Args:
        model: changed in place; tensors that are in files already stay there.
        folder: must outlive the model.

    Raises:
        OSError: the file cannot be written.
    """
    values = [
        value
        for graph in model.graphs()
        for value in graph.initializers.values()
        if _is_in_memory(value.const_value)
    ]
    tensors = [value.const_value for value in values if value.const_value is not None]
    moved = ir.external_data.convert_tensors_to_external(
        tensors, folder, WEIGHTS_NAME, max_workers=1
    )
    for value, tensor in zip(values, moved, strict=True):
        value.const_value = tensor
    for graph in model.graphs():
        for value in graph.initializers.values():
            value.const_value = _copy_small(value.const_value)


def offload_array(array: np.ndarray[Any, Any], folder: Path, *, name: str) -> ir.TensorProtocol:
    """A tensor in the file of weights of a folder, at its end; small ones stay in memory.

    Args:
        array: its elements.
        folder: must outlive the tensor.
        name: of the tensor.

    Raises:
        OSError: the file cannot be written.
    """
    if array.nbytes < OFFLOADED_TENSOR_BYTES:
        return ir.Tensor(array, name=name)
    with (folder / WEIGHTS_NAME).open("ab") as stream:
        offset = stream.tell()
        stream.write(np.ascontiguousarray(array).tobytes())
    return ir.ExternalTensor(
        WEIGHTS_NAME,
        offset,
        array.nbytes,
        ir.DataType.from_numpy(array.dtype),
        shape=ir.Shape(array.shape),
        name=name,
        base_dir=str(folder),
    )


def include_weights(model: ir.Model) -> None:
    """Make every weight that was moved a part of the model again, for when it is saved.

    Each is read only then, one after the other.
    """
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor) and tensor.location == WEIGHTS_NAME:
                value.const_value = _read_lazily(tensor)


def _read_lazily(tensor: ir.ExternalTensor) -> ir.TensorProtocol:
    def read() -> ir.TensorProtocol:
        elements = np.array(tensor.numpy())
        tensor.release()
        return ir.Tensor(elements, dtype=tensor.dtype)

    return ir.LazyTensor(read, dtype=tensor.dtype, shape=tensor.shape, name=tensor.name)


def _copy_small(tensor: ir.TensorProtocol | None) -> ir.TensorProtocol | None:
    """A tensor of its own: one read from a file keeps the memory of the whole file alive."""
    if not isinstance(tensor, ir.TensorProtoTensor) or tensor.dtype == ir.DataType.STRING:
        return tensor
    return ir.Tensor(np.array(tensor.numpy()), dtype=tensor.dtype, name=tensor.name)


def _is_in_memory(tensor: ir.TensorProtocol | None) -> bool:
    return (
        tensor is not None
        and not isinstance(tensor, ir.ExternalTensor)
        and tensor.nbytes >= OFFLOADED_TENSOR_BYTES
    )
