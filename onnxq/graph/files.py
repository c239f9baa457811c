"""Reading a model file, with every way in which it can be bad named."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from onnxq.errors import ExternalDataError, InvalidModelError, UnsupportedModelError
from onnxq.graph.protobuf import parse_model
from onnxq.graph.scopes import iterate_scopes

OLDEST_OPSET = 7


Stamp = tuple[int, int, int]
"""Inode, bytes, and time of the last change in nanoseconds."""


@dataclass(frozen=True)
class ModelFile:
    """A model as it was read.

    Attributes:
        path: where the file is.
        model: its graph; weights in external files stay there until they are looked at.
        external_files: names of the external data files, relative to the folder of the model.
        size_bytes: bytes of the file and of its external data files.
        stamps: what tells whether these files are still as they were read.
    """

    path: Path
    model: ir.Model
    external_files: tuple[str, ...]
    size_bytes: int
    stamps: tuple[Stamp, ...] = ()


def load_model(path: Path) -> ModelFile:
    """Read ``path``.

    Raises:
        InvalidModelError: the file is missing, unreadable, or not an ONNX model.
        ExternalDataError: external weights are missing, too short, or outside the folder.
        UnsupportedModelError: the operator set is older than 7 or not there at all.
    """
    stamp = _read_stamp(path)
    proto = parse_model(path)
    try:
        model = ir.from_proto(proto)
    except Exception as error:  # onnx-ir raises many types on malformed graphs
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if "Map types" in str(cause):
            raise UnsupportedModelError(
                f"{path}: has a map as input or output, which onnxq cannot handle; export it "
                "with tensors (skl2onnx: zipmap=False)"
            ) from error
        raise InvalidModelError(f"{path}: not a usable ONNX graph: {cause}") from error
    _check_opset(path, model)
    folder = path.resolve().parent
    tensors = list(iterate_external_tensors(model))
    for tensor in tensors:
        _check_external_tensor(path, folder, tensor)
        tensor.base_dir = folder
    files = tuple(sorted({os.fspath(tensor.location) for tensor in tensors}))
    stamps = (stamp, *(_read_stamp(folder / name) for name in files))
    return ModelFile(path, model, files, sum(size for _, size, _ in stamps), stamps)


def refuse_changed(file: ModelFile) -> None:
    """Refuse to go on with a model whose files are not as they were read.

    Raises:
        InvalidModelError: one has changed, or is gone.
    """
    folder = file.path.resolve().parent
    paths = (file.path, *(folder / name for name in file.external_files))
    for path, stamp in zip(paths, file.stamps, strict=True):
        if _read_stamp(path) != stamp:
            raise InvalidModelError(
                f"{path}: has changed while it was worked on; run again when it is complete"
            )


def _read_stamp(path: Path) -> Stamp:
    """Of a file; nonsense for one that is not there, which whoever reads it says."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return 0, 0, 0
    return status.st_ino, status.st_size, status.st_mtime_ns


def iterate_external_tensors(model: ir.Model) -> list[ir.ExternalTensor]:
    """Every tensor of the model that lives in another file, in any graph or attribute."""
    found: list[ir.ExternalTensor] = []
    for scope in iterate_scopes(model):
        found += [
            value.const_value
            for value in scope.graph.initializers.values()
            if isinstance(value.const_value, ir.ExternalTensor)
        ]
        for node in scope.graph:
            for attribute in node.attributes.values():
                if isinstance(attribute, ir.Attr) and isinstance(
                    attribute.value, ir.ExternalTensor
                ):
                    found.append(attribute.value)
    return found


def _check_opset(path: Path, model: ir.Model) -> None:
    version = model.opset_imports.get("")
    if version is None:
        raise UnsupportedModelError(
            f"{path}: imports no ai.onnx operator set; only models of standard operators "
            "can be quantized"
        )
    if version < OLDEST_OPSET:
        raise UnsupportedModelError(
            f"{path}: opset {version} is older than {OLDEST_OPSET}, the oldest that onnxruntime "
            "runs; export the model with a newer opset"
        )


def _check_external_tensor(path: Path, folder: Path, tensor: ir.ExternalTensor) -> None:
    where = f"{path}: tensor '{tensor.name}' is in external file '{tensor.location}'"
    location = Path(os.fspath(tensor.location))
    if location.is_absolute():
        raise ExternalDataError(f"{where}: absolute paths are refused; save the model again")
    try:
        target = (folder / location).resolve()
        exists = target.is_file()
    except (OSError, ValueError) as error:
        raise ExternalDataError(f"{where}: no usable file name: {error}") from error
    if not target.is_relative_to(folder):
        raise ExternalDataError(f"{where}: outside the folder of the model, which is refused")
    if not exists:
        raise ExternalDataError(f"{where}: no such file; copy it beside the model")
    if (tensor.offset or 0) < 0 or (tensor.length or 0) < 0:
        raise ExternalDataError(f"{where}: a negative offset or length; save the model again")
    end = (tensor.offset or 0) + (tensor.length if tensor.length is not None else tensor.nbytes)
    if target.stat().st_size < end:
        raise ExternalDataError(f"{where}: the file ends before byte {end}; copy it again")
    if tensor.length is not None and tensor.length < tensor.nbytes:
        raise ExternalDataError(
            f"{where}: {tensor.length} bytes are stored for a tensor of {tensor.nbytes}"
        )
