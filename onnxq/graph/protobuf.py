"""The protobuf message in a model file, and what would go unnoticed in it later."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from onnxq.errors import InvalidModelError, UnsupportedModelError

_LONG_DOMAIN = "ai.onnx"
_BITS: dict[int, int] = {
    onnx.TensorProto.FLOAT: 32,
    onnx.TensorProto.DOUBLE: 64,
    onnx.TensorProto.FLOAT16: 16,
    onnx.TensorProto.BFLOAT16: 16,
    onnx.TensorProto.INT8: 8,
    onnx.TensorProto.UINT8: 8,
    onnx.TensorProto.INT16: 16,
    onnx.TensorProto.UINT16: 16,
    onnx.TensorProto.INT32: 32,
    onnx.TensorProto.UINT32: 32,
    onnx.TensorProto.INT64: 64,
    onnx.TensorProto.UINT64: 64,
    onnx.TensorProto.BOOL: 8,
}


def parse_model(path: Path) -> onnx.ModelProto:
    """The protobuf message in ``path``; external weights are not read.

    Raises:
        InvalidModelError: the file is missing, unreadable, or not an ONNX model.
        UnsupportedModelError: it holds sparse tensors.
    """
    try:
        if not path.exists():
            raise InvalidModelError(f"{path}: no such file; check the path of the model")
        if path.is_dir():
            raise InvalidModelError(f"{path}: is a directory; name the .onnx file inside it")
        content = path.read_bytes()
    except OSError as error:
        raise InvalidModelError(f"{path}: cannot be read: {error.strerror}") from error
    if not content:
        raise InvalidModelError(f"{path}: the file is empty; export the model again")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except (DecodeError, RecursionError) as error:
        raise InvalidModelError(
            f"{path}: not an ONNX model, or cut short (protobuf does not parse); "
            "export or copy it again"
        ) from error
    if not proto.ir_version or not proto.HasField("graph") or not proto.opset_import:
        raise InvalidModelError(
            f"{path}: not an ONNX model (no graph, IR version or operator set in it)"
        )
    _use_short_domain(proto)
    for graph in _iterate_graphs(proto.graph):
        _check_tensors(path, graph)
    return proto


def _use_short_domain(proto: onnx.ModelProto) -> None:
    """Call the standard operators '' everywhere; 'ai.onnx' is another name for the same."""
    for owner in (proto, *proto.functions):
        for imported in owner.opset_import:
            if imported.domain == _LONG_DOMAIN:
                imported.domain = ""
    owners = (*_iterate_graphs(proto.graph), *proto.functions)
    for node in (node for owner in owners for node in owner.node):
        if node.domain == _LONG_DOMAIN:
            node.domain = ""


def _iterate_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _iterate_graphs(attribute.g)


def _check_tensors(path: Path, graph: onnx.GraphProto) -> None:
    """Refuse what the IR cannot hold, or would only find out about when it reads the elements."""
    sparse = [tensor.values.name for tensor in graph.sparse_initializer]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
                sparse.append(node.output[0])
            elif attribute.type == onnx.AttributeProto.TENSOR:
                _check_length(path, attribute.t, node.output[0] if node.output else "?")
    if sparse:
        raise UnsupportedModelError(
            f"{path}: tensor '{sparse[0]}' is sparse; save the model with dense tensors"
        )
    for tensor in graph.initializer:
        _check_length(path, tensor, tensor.name)


def _check_length(path: Path, tensor: onnx.TensorProto, name: str) -> None:
    if not tensor.HasField("raw_data") or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return
    bits = _BITS.get(int(tensor.data_type))
    if bits is None:
        return
    expected = -(-math.prod(tensor.dims) * bits // 8)
    if len(tensor.raw_data) != expected:
        raise InvalidModelError(
            f"{path}: tensor '{name}' has {len(tensor.raw_data)} bytes where its shape "
            f"{list(tensor.dims)} takes {expected}; export the model again"
        )
