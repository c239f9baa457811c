"""Weights and ranges read from quantized files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import pytest

import onnxq
from onnxq.errors import InvalidModelError
from onnxq.report import histograms
from onnxq.report.histograms import BINS, ActivationRange, WeightHistogram, read_quantized_tensors
from tests.models import float_weight, make_model, matmul_model, save

WEIGHT = float_weight(np.random.default_rng(0), (8, 16))
SCALE = np.abs(WEIGHT).max(0) / np.float32(127)
INTEGERS = np.rint(WEIGHT / SCALE).astype(np.int8)


def read_one(
    folder: Path,
    nodes: str,
    arrays: dict[str, npt.NDArray[Any]],
    weight: npt.NDArray[Any] = WEIGHT,
    **options: Any,
) -> WeightHistogram:
    quantized = make_model(nodes, "float[N, 8] x", "float[N, 16] y", arrays, opset=21, **options)
    tensors = read_quantized_tensors(
        save(matmul_model(weight), folder / "float.onnx"), save(quantized, folder / "q.onnx")
    )
    (found,) = tensors.weights
    assert tensors.left_out == (0, 0)
    return found


DIALECTS = {
    "pairs": "w = DequantizeLinear<axis = 1>(q, s, z) y = MatMul(x, w)",
    "storage": "a = Cast<to = 1>(q) w = Mul(a, s) y = MatMul(x, w)",
    "integer": (
        "xq, xs, xz = DynamicQuantizeLinear(x) a = MatMulInteger(xq, q, xz) b = Cast<to = 1>(a) "
        "c = Mul(xs, s) y = Mul(b, c)"
    ),
    "operator": (
        "xq = QuantizeLinear(x, one, u) a = QLinearMatMul(xq, one, u, q, s, z, one, u) "
        "y = DequantizeLinear(a, one, u)"
    ),
}


@pytest.mark.parametrize("nodes", DIALECTS.values(), ids=DIALECTS)
def test_each_dialect_is_read(nodes: str, tmp_path: Path) -> None:
    arrays = {"q": INTEGERS, "s": SCALE, "z": np.zeros(16, np.int8)}
    arrays |= {"one": np.float32(1), "u": np.uint8(0)}
    found = read_one(tmp_path, nodes, arrays)
    assert (found.name, found.shape, found.type, found.scales) == ("w", (8, 16), "int8", 16)
    low, high = -128 * SCALE, 127 * SCALE
    np.testing.assert_allclose(found.clip_low, (low.min(), low.max()), rtol=1e-6)
    np.testing.assert_allclose(found.clip_high, (high.min(), high.max()), rtol=1e-6)
    expected, _ = np.histogram(WEIGHT, BINS, (found.low, found.high))
    assert found.counts == tuple(expected)
    noise = np.sum((WEIGHT - INTEGERS * SCALE).astype(np.float64) ** 2)
    signal = np.sum(WEIGHT.astype(np.float64) ** 2)
    assert found.sqnr_db == pytest.approx(10 * np.log10(signal / noise), rel=1e-4)


def test_weights_of_kernels(tmp_path: Path) -> None:
    kernel = float_weight(np.random.default_rng(1), (4, 3, 3, 3))
    scale = np.abs(kernel).max((1, 2, 3)) / np.float32(127)
    integers = np.rint(kernel / scale[:, None, None, None]).astype(np.int8)
    image = ("float[1, 3, 8, 8] x", "float[1, 4, 6, 6] y")
    quantized = make_model(
        "xq = QuantizeLinear(x, one, u) a = QLinearConv(xq, one, u, k8, s, z, one, u) "
        "y = DequantizeLinear(a, one, u)",
        *image,
        {"one": np.float32(0.5), "u": np.uint8(128), "k8": integers, "s": scale}
        | {"z": np.zeros(4, np.int8)},
    )
    tensors = read_quantized_tensors(
        save(make_model("y = Conv(x, k)", *image, {"k": kernel}), tmp_path / "float.onnx"),
        save(quantized, tmp_path / "q.onnx"),
    )
    assert [(one.name, one.scales) for one in tensors.weights] == [("k", 4)]
    assert tensors.activations == (ActivationRange("x", "uint8", -64.0, 63.5),)


def test_blocks_of_four_bits_and_a_zero_point(tmp_path: Path) -> None:
    scale = np.full((2, 16), 0.125, np.float32)
    integers = np.clip(np.rint(WEIGHT / 0.125) + 8, 0, 15).astype(np.uint8)
    arrays = {"q": integers, "z": np.full((2, 16), 8, np.uint8)}
    arrays = {name: array.astype(ml_dtypes.uint4) for name, array in arrays.items()} | {"s": scale}
    nodes = "w = DequantizeLinear<axis = 0, block_size = 4>(q, s, z) y = MatMul(x, w)"
    found = read_one(tmp_path, nodes, arrays)
    assert (found.name, found.type, found.scales) == ("w", "uint4", 32)
    assert (found.clip_low, found.clip_high) == ((-1.0, -1.0), (0.875, 0.875))


@pytest.mark.parametrize("reader", ["DequantizeLinear", "QGemm"])
def test_four_bits_that_are_widened_less_their_zero_points(reader: str, tmp_path: Path) -> None:
    """As static mode writes them for onnxruntime on the CPU."""
    scale, zero_point = np.full(16, 0.25, np.float32), np.arange(16, dtype=np.int8) % 4
    shifted = np.clip(np.rint(WEIGHT.T / 0.25) + zero_point[:, None], -8, 7)
    nodes = {
        "DequantizeLinear": "d = DequantizeLinear<axis = 0>(w, s, z) y = Gemm<transB = 1>(x, d)",
        "QGemm": "q = QuantizeLinear(x, one, u) y = com.microsoft.QGemm<transB = 1>"
        "(q, one, u, w, s, z, bias)",
    }[reader]
    arrays = {"four": shifted.astype(ml_dtypes.int4), "offset": zero_point[:, None]}
    arrays |= {"s": scale, "z": np.zeros(16, np.int8)}
    arrays |= {"one": np.float32(1), "u": np.uint8(0), "bias": np.zeros(16, np.int32)}
    found = read_one(tmp_path, f"a = Cast<to = 3>(four) w = Sub(a, offset) {nodes}", arrays)
    assert (found.name, found.type, found.scales) == ("w", "int4", 16)
    assert (found.clip_low, found.clip_high) == ((-2.75, -2.0), (1.0, 1.75))
    noise = np.sum((WEIGHT - ((shifted - zero_point[:, None]) * 0.25).T).astype(np.float64) ** 2)
    expected_db = 10 * np.log10(np.sum(WEIGHT.astype(np.float64) ** 2) / noise)
    assert found.sqnr_db == pytest.approx(expected_db, rel=1e-4)


def test_a_weight_that_is_not_in_the_float_model(tmp_path: Path) -> None:
    arrays = {"q": INTEGERS, "s": SCALE, "z": np.zeros(16, np.int8)}
    other = float_weight(np.random.default_rng(5), (8, 16))
    found = read_one(tmp_path, DIALECTS["pairs"], arrays, other)
    assert (found.name, found.sqnr_db) == ("q", None)
    assert sum(found.counts) == WEIGHT.size


def test_a_transposed_weight_is_found(tmp_path: Path) -> None:
    arrays = {"q": INTEGERS, "s": SCALE, "z": np.zeros(16, np.int8)}
    float_model = make_model(
        "y = Gemm<transB = 1>(x, gemm_w)",
        "float[N, 8] x",
        "float[N, 16] y",
        {"gemm_w": np.ascontiguousarray(WEIGHT.T)},
    )
    quantized = make_model(DIALECTS["pairs"], "float[N, 8] x", "float[N, 16] y", arrays)
    paths = (save(float_model, tmp_path / "a.onnx"), save(quantized, tmp_path / "b.onnx"))
    (found,) = read_quantized_tensors(*paths).weights
    assert found.name == "gemm_w"


@pytest.mark.parametrize(
    ("scale", "zero_point"),
    [
        (np.ones(5, np.float32), np.zeros(5, np.int8)),
        (np.full(16, np.nan, np.float32), np.zeros(16, np.int8)),
        (np.zeros(16, np.float32), np.zeros(16, np.int8)),
    ],
)
def test_parts_that_do_not_fit_are_left_out(
    scale: npt.NDArray[Any], zero_point: npt.NDArray[Any], tmp_path: Path
) -> None:
    arrays = {"q": INTEGERS, "s": scale, "z": zero_point}
    quantized = make_model(DIALECTS["pairs"], "float[N, 8] x", "float[N, 16] y", arrays)
    tensors = read_quantized_tensors(
        save(matmul_model(WEIGHT), tmp_path / "a.onnx"), save(quantized, tmp_path / "b.onnx")
    )
    assert (tensors.weights, tensors.left_out) == ((), (1, 0))


def test_large_weights_are_thinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histograms, "_SAMPLED_ABOVE", 32)
    arrays = {"q": INTEGERS, "s": SCALE, "z": np.zeros(16, np.int8)}
    found = read_one(tmp_path, DIALECTS["pairs"], arrays)
    assert found.name == "w"
    assert sum(found.counts) == WEIGHT[:, ::4].size


def _many(count: int) -> onnx.ModelProto:
    nodes = "".join(
        f"a{i} = QuantizeLinear(x{i}, s, z) b{i} = DequantizeLinear(a{i}, s, z) "
        f"w{i} = DequantizeLinear(q{i}, s, m) x{i + 1} = MatMul(b{i}, w{i}) "
        for i in range(count)
    )
    arrays: dict[str, npt.NDArray[Any]] = {
        f"q{i}": np.full((4, 4), i + 1, np.int8) for i in range(count)
    }
    arrays |= {"s": np.float32(0.1), "z": np.uint8(0), "m": np.int8(0)}
    return make_model(nodes, "float[N, 4] x0", f"float[N, 4] x{count}", arrays)


def test_the_largest_are_kept(tmp_path: Path) -> None:
    path = save(_many(5), tmp_path / "q.onnx")
    tensors = read_quantized_tensors(path, path, limit=3)
    assert (len(tensors.weights), len(tensors.activations)) == (3, 3)
    assert tensors.left_out == (2, 2)
    assert tensors.activations[0] == ActivationRange("x0", "uint8", 0.0, pytest.approx(25.5))


def test_folded_weights_of_a_real_result(tmp_path: Path) -> None:
    source = Path(__file__).resolve().parents[2] / "sample_models" / "transformer.onnx"
    result = onnxq.quantize_dynamic(source, tmp_path / "q.onnx")
    tensors = read_quantized_tensors(source, result.output)
    assert len(tensors.weights) == len(result.plan.changes)
    assert tensors.activations == ()
    for one in tensors.weights:
        assert one.sqnr_db is not None
        assert one.sqnr_db > 30
        assert sum(one.counts) == int(np.prod(one.shape))


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    path = save(matmul_model(WEIGHT), tmp_path / "a.onnx")
    with pytest.raises(InvalidModelError):
        read_quantized_tensors(path, tmp_path / "none.onnx")
    assert read_quantized_tensors(tmp_path / "none.onnx", path).weights == ()
