"""Small models for tests, in the textual form of ONNX where that reads best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper, parser

FloatArray = npt.NDArray[np.float32]


def float_weight(rng: np.random.Generator, shape: Sequence[int]) -> FloatArray:
    """A weight as training leaves it: Gaussian, its size falling with the number of inputs."""
    fan_in = max(1, int(np.prod(shape)) // max(shape, default=1))
    return (rng.standard_normal(tuple(shape)) / np.sqrt(fan_in)).astype(np.float32)


def parse(text: str, weights: Mapping[str, npt.NDArray[Any]] | None = None) -> onnx.ModelProto:
    """A model in the textual form, with ``weights`` as initializers of its main graph."""
    model = parser.parse_model(text)
    model.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in (weights or {}).items()
    )
    return model


def make_model(
    nodes: str,
    inputs: str,
    outputs: str,
    initializers: Mapping[str, npt.NDArray[Any]] | None = None,
    *,
    opset: int = 17,
    ir_version: int = 8,
    contrib: bool = False,
    functions: str = "",
) -> onnx.ModelProto:
    """A model of one graph.

    >>> make_model("y = Relu(x)", "float[1] x", "float[1] y").graph.node[0].op_type
    'Relu'
    """
    domains = f'"" : {opset}'
    if contrib:
        domains += ', "com.microsoft" : 1'
    if functions:
        domains += ', "local" : 1'
    header = f"<ir_version: {ir_version}, opset_import: [{domains}]>"
    return parse(
        f"{header} main ({inputs}) => ({outputs}) {{ {nodes} }} {functions}", initializers or {}
    )


def matmul_model(
    weight: npt.NDArray[Any], *, opset: int = 17, ir_version: int = 8
) -> onnx.ModelProto:
    """``y = x w`` with a matrix ``w``; the node is called 'mm'."""
    kind = {"float32": "float", "float64": "double", "float16": "float16"}[weight.dtype.name]
    rows, columns = weight.shape
    return make_model(
        "[mm] y = MatMul(x, w)",
        f"{kind}[N, {rows}] x",
        f"{kind}[N, {columns}] y",
        {"w": weight},
        opset=opset,
        ir_version=ir_version,
    )


def save(model: onnx.ModelProto, path: Path) -> Path:
    """Write a model; returns ``path``."""
    path.write_bytes(model.SerializeToString())
    return path


def save_external(model: onnx.ModelProto, path: Path, location: str = "weights.bin") -> Path:
    """Write a model whose initializers are all in another file; returns ``path``."""
    onnx.save_model(
        model,
        str(path),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=location,
        size_threshold=0,
    )
    return path


def to_ir(model: onnx.ModelProto) -> ir.Model:
    """The same model as onnxq sees it."""
    return ir.from_proto(model)


def constant_tensor_proto(array: npt.NDArray[Any], name: str = "") -> onnx.TensorProto:
    """A tensor as initializers and Constant nodes hold it."""
    return numpy_helper.from_array(array, name)


def constant_node(array: npt.NDArray[Any], output: str) -> onnx.NodeProto:
    """A Constant node."""
    return helper.make_node(
        "Constant", [], [output], name=f"{output}_node", value=constant_tensor_proto(array)
    )
