"""Where integers begin to pay: 1x1 convolutions between float nodes, by their channels.

    python benchmarks/crossing.py

Each convolution stands between HardSigmoid and Mul, which stay float; both its sides are borders:
channels / 2 multiplications for each element that is narrowed or widened. The target's
``crossing_multiplications`` is where the ratio passes 1.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper, parser

import onnxq
from onnxq.targets import presets

CHANNELS = (24, 48, 64, 96, 128, 192, 256)
SIZES = (56, 14)
LAYERS = 4
ROUNDS = 25


def write_model(path: Path, channels: int, size: int) -> None:
    """A chain of convolutions and hard-swish."""
    rng = np.random.default_rng(0)
    nodes, value = [], "x"
    for layer in range(LAYERS):
        nodes.append(
            f"c{layer} = Conv({value}, w{layer}) "
            f"h{layer} = HardSigmoid<alpha = 0.1666667, beta = 0.5>(c{layer}) "
            f"m{layer} = Mul(c{layer}, h{layer})"
        )
        value = f"m{layer}"
    shape = f"float[1, {channels}, {size}, {size}]"
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> '
        f"chain ({shape} x) => ({shape} y) {{ {' '.join(nodes)} y = Neg({value}) }}"
    )
    for layer in range(LAYERS):
        weight = rng.standard_normal((channels, channels, 1, 1)) * 1.5 / np.sqrt(channels)
        model.graph.initializer.append(
            numpy_helper.from_array(weight.astype(np.float32), f"w{layer}")
        )
    onnx.save(model, path)


def measure(paths: tuple[Path, Path], feeds: dict[str, np.ndarray]) -> tuple[float, float]:
    """Median CPU seconds of each model, one thread, in turn."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = [
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for path in paths
    ]
    times: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for index, session in enumerate(sessions):
            start = time.thread_time()
            for _ in range(5):
                session.run(None, feeds)
            times[index].append((time.thread_time() - start) / 5)
    return float(np.median(times[0])), float(np.median(times[1]))


def main() -> None:
    """Print one line for each size and width."""
    presets.TARGETS = tuple(replace(one, crossing_multiplications=0) for one in presets.TARGETS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in SIZES:
            for channels in CHANNELS:
                feeds = {"x": np.random.default_rng(1).standard_normal((1, channels, size, size))}
                feeds = {key: value.astype(np.float32) for key, value in feeds.items()}
                (folder / "samples").mkdir(exist_ok=True)
                np.savez(folder / "samples" / "0.npz", **feeds)
                paths = folder / "float.onnx", folder / "int8.onnx"
                write_model(paths[0], channels, size)
                onnxq.quantize_static(
                    paths[0], folder / "samples", paths[1], force=True, method="minmax"
                )
                plain, quantized = measure(paths, feeds)
                print(
                    f"{size}x{size}  {channels:4} channels  {channels // 2:4} multiplications an "
                    f"element  {plain / quantized:.2f}x"
                )


if __name__ == "__main__":
    main()
