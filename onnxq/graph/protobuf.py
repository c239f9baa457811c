"""The protobuf message in a model file, and what would go unnoticed in it later."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from onnxq.errors import InvalidModelError, UnsupportedModelError

_Body = onnx.GraphProto | onnx.FunctionProto

_LONG_DOMAIN = "ai.onnx"
_FIELDS: dict[int, tuple[int, str]] = {
    onnx.TensorProto.FLOAT: (32, "float_data"),
    onnx.TensorProto.DOUBLE: (64, "double_data"),
    onnx.TensorProto.FLOAT16: (16, "int32_data"),
    onnx.TensorProto.BFLOAT16: (16, "int32_data"),
    onnx.TensorProto.INT8: (8, "int32_data"),
    onnx.TensorProto.UINT8: (8, "int32_data"),
    onnx.TensorProto.INT16: (16, "int32_data"),
    onnx.TensorProto.UINT16: (16, "int32_data"),
    onnx.TensorProto.INT32: (32, "int32_data"),
    onnx.TensorProto.UINT32: (32, "uint64_data"),
    onnx.TensorProto.INT64: (64, "int64_data"),
    onnx.TensorProto.UINT64: (64, "uint64_data"),
    onnx.TensorProto.BOOL: (8, "int32_data"),
}
"""Bits of an element in raw data, and the field for elements that are stored one by one."""

_OTHER_KINDS = (
    (b"version https://git-lfs", "a pointer of Git LFS; fetch the file with git lfs pull"),
    (b"<!doctype html", "a web page, not an ONNX model; download the file itself"),
    (b"<html", "a web page, not an ONNX model; download the file itself"),
    (b"PK\x03\x04", "an archive, as torch and others write, not an ONNX model; export it as one"),
    (b"\x89HDF", "a file of HDF5, as Keras writes, not an ONNX model; export it as one"),
)
"""What files that are named for models begin with, in small letters but for the last two."""

_KNOWN_TYPES = frozenset(onnx.TensorProto.DataType.values()) - {onnx.TensorProto.UNDEFINED}


def parse_model(path: Path) -> onnx.ModelProto:
    """The protobuf message in ``path``; external weights are not read.

    Raises:
        InvalidModelError: the file is missing, unreadable, or not an ONNX model.
        UnsupportedModelError: it holds sparse tensors.
    """
    refuse_missing(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidModelError(f"{path}: cannot be read: {error.strerror}") from error
    if not content:
        raise InvalidModelError(f"{path}: the file is empty; export the model again")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except (DecodeError, RecursionError) as error:
        raise InvalidModelError(f"{path}: {_explain(content)}") from error
    if not proto.ir_version or not proto.HasField("graph") or not proto.opset_import:
        raise InvalidModelError(
            f"{path}: not an ONNX model (no graph, IR version or operator set in it)"
        )
    _use_short_domain(proto)
    _check_recursion(path, proto)
    for body in _iterate_bodies(proto):
        _check_names(path, body)
        _check_constants(path, body)
        if isinstance(body, onnx.GraphProto):
            _check_initializers(path, body)
    return proto


def _explain(content: bytes) -> str:
    """Why a file is no model."""
    start = content[:64].lstrip()
    for beginning, what in _OTHER_KINDS:
        if start.startswith(beginning) or start.lower().startswith(beginning):
            return f"is {what}"
    return "not an ONNX model, or cut short (protobuf does not parse); export or copy it again"


def refuse_missing(path: Path) -> None:
    """Refuse a path that no model can be read from; opening a pipe would wait for ever.

    Raises:
        InvalidModelError: there is no regular file.
    """
    try:
        if not path.exists():
            raise InvalidModelError(f"{path}: no such file; check the path of the model")
        if path.is_dir():
            raise InvalidModelError(f"{path}: is a directory; name the .onnx file inside it")
        if not path.is_file():
            raise InvalidModelError(f"{path}: is not a regular file; name an .onnx file")
    except (OSError, ValueError) as error:  # ValueError: no file is called so
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidModelError(f"{path}: cannot be read: {reason}") from error


def _use_short_domain(proto: onnx.ModelProto) -> None:
    """Call the standard operators '' everywhere; 'ai.onnx' is another name for the same."""
    for owner in (proto, *proto.functions):
        for imported in owner.opset_import:
            if imported.domain == _LONG_DOMAIN:
                imported.domain = ""
    for node in (node for body in _iterate_bodies(proto) for node in body.node):
        if node.domain == _LONG_DOMAIN:
            node.domain = ""


def _iterate_bodies(proto: onnx.ModelProto) -> Iterator[_Body]:
    """The main graph, the functions, and every graph inside their nodes."""
    return _iterate_inside(proto.graph, *proto.functions)


def _iterate_inside(*bodies: _Body) -> Iterator[_Body]:
    waiting = list(bodies)
    while waiting:
        body = waiting.pop()
        yield body
        waiting += [
            attribute.g
            for node in body.node
            for attribute in node.attribute
            if attribute.type == onnx.AttributeProto.GRAPH
        ]


def _check_recursion(path: Path, proto: onnx.ModelProto) -> None:
    """Refuse functions that call themselves: whoever expands them would never end."""
    calls = {
        (function.domain, function.name): {
            (node.domain, node.op_type) for body in _iterate_inside(function) for node in body.node
        }
        for function in proto.functions
    }
    while calls:
        ending = [name for name, called in calls.items() if called.isdisjoint(calls)]
        if not ending:
            raise InvalidModelError(
                f"{path}: local function '{min(calls)[1]}' calls itself, which ONNX does not "
                "allow; export the model again"
            )
        for name in ending:
            del calls[name]


def _check_names(path: Path, body: onnx.GraphProto | onnx.FunctionProto) -> None:
    """Refuse names that are no text, which protobuf hands out as bytes."""
    for node in body.node:
        for name in (node.op_type, node.domain, node.name, *node.input, *node.output):
            if not isinstance(name, str):
                raise InvalidModelError(f"{path}: the name {name!r} is not UTF-8; export it again")


def _check_constants(path: Path, body: onnx.GraphProto | onnx.FunctionProto) -> None:
    """Refuse what the IR cannot hold, or would only find out about when it reads the elements."""
    for node in body.node:
        for attribute in node.attribute:
            name = node.output[0] if node.output else "?"
            if attribute.type == onnx.AttributeProto.UNDEFINED:
                raise InvalidModelError(
                    f"{path}: attribute '{attribute.name}' of the node that makes '{name}' has no "
                    "type; export the model again"
                )
            if attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
                raise UnsupportedModelError(_describe_sparse(path, name))
            if attribute.type == onnx.AttributeProto.TENSOR and not attribute.ref_attr_name:
                _check_tensor(path, attribute.t, name)


def _check_initializers(path: Path, graph: onnx.GraphProto) -> None:
    for sparse in graph.sparse_initializer:
        raise UnsupportedModelError(_describe_sparse(path, sparse.values.name))
    for tensor in graph.initializer:
        _check_tensor(path, tensor, tensor.name)


def _describe_sparse(path: Path, name: str) -> str:
    return f"{path}: tensor '{name}' is sparse; save the model with dense tensors"


def _check_tensor(path: Path, tensor: onnx.TensorProto, name: str) -> None:
    if tensor.data_type not in _KNOWN_TYPES:
        raise InvalidModelError(
            f"{path}: tensor '{name}' is of the element type {tensor.data_type}, which ONNX does "
            "not have; export the model again"
        )
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.data_type not in _FIELDS:
        return
    bits, field = _FIELDS[tensor.data_type]
    elements = math.prod(tensor.dims)
    if tensor.HasField("raw_data"):
        unit, found, expected = "bytes", len(tensor.raw_data), -(-elements * bits // 8)
    else:
        unit, found, expected = "elements", len(getattr(tensor, field)), elements
    if found != expected:
        raise InvalidModelError(
            f"{path}: tensor '{name}' has {found} {unit} where its shape {list(tensor.dims)} "
            f"takes {expected}; export the model again"
        )
