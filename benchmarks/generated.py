"""Models made on the spot: chains of many small nodes, and one that is larger than memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SEED = 7
OPSET = 17
CHAIN_WIDTH = 64
ROWS_AT_A_TIME = 100


def write_chain(path: Path, nodes: int, width: int = CHAIN_WIDTH) -> None:
    """Write a chain of ``nodes`` nodes: MatMul, Add, Relu, MatMul, ... on small matrices."""
    generator = np.random.default_rng(SEED)
    made, initializers = [], []
    current = "input"
    for index in range(nodes):
        operator = ("MatMul", "Add", "Relu")[index % 3]
        inputs = [current]
        if operator != "Relu":
            shape = (width, width) if operator == "MatMul" else (width,)
            weight = generator.standard_normal(shape) * np.sqrt(2 / width)
            inputs.append(f"weight_{index}")
            initializers.append(numpy_helper.from_array(weight.astype(np.float32), inputs[1]))
        current = f"value_{index}"
        made.append(helper.make_node(operator, inputs, [current], name=f"node_{index}"))
    model = _make_model(made, initializers, current, width)
    path.write_bytes(model.SerializeToString())


def write_large_model(path: Path, *, matrices: int, width: int) -> int:
    """Write ``matrices`` square MatMul and Relu, the weights in a file beside ``path``.

    Memory stays at a few rows, whatever the size.

    Returns:
        Bytes of one matrix.
    """
    generator = np.random.default_rng(SEED)
    data_path = path.with_name(f"{path.name}.data")
    nodes, initializers = [], []
    matrix_bytes = width * width * 4
    with data_path.open("wb") as stream:
        for index in range(matrices):
            name = f"weight_{index}"
            initializers.append(
                _external_tensor(name, width, data_path.name, stream.tell(), matrix_bytes)
            )
            for row in range(0, width, ROWS_AT_A_TIME):
                rows = min(ROWS_AT_A_TIME, width - row)
                part = generator.standard_normal((rows, width), dtype=np.float32)
                stream.write((part * np.float32(np.sqrt(2 / width))).tobytes())
            source = "input" if index == 0 else f"relu_{index - 1}"
            nodes += [
                helper.make_node("MatMul", [source, name], [f"matmul_{index}"], name=f"mm_{index}"),
                helper.make_node("Relu", [f"matmul_{index}"], [f"relu_{index}"], name=f"r_{index}"),
            ]
    model = _make_model(nodes, initializers, f"relu_{matrices - 1}", width)
    path.write_bytes(model.SerializeToString())
    return matrix_bytes


def _external_tensor(name: str, width: int, location: str, offset: int, length: int) -> TensorProto:
    tensor = TensorProto(
        name=name,
        dims=(width, width),
        data_type=TensorProto.FLOAT,
        data_location=TensorProto.EXTERNAL,
    )
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _make_model(
    nodes: list[onnx.NodeProto], initializers: list[TensorProto], output: str, width: int
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "generated",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", width])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
