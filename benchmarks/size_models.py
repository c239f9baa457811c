"""Models and samples for size.py.

    python benchmarks/size_models.py FOLDER large MATRICES WIDTH FILES
    python benchmarks/size_models.py FOLDER chain NODES

Writes large.onnx, its weights in files, and data; or chain.onnx and chain-data.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from generated import CHAIN_WIDTH, OPSET, SEED, write_chain
from onnx import TensorProto, helper

SAMPLES = 5


def main() -> None:
    """Run the command line."""
    folder, kind, *numbers = sys.argv[1:]
    sizes = [int(one) for one in numbers]
    if kind == "chain":
        write_chain(Path(folder) / "chain.onnx", sizes[0])
        write_samples(Path(folder) / "chain-data", CHAIN_WIDTH)
    else:
        write_large(Path(folder) / "large.onnx", *sizes)
        write_samples(Path(folder) / "data", sizes[1])


def write_large(path: Path, matrices: int, width: int, files: int) -> None:
    """Write a chain of MatMul and Relu; the weights of each part of it are in a file of its own."""
    generator = np.random.default_rng(SEED)
    pattern = generator.standard_normal((width, width), dtype=np.float32)
    pattern *= np.float32(np.sqrt(2 / width))
    nodes, tensors = [], []
    for index in range(matrices):
        location = f"weights_{index * files // matrices}.bin"
        offset = append(path.with_name(location), np.roll(pattern, index, axis=0))
        tensors.append(describe(f"w{index}", width, location, offset))
        given = "input" if index == 0 else f"relu{index - 1}"
        nodes += [
            helper.make_node("MatMul", [given, f"w{index}"], [f"mm{index}"], name=f"mm{index}"),
            helper.make_node("Relu", [f"mm{index}"], [f"relu{index}"], name=f"relu{index}"),
        ]
    kind = ["batch", width]
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, kind)],
        [helper.make_tensor_value_info(f"relu{matrices - 1}", TensorProto.FLOAT, kind)],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def append(path: Path, array: npt.NDArray[np.float32]) -> int:
    """Add an array to a file; returns where it begins."""
    with path.open("ab") as stream:
        begin = stream.tell()
        stream.write(np.ascontiguousarray(array).data)
        return begin


def describe(name: str, width: int, location: str, offset: int) -> onnx.TensorProto:
    """A matrix in a file."""
    tensor = TensorProto(
        name=name,
        dims=(width, width),
        data_type=TensorProto.FLOAT,
        data_location=TensorProto.EXTERNAL,
    )
    for key, value in (("location", location), ("offset", offset), ("length", 4 * width * width)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def write_samples(folder: Path, width: int) -> None:
    """A few samples of one row."""
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(SEED)
    for index in range(SAMPLES):
        row = generator.standard_normal((1, width), dtype=np.float32)
        np.savez(folder / f"{index}.npz", input=row)


if __name__ == "__main__":
    main()
