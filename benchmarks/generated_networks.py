"""Networks of real sizes with random weights, and samples for them: what a calibration runs.

    python benchmarks/generated_networks.py NAME FOLDER COUNT...   (NAME: resnet, encoder or wide)

writes FOLDER/model.onnx and, for each COUNT, a folder FOLDER/COUNT with samples, so many that onnxq
calibrates on COUNT of them. As a program it serves memory_static.py, which must stay small.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from generated import OPSET, SEED
from onnx import TensorProto, helper, numpy_helper

from onnxq.samples import held_back

INPUT, OUTPUT = "input", "output"
RESNET_STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))
"""Blocks and channels of ResNet-50."""

ENCODER_LAYERS, HIDDEN, HEADS, INNER, SEQUENCE = 6, 768, 12, 3072, 128
WIDE_LAYERS, WIDE_CHANNELS = 4, 32


@dataclass
class _Graph:
    """Nodes and weights, as they come."""

    generator: np.random.Generator = field(default_factory=lambda: np.random.default_rng(SEED))
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[TensorProto] = field(default_factory=list)

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Append a node; the name of its output."""
        name = f"{operator}_{len(self.nodes)}"
        output = output or f"value_{len(self.nodes)}"
        node = helper.make_node(operator, list(inputs), [output], name=name, **attributes)
        self.nodes.append(node)
        return output

    def constant(self, content: Any, dtype: type = np.float32) -> str:
        """Append an initializer; its name."""
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(content, dtype), name))
        return name

    def weight(self, *shape: int, reduction: int, gain: float = 2.0) -> str:
        """Append random numbers that keep activations at their size."""
        numbers = self.generator.standard_normal(shape, dtype=np.float32)
        return self.constant(numbers * np.sqrt(gain / reduction))

    def save(self, path: Path, shape: tuple[int, ...], classes: tuple[int, ...]) -> None:
        """Write the model; the batch is free."""
        graph = helper.make_graph(
            self.nodes,
            "generated",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", *shape])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", *classes])],
            self.initializers,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def write_resnet(path: Path) -> None:
    """A CNN with the layers of ResNet-50, BatchNormalization folded."""
    graph = _Graph()
    value = graph.add("Relu", _add_conv(graph, INPUT, 3, 64, 7, 2))
    value = graph.add("MaxPool", value, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for stage, (blocks, width) in enumerate(RESNET_STAGES):
        for block in range(blocks):
            stride = 2 if block == 0 and stage > 0 else 1
            value = _add_bottleneck(graph, value, channels, width, stride)
            channels = 4 * width
    value = graph.add("Flatten", graph.add("GlobalAveragePool", value))
    weight = graph.weight(1000, channels, reduction=channels, gain=1.0)
    graph.add("Gemm", value, weight, graph.constant(np.zeros(1000)), output=OUTPUT, transB=1)
    graph.save(path, (3, 224, 224), (1000,))


def write_wide(path: Path) -> None:
    """A small CNN whose every activation is large: pictures of 1024 x 1024 in 32 channels."""
    graph = _Graph()
    value, channels = INPUT, 3
    for _ in range(WIDE_LAYERS):
        value = graph.add("Relu", _add_conv(graph, value, channels, WIDE_CHANNELS, 3, 1))
        channels = WIDE_CHANNELS
    graph.add("Flatten", graph.add("GlobalAveragePool", value), output=OUTPUT)
    graph.save(path, (3, 1024, 1024), (channels,))


def write_encoder(path: Path) -> None:
    """An encoder with the layers of BERT, six of them; embedded tokens are its input."""
    graph = _Graph()
    value = INPUT
    for _ in range(ENCODER_LAYERS):
        attended = _add_attention(graph, value)
        value = _add_normalization(graph, graph.add("Add", attended, value))
        inner = _add_gelu(graph, _add_linear(graph, value, HIDDEN, INNER))
        shrunk = _add_linear(graph, inner, INNER, HIDDEN)
        value = _add_normalization(graph, graph.add("Add", shrunk, value))
    graph.add("Identity", value, output=OUTPUT)
    graph.save(path, (SEQUENCE, HIDDEN), (SEQUENCE, HIDDEN))


@dataclass(frozen=True)
class Network:
    """A network that can be written.

    Attributes:
        label: for people.
        write: writes the model to a path.
        shape: of one sample.
    """

    label: str
    write: Callable[[Path], None]
    shape: tuple[int, ...]


RESNET = Network("CNN of the size of ResNet-50", write_resnet, (1, 3, 224, 224))
ENCODER = Network("encoder of the size of BERT, 6 layers", write_encoder, (1, SEQUENCE, HIDDEN))
WIDE = Network("CNN with large activations", write_wide, (1, 3, 1024, 1024))
NETWORKS = {"resnet": RESNET, "encoder": ENCODER, "wide": WIDE}


def main() -> None:
    """Run the command line."""
    name, folder, *counts = sys.argv[1:]
    network = NETWORKS[name]
    network.write(Path(folder) / "model.onnx")
    for count in counts:
        write_samples(Path(folder) / count, network.shape, count_files(int(count)))


def count_files(calibrated: int) -> int:
    """How many samples onnxq needs to calibrate on ``calibrated`` of them; it holds back others."""
    count = 0
    while sum(not held_back(index) for index in range(count)) < calibrated:
        count += 1
    return count


def write_samples(folder: Path, shape: tuple[int, ...], count: int) -> None:
    """Write ``count`` samples of random numbers as .npz files."""
    folder.mkdir()
    generator = np.random.default_rng(SEED)
    for index in range(count):
        sample = generator.standard_normal(shape, dtype=np.float32)
        np.savez(folder / f"{index:04}.npz", **{INPUT: sample})


def _add_conv(
    graph: _Graph, value: str, channels: int, filters: int, size: int, stride: int
) -> str:
    reduction = channels * size * size
    return graph.add(
        "Conv",
        value,
        graph.weight(filters, channels, size, size, reduction=reduction),
        graph.constant(graph.generator.standard_normal(filters) / 10),
        kernel_shape=[size, size],
        strides=[stride, stride],
        pads=[size // 2] * 4,
    )


def _add_bottleneck(graph: _Graph, value: str, channels: int, width: int, stride: int) -> str:
    inner = graph.add("Relu", _add_conv(graph, value, channels, width, 1, 1))
    inner = graph.add("Relu", _add_conv(graph, inner, width, width, 3, stride))
    inner = _add_conv(graph, inner, width, 4 * width, 1, 1)
    if channels != 4 * width:
        value = _add_conv(graph, value, channels, 4 * width, 1, stride)
    return graph.add("Relu", graph.add("Add", inner, value))


def _add_linear(graph: _Graph, value: str, inputs: int, outputs: int) -> str:
    product = graph.add("MatMul", value, graph.weight(inputs, outputs, reduction=inputs, gain=1.0))
    return graph.add("Add", product, graph.constant(np.zeros(outputs)))


def _add_attention(graph: _Graph, value: str) -> str:
    size = HIDDEN // HEADS
    split = graph.constant([0, 0, HEADS, size], np.int64)
    heads = [
        graph.add("Reshape", _add_linear(graph, value, HIDDEN, HIDDEN), split) for _ in range(3)
    ]
    query, keys, values = (
        graph.add("Transpose", one, perm=perm)
        for one, perm in zip(heads, ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)), strict=True)
    )
    scores = graph.add("Div", graph.add("MatMul", query, keys), graph.constant(np.sqrt(size)))
    mixed = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), values)
    mixed = graph.add("Transpose", mixed, perm=(0, 2, 1, 3))
    joined = graph.add("Reshape", mixed, graph.constant([0, 0, HIDDEN], np.int64))
    return _add_linear(graph, joined, HIDDEN, HIDDEN)


def _add_normalization(graph: _Graph, value: str) -> str:
    scale, shift = graph.constant(np.ones(HIDDEN)), graph.constant(np.zeros(HIDDEN))
    return graph.add("LayerNormalization", value, scale, shift, axis=-1, epsilon=1e-5)


def _add_gelu(graph: _Graph, value: str) -> str:
    error = graph.add("Erf", graph.add("Div", value, graph.constant(np.sqrt(2))))
    product = graph.add("Mul", value, graph.add("Add", error, graph.constant(1)))
    return graph.add("Mul", product, graph.constant(0.5))


if __name__ == "__main__":
    main()
