"""Trains models and measures them on evaluation samples beside what static mode makes of them.

    python benchmarks/qat.py sample_models/cnn.onnx calib_data/cnn --weights 4 --activations 4

DATA holds calib/, eval/ and maybe labels.json. Each row is a model run by onnxruntime; simulation
is the training engine on the written file, with its quantized layers as the runtime's integer
kernels compute them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import onnxq
from onnxq.graph.files import load_model
from onnxq.runtime.session import Session
from onnxq.training.interpreter import run
from onnxq.training.program import compile_model


def read(folder: Path) -> list[tuple[str, dict[str, np.ndarray]]]:
    """Name and arrays of each evaluation sample."""
    found = []
    for file in sorted(folder.glob("*.npz")):
        if file.stem != "chain":
            with np.load(file) as arrays:
                found.append((file.stem, dict(arrays)))
    return found


def sqnr_db(expected: list[np.ndarray], measured: list[np.ndarray]) -> float:
    """Over all samples together."""
    signal = sum(float(np.square(one.astype(np.float64)).sum()) for one in expected)
    noise = sum(
        float(np.square(one.astype(np.float64) - other).sum())
        for one, other in zip(expected, measured, strict=True)
    )
    return 10 * np.log10(signal / max(noise, 1e-300))


def outputs_of(path: Path, samples: list[tuple[str, dict[str, np.ndarray]]]) -> list[np.ndarray]:
    """The first output for each sample, by onnxruntime."""
    session = Session(path, threads=1)
    names = [one.name for one in session.inputs]
    return [session.run({name: feeds[name] for name in names})[0] for _, feeds in samples]


def simulate(path: Path, samples: list[tuple[str, dict[str, np.ndarray]]]) -> list[np.ndarray]:
    """The first output for each sample, by the engine."""
    program = compile_model(load_model(path).model, exact=True)
    name = program.output_names[0]
    with torch.no_grad():
        return [run(program, feeds)[name].numpy() for _, feeds in samples]


def accuracy(
    outputs: list[np.ndarray], samples: list[tuple[str, dict[str, np.ndarray]]], labels: Path
) -> str:
    """Share of right classes in percent, where there are labels."""
    if not labels.is_file():
        return ""
    content = json.loads(labels.read_text())
    known = content.get("y", content)
    right = total = 0
    for (name, _), scores in zip(samples, outputs, strict=True):
        if name in known:
            wanted = np.atleast_1d(known[name])
            right += int((scores.reshape(len(wanted), -1).argmax(1) == wanted).sum())
            total += len(wanted)
    return f"{100 * right / total:.2f}" if total else ""


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=int, default=8)
    parser.add_argument("--activations", type=int, default=8)
    parser.add_argument("--accuracy", default="best")
    parser.add_argument("--start", type=Path, help="a static result, if it is there already")
    parser.add_argument("--options", default="{}", help="JSON, more for quantize_qat")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    samples = read(arguments.data / "eval")
    labels = arguments.data / "labels.json"
    expected = outputs_of(arguments.model, samples)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start, result = arguments.start or folder / "static.onnx", folder / "qat.onnx"
        seconds = {}
        if arguments.start is None:
            began = time.perf_counter()
            onnxq.quantize_static(
                arguments.model,
                arguments.data / "calib",
                start,
                accuracy=arguments.accuracy,
                weights="int8" if arguments.weights == 8 else "int4",
                activations=f"uint{arguments.activations}",
            )
            seconds[start] = time.perf_counter() - began
        began = time.perf_counter()
        trained = onnxq.quantize_qat(
            arguments.model,
            arguments.data / "calib",
            result,
            init=start,
            threads=arguments.threads,
            **json.loads(arguments.options),
        )
        seconds[result] = time.perf_counter() - began
        bits = f"W{arguments.weights}A{arguments.activations}"
        print(
            "| model | top-1 | SQNR dB | argmax as float | simulation dB | argmax as simulation "
            "| seconds |\n|---|---|---|---|---|---|---|"
        )
        print(f"| float | {accuracy(expected, samples, labels)} | | | | | |")
        for title, path in ((f"static, {bits}", start), (f"qat, {bits}", result)):
            found, simulated = outputs_of(path, samples), simulate(path, samples)
            same = np.mean(
                [
                    (one.argmax(-1) == other.argmax(-1)).mean()
                    for one, other in zip(found, expected, strict=True)
                ]
            )
            differ = sum(
                int((one.argmax(-1) != other.argmax(-1)).sum())
                for one, other in zip(found, simulated, strict=True)
            )
            print(
                f"| {title} | {accuracy(found, samples, labels)} | "
                f"{sqnr_db(expected, found):.2f} | {100 * same:.2f} % | "
                f"{sqnr_db(simulated, found):.1f} | {differ} differ | "
                f"{seconds.get(path, 0):.0f} |"
            )
        points = trained.history.points
        print(
            f"\nkept: {trained.kept}; learning rate {trained.history.factor:g}; held back: "
            f"{points[0].sqnr_db:.2f} -> {points[trained.history.best].sqnr_db:.2f} dB"
        )


if __name__ == "__main__":
    main()
