"""Pairs of small models of which it is known where the error comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from onnxq.comparison.layers import measure_layers
from onnxq.comparison.results import LayerError
from onnxq.samples import Sample
from tests.models import FloatArray, float_weight, make_model, save

ROWS, WIDTH = 8, 16
TWO_LAYERS = "[first] h = MatMul(x, w1) r = Relu(h) [second] y = MatMul(r, w2)"
PAIR = "q = QuantizeLinear(h, scale, zero) d = DequantizeLinear(q, scale, zero)"
INPUT, OUTPUT = f"float[N, {WIDTH}] x", f"float[N, {WIDTH}] y"


def two_weights(rng: np.random.Generator) -> dict[str, FloatArray]:
    """Of two square layers."""
    return {name: float_weight(rng, (WIDTH, WIDTH)) for name in ("w1", "w2")}


def two_layers(weights: Mapping[str, FloatArray], *, opset: int = 17) -> onnx.ModelProto:
    """Matrix, Relu, matrix."""
    return make_model(TWO_LAYERS, INPUT, OUTPUT, weights, opset=opset)


def feeds(rng: np.random.Generator, count: int = 3) -> list[FloatArray]:
    """Inputs of these models."""
    return [rng.standard_normal((ROWS, WIDTH)).astype(np.float32) for _ in range(count)]


def samples(arrays: Sequence[FloatArray], name: str = "x") -> Iterator[Sample]:
    """Inputs as samples."""
    return (Sample(f"{index}.npy", {name: array}) for index, array in enumerate(arrays))


def compare(
    folder: Path,
    float_model: onnx.ModelProto,
    quantized: onnx.ModelProto,
    arrays: Sequence[FloatArray],
    name: str = "x",
) -> dict[str, LayerError]:
    """Errors by tensor, in their order."""
    paths = save(float_model, folder / "float.onnx"), save(quantized, folder / "quantized.onnx")
    found = measure_layers(*paths, samples(arrays, name), folder=folder)
    assert sorted(entry.name for entry in folder.iterdir()) == ["float.onnx", "quantized.onnx"]
    by_tensor = {error.tensor: error for error in found}
    assert len(by_tensor) == len(found)
    return by_tensor


def run(model: onnx.ModelProto, array: FloatArray, name: str = "x") -> FloatArray:
    """The first output of a model."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the others would spin
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    result: FloatArray = session.run(None, {name: array})[0]
    return result


def ratio_db(references: Sequence[FloatArray], measured: Sequence[FloatArray]) -> float:
    """Signal to noise over all samples, in float64."""
    signal = sum(float(np.sum(np.square(one, dtype=np.float64))) for one in references)
    noise = sum(
        float(np.sum(np.square(np.subtract(one, other, dtype=np.float64))))
        for one, other in zip(references, measured, strict=True)
    )
    return 10.0 * float(np.log10(signal / noise))
