"""What a model takes, read from its graph: without loading it into the runtime."""

from __future__ import annotations

import numpy.typing as npt
import onnx_ir as ir

from onnxq.runtime.session import InputSignature


def read_signatures(model: ir.Model) -> tuple[InputSignature, ...]:
    """The inputs that a caller has to feed, in order."""
    return tuple(
        InputSignature(value.name or "", _numpy_type(value), _sizes(value))
        for value in model.graph.inputs
        if value.name not in model.graph.initializers
    )


def _numpy_type(value: ir.Value) -> npt.DTypeLike | None:
    if not isinstance(value.type, ir.TensorType):
        return None
    return None if value.dtype is None else value.dtype.numpy()


def _sizes(value: ir.Value) -> tuple[int | str | None, ...]:
    if value.shape is None:
        return ()
    return tuple(size if isinstance(size, int) else size.value for size in value.shape)
