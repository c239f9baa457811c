"""Integer kernels, each alone, against those of onnxruntime at full optimisation: bit by bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from tests.models import make_model
from tests.training.kernels import Arrays, X, Y, byte_values, check_exact

W = "v = DequantizeLinear<axis = 0>(w, sw, zw)"
W_LAST = "v = DequantizeLinear<axis = 1>(w, sw, zw)"
B = "c = DequantizeLinear<axis = 0>(b, sb)"
LEVELS = "l = QuantizeLinear(y, sy, zy) r = Clip(l, zero, most) o = DequantizeLinear(r, sy, zy)"


def numbers(seed: int, weight: tuple[int, ...], *, near_ties: bool, channels: int) -> Arrays:
    """Scales, zero points, a weight of 7 bits and a bias.

    Args:
        seed: of everything random.
        weight: its shape.
        near_ties: let each step of the result be an even number of sums, so that many sums lie
            half way between two integers, or by a last bit of float32 beside it.
        channels: how many scales the weight has.
    """
    rng = np.random.default_rng(seed)
    value, result = rng.uniform(0.01, 0.03, 2).astype(np.float32)
    scales = rng.uniform(0.004, 0.006, channels).astype(np.float32)
    size = int(np.prod(weight) // max(weight[0], weight[-1]))
    steps = np.float32(30 * size**0.5)
    if near_ties:
        scales[:] = scales[0]
        result = np.float32(np.float64(value) * np.float64(scales[0]) * 2 * round(steps / 2))
    else:
        result = np.float32(result * 0.01 * steps)
    return {
        "sx": value,
        "zx": np.uint8(rng.integers(100, 150)),
        "w": rng.integers(-64, 65, weight).astype(np.int8),
        "sw": scales if channels > 1 else scales[0],
        "zw": np.zeros(channels, np.int8) if channels > 1 else np.int8(0),
        "b": rng.integers(-2000, 2000, channels if channels > 1 else 6).astype(np.int32),
        "sb": scales * value if channels > 1 else scales[0] * value,
        "f": rng.normal(0, 0.1, 6).astype(np.float32),
        "sy": result,
        "zy": np.uint8(rng.integers(100, 150)),
    }


CONVOLUTIONS = {
    "plain": ((6, 4, 3, 3), "", 4),
    "1x1": ((6, 16, 1, 1), "", 16),
    "padded on one side, with strides": (
        (6, 4, 3, 3),
        "pads = [1, 0, 2, 1], strides = [2, 2]",
        4,
    ),
    "dilated": ((6, 4, 3, 3), "dilations = [2, 2]", 4),
    "depthwise": ((6, 1, 3, 3), "group = 6, pads = [1, 1, 1, 1]", 6),
    "in groups": ((6, 8, 3, 3), "group = 2", 16),
}


@pytest.mark.parametrize("near_ties", [True, False], ids=["near ties", "any"])
@pytest.mark.parametrize("channels", [1, 6], ids=["one scale", "scales of channels"])
@pytest.mark.parametrize("form", CONVOLUTIONS)
def test_convolutions(form: str, channels: int, near_ties: bool, tmp_path: Path) -> None:
    weight, attributes, inputs = CONVOLUTIONS[form]
    others = 0
    for seed in range(4):
        model = make_model(
            f"{X} {W} {B} y = Conv<{attributes}>(x, v, c) {Y}".replace("<>", ""),
            f"uint8[N, {inputs}, H, W] q",
            "float[N, 6, P, Q] o",
            numbers(seed, weight, near_ties=near_ties, channels=channels),
        )
        feeds: Arrays = {"q": byte_values(seed, 3, inputs, 31, 29)}
        others += check_exact(model, feeds, "QLinearConv", tmp_path)
    assert others or not near_ties


@pytest.mark.parametrize(
    ("nodes", "changes"),
    [
        (f"{X} {W} y = Conv(x, v) {Y}", {}),
        (f"{X} {W} y = Conv(x, v, f) {Y}", {}),
        (f"{X} {W} {B} a = Conv(x, v, c) y = Relu(a) {Y}", {"zy": np.uint8(0)}),
        (f"{X} {W} {B} y = Conv(x, v, c) {LEVELS}", {"zy": np.uint8(6)}),
        (
            f"{X} {W} {B} y = Conv(x, v, c) {Y}",
            {"w": byte_values(3, 6, 4, 3, 3) // 2 + 64, "zw": np.full(6, 128, np.uint8)},
        ),
        (f"{X} {W} {B} p = MaxPool<kernel_shape = [2, 2]>(x) y = Conv(p, v, c) {Y}", {}),
    ],
    ids=["no bias", "float bias", "relu", "sixteen levels", "uint8 weight", "behind a pooling"],
)
def test_forms_around_a_convolution(nodes: str, changes: Arrays, tmp_path: Path) -> None:
    others = 0
    for seed in range(4):
        constants = numbers(seed, (6, 4, 3, 3), near_ties=seed % 2 == 0, channels=6)
        levels = {"zero": np.uint8(0), "most": np.uint8(15)}
        model = make_model(
            nodes, "uint8[N, 4, H, W] q", "float[N, 6, P, Q] o", {**constants, **levels, **changes}
        )
        feeds: Arrays = {"q": byte_values(seed, 3, 4, 31, 29)}
        others += check_exact(model, feeds, "QLinearConv", tmp_path)
    assert others


@pytest.mark.parametrize("channels", [1, 6], ids=["one scale", "scales of channels"])
@pytest.mark.parametrize(
    ("nodes", "kernel", "weight"),
    [
        (f"{X} {W_LAST} {B} y = Gemm(x, v, c) {Y}", "QGemm", (40, 6)),
        (f"{X} {W} {B} y = Gemm<transB = 1>(x, v, c) {Y}", "QGemm", (6, 40)),
        (f"{X} {W_LAST} y = Gemm(x, v, f) {Y}", "QGemm", (40, 6)),
        (f"{X} {W_LAST} {B} o = Gemm(x, v, c)", "QGemm", (40, 6)),
        (f"{X} {W_LAST} y = MatMul(x, v) {Y}", "QLinearMatMul", (40, 6)),
        (f"{X} {W_LAST} o = MatMul(x, v)", "MatMulIntegerToFloat", (40, 6)),
    ],
    ids=["Gemm", "transposed", "float bias", "real result", "MatMul", "MatMul, real result"],
)
def test_products(
    nodes: str, kernel: str, weight: tuple[int, int], channels: int, tmp_path: Path
) -> None:
    others = 0
    for seed in range(8):
        constants = numbers(seed, weight, near_ties=seed % 2 == 0, channels=channels)
        model = make_model(nodes, "uint8[N, 40] q", "float[N, 6] o", constants)
        others += check_exact(model, {"q": byte_values(seed, 3000, 40)}, kernel, tmp_path)
    assert others


def test_a_product_of_two_activations(tmp_path: Path) -> None:
    constants = numbers(5, (40, 6), near_ties=True, channels=1)
    constants.update(sw=np.float32(constants["sw"]), zw=np.uint8(128))
    model = make_model(
        f"{X} v = DequantizeLinear(w2, sw, zw) y = MatMul(x, v) {Y}",
        "uint8[N, 3, 30, 40] q, uint8[N, 3, 40, 20] w2",
        "float[N, 3, 30, 20] o",
        constants,
    )
    feeds: Arrays = {"q": byte_values(1, 4, 3, 30, 40), "w2": byte_values(2, 4, 3, 40, 20)}
    assert check_exact(model, feeds, "QLinearMatMul", tmp_path)


def test_global_averages(tmp_path: Path) -> None:
    others = 0
    for seed, (height, width) in enumerate([(7, 7), (4, 4), (5, 3), (16, 16)]):
        rng = np.random.default_rng(seed)
        value = np.float32(rng.uniform(0.01, 0.1))
        result = np.float32(value * 6 / (height * width))
        model = make_model(
            f"{X} y = GlobalAveragePool(x) {Y}",
            "uint8[N, 8, H, W] q",
            "float[N, 8, 1, 1] o",
            {"sx": value, "zx": np.uint8(120), "sy": result, "zy": np.uint8(90)},
        )
        feeds: Arrays = {"q": byte_values(seed, 500, 8, height, width)}
        others += check_exact(model, feeds, "QLinearGlobalAveragePool", tmp_path)
    assert others


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16])
def test_quantizing_what_is_real(kind: type[np.integer[Any]], tmp_path: Path) -> None:
    limits = np.iinfo(kind)
    others = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        scale = np.float32(rng.uniform(0.001, 0.1))
        halves = (rng.integers(-300, 300, 50_000) + 0.5) * np.float64(scale)
        value = np.nextafter(
            halves.astype(np.float32), rng.choice([-np.inf, 0, np.inf], 50_000), dtype=np.float32
        )
        model = make_model(
            "r = QuantizeLinear(x, s, z) o = DequantizeLinear(r, s, z)",
            "float[N] x",
            "float[N] o",
            {"s": scale, "z": kind(limits.min + limits.max // 3)},
            opset=21,
            ir_version=10,
        )
        others += check_exact(model, {"x": value}, "QuantizeLinear", tmp_path)
    assert others
