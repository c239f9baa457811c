"""The training engine: how far from onnxruntime, and what it costs a step.

Without a folder: the four sample models. With a folder of models and data as in README.md: those,
too. The step is compared with a module of torch that has the same layers and the same fake
quantizers.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from onnxq.errors import OnnxqError
from onnxq.graph.files import load_model
from onnxq.runtime.session import Session
from onnxq.training.binding import bind
from onnxq.training.fake_quantization import fake_quantize
from onnxq.training.interpreter import run
from onnxq.training.program import compile_model

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = 8


def find_models(folder: Path | None, data: Path | None) -> Iterator[tuple[str, Path, Path]]:
    """Name, model and samples of each."""
    for path in sorted((ROOT / "sample_models").glob("*.onnx")):
        samples = ROOT / "calib_data" / path.stem / "eval"
        # Not what the README's commands have written beside them.
        if samples.is_dir():
            yield path.stem, path, samples
    if folder is not None:
        for path in sorted(folder.glob("*/model.onnx")):
            yield path.parent.name, path, (data or folder) / path.parent.name / "eval"


def measure_errors(model: Path, samples: Path) -> tuple[float, float]:
    """Largest relative errors of any output, root mean squares, over a few samples.

    Of the engine beside onnxruntime, and of onnxruntime beside the engine in float64: where the
    second is as large, it is what float32 can do and not an error of the engine.
    """
    program, session = compile_model(load_model(model).model), Session(model, threads=1)
    exact = compile_model(load_model(model).model, real=torch.float64)
    sums: dict[str, list[float]] = {}
    names = [one.name for one in session.inputs]
    files = [file for file in sorted(samples.glob("*.npz")) if file.stem != "chain"]
    for file in files[:SAMPLES]:
        with np.load(file) as arrays:
            feeds = {name: arrays[name] for name in names}
        with torch.no_grad():
            measured, true = run(program, feeds), run(exact, feeds)
        for name, expected in zip(session.output_names, session.run(feeds), strict=True):
            wanted = np.asarray(expected, np.float64)
            total = sums.setdefault(name, [0.0, 0.0, 0.0])
            for at, other in enumerate((measured[name], true[name])):
                total[at] += float(np.square(other.double().numpy() - wanted).sum())
            total[2] += float(np.square(wanted).sum())
    found = [
        [(noise / max(signal, 1e-300)) ** 0.5 for noise in (engine, runtime)]
        for engine, runtime, signal in sums.values()
    ]
    return max(one[0] for one in found), max(one[1] for one in found)


class Block(nn.Module):
    """A convolution with fake-quantized weight, bias in float, ReLU6 and fake-quantized output."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int, *, clips: bool) -> None:
        super().__init__()
        self.layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)
        self.weight_scale = nn.Parameter(torch.full((outputs, 1, 1, 1), -4.0))
        self.scale = nn.Parameter(torch.tensor(-4.0))
        self.clips = clips

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """One layer."""
        scale = torch.exp(self.weight_scale)
        steps = (self.layer.weight / scale).clamp(-7, 7)
        weight = (steps + (steps.round() - steps).detach()) * scale
        value = nn.functional.conv2d(
            value, weight, self.layer.bias, padding=self.layer.padding, groups=self.layer.groups
        )
        value = value.clamp(0, 6) if self.clips else value
        low = 0.0 if self.clips else -128.0
        return fake_quantize(value, torch.exp(self.scale), low, low + 255)


def build_module() -> nn.Module:
    """Nine blocks, three of them depthwise, and a classifier."""
    layers: list[nn.Module] = []
    width = 32
    layers.append(Block(3, width, 3, 1, clips=True))
    for outputs in (32, 64, 64):
        layers.append(Block(width, 4 * width, 1, 1, clips=True))
        layers.append(Block(4 * width, 4 * width, 3, 4 * width, clips=True))
        layers.append(Block(4 * width, outputs, 1, 1, clips=False))
        width = outputs
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]
    return nn.Sequential(*layers)


def time_step(step: Callable[[], torch.Tensor], rounds: int) -> float:
    """Median processor time of a forward and a backward pass, in ms."""
    times = []
    for _ in range(rounds):
        began = time.process_time()
        step().square().mean().backward()
        times.append(time.process_time() - began)
    return 1e3 * statistics.median(times)


def compare_steps(folder: Path, rounds: int) -> tuple[float, float]:
    """Time of a step by the engine and by the module, in ms."""
    import onnx
    from onnx import helper, numpy_helper

    module = build_module()
    batch = np.random.default_rng(0).standard_normal((16, 3, 32, 32)).astype(np.float32)
    path = write_pairs(module, folder / "module.onnx", onnx, helper, numpy_helper)
    model = load_model(path).model
    quantities = bind(model)
    program = compile_model(model, trained=quantities.values)
    feeds, tensor = {"x": batch}, torch.from_numpy(batch)
    by_engine: list[float] = []
    by_module: list[float] = []
    for _ in range(rounds):
        by_engine.append(time_step(lambda: run(program, feeds, quantities.compute())["y"], 1))
        by_module.append(time_step(lambda: module(tensor), 1))
    return statistics.median(by_engine), statistics.median(by_module)


def write_pairs(module, path: Path, onnx, helper, numpy_helper) -> Path:  # type: ignore[no-untyped-def]
    """The same network as a graph with pairs, as static mode writes it."""
    nodes, constants = [], []

    def add(name: str, array: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(array, name))
        return name

    value = "x"
    for at, block in enumerate(one for one in module if isinstance(one, Block)):
        scale = np.exp(block.weight_scale.detach().numpy().reshape(-1))
        weight = block.layer.weight.detach().numpy()
        integers = np.clip(np.rint(weight / scale.reshape(-1, 1, 1, 1)), -7, 7).astype(np.int8)
        names = [add(f"w{at}", integers), add(f"s{at}", scale.astype(np.float32))]
        names.append(add(f"z{at}", np.zeros(len(scale), np.int8)))
        nodes.append(helper.make_node("DequantizeLinear", names, [f"d{at}"], axis=0))
        bias = add(f"b{at}", block.layer.bias.detach().numpy())
        pad = block.layer.padding[0]
        nodes.append(
            helper.make_node(
                "Conv",
                [value, f"d{at}", bias],
                [f"c{at}"],
                pads=[pad] * 4,
                group=block.layer.groups,
            )
        )
        value = f"c{at}"
        if block.clips:
            limits = [add(f"l{at}", np.float32(0)), add(f"h{at}", np.float32(6))]
            nodes.append(helper.make_node("Clip", [value, *limits], [f"r{at}"]))
            value = f"r{at}"
        numbers = [add(f"e{at}", np.float32(np.exp(-4.0)))]
        numbers.append(add(f"o{at}", np.uint8(0 if block.clips else 128)))
        nodes.append(helper.make_node("QuantizeLinear", [value, *numbers], [f"q{at}"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"q{at}", *numbers], [f"v{at}"]))
        value = f"v{at}"
    linear = module[-1]
    add("fw", linear.weight.detach().numpy())
    add("fb", linear.bias.detach().numpy())
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["pool"]))
    nodes.append(helper.make_node("Flatten", ["pool"], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", "fw", "fb"], ["y"], transB=1))
    real = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "module",
        [helper.make_tensor_value_info("x", real, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("y", real, ["N", 10])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="?", help="NAME/model.onnx")
    parser.add_argument("--data", type=Path, help="NAME/eval/*.npz, if elsewhere")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | engine from onnxruntime | onnxruntime from float64 |\n|---|---|---|")
    for name, model, samples in find_models(arguments.models, arguments.data):
        try:
            engine, runtime = measure_errors(model, samples)
            print(f"| {name} | {engine:.1e} | {runtime:.1e} |", flush=True)
        except OnnxqError as error:
            print(f"| {name} | {error} | |", flush=True)
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        engine, module = compare_steps(Path(folder), arguments.rounds)
    print(f"\nstep: engine {engine:.0f} ms, module {module:.0f} ms, {engine / module:.2f} times")


if __name__ == "__main__":
    main()
