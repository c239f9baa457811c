"""Inputs from the test data that come with models of the ONNX zoo: one folder a sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
import onnx.numpy_helper

from onnxq.errors import DataError
from onnxq.runtime.session import InputSignature
from onnxq.samples.arrays import refuse_large
from onnxq.samples.fitting import Arrays


def load_test_set(folder: Path, files: Sequence[Path], inputs: Sequence[InputSignature]) -> Arrays:
    """The tensors in ``files``, for the inputs that they name, or else in their order.

    Args:
        folder: that they lie in, for messages.
        files: each a TensorProto.
        inputs: of the model.

    Raises:
        DataError: one cannot be read, or there are not as many as inputs.
    """
    refuse_large(folder, sum(_size(file) for file in files))
    tensors = [_read_tensor(file) for file in files]
    wanted = [one.name for one in inputs]
    names = [tensor.name for tensor in tensors]
    if len(set(names)) < len(names) or not set(names) <= set(wanted):
        # Exporters name tensors after the framework's variables, or not at all.
        if len(files) != len(inputs):
            raise DataError(
                f"{folder}: {len(files)} tensors called {names}; the model takes {len(inputs)}: "
                f"{'; '.join(map(str, inputs))}"
            )
        names = wanted
    arrays = {}
    for name, tensor, file in zip(names, tensors, files, strict=True):
        try:
            arrays[name] = onnx.numpy_helper.to_array(tensor)
        except Exception as error:  # malformed tensors raise many types
            raise DataError(f"{file}: cannot be read as an ONNX tensor: {error}") from error
    return arrays


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error


def _read_tensor(file: Path) -> onnx.TensorProto:
    tensor = onnx.TensorProto()
    try:
        tensor.ParseFromString(file.read_bytes())
    except Exception as error:  # protobuf has a type for each of its implementations
        raise DataError(f"{file}: cannot be read as an ONNX tensor: {error}") from error
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise DataError(f"{file}: its values are in another file, which is not read; store them in")
    return tensor
