"""MatMul and Gemm with 4-bit blocks, against the same product in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxq.numerics.affine import dequantize
from onnxq.numerics.blocks import quantize_blocks
from onnxq.schemes import Scheme, WeightType
from onnxq.targets.presets import ORT_CPU
from tests.apply.quantized import ELEMENT_TYPES, TARGETS, Array, Quantized, domains, quantize
from tests.models import float_weight, make_model

M, N = 5, 64
MOST_STEPS_LOST = 3.5
"""The scale is at least 0.7 of one that reaches to the extreme at 8 steps, and has 7 steps to the
other side: 8 - 0.7 * 7 = 3.1, and refining it moves a little more."""

ROUNDINGS = 8
"""As for the 8-bit products: the narrowing Cast, the scale, the sum, the bias and beta."""


def unpack_nibbles(packed: Array, count: int) -> Array:
    """Two values to a byte along the last axis, the first in the low half."""
    values = np.stack([packed & 0xF, packed >> 4], axis=-1)
    return values.reshape(*packed.shape[:-1], -1)[..., :count].astype(np.float64)


def read_matrix(quantized: Quantized, rows: int) -> Array:
    """The weight [K, N] that the file holds."""
    nodes = {node.op_type: node for node in quantized.model.graph.node}
    if "MatMulNBits" not in nodes:
        return quantized.read_constant(nodes["MatMul"].input[1]).astype(np.float64)
    constants = [quantized.initializer(name) for name in nodes["MatMulNBits"].input[1:]]
    elements, scale = constants[0], constants[1].astype(np.float64)
    values = unpack_nibbles(elements, 2 * elements.shape[-1])
    zero_point = np.full(scale.shape, 8.0)
    if len(constants) > 2:
        zero_point = unpack_nibbles(constants[2], scale.shape[1])
    weight = (values - zero_point[:, :, None]) * scale[:, :, None]
    return weight.reshape(len(scale), -1).T[:rows]


def weight_steps(w: Array, block_size: int, *, symmetric: bool) -> Array:
    """The step that each element of a weight [K, N] deserves.

    With a zero point, 15 steps from the smallest to the largest of the block; without, 8 steps to
    the element of largest magnitude, since -8 is among the integers.
    """
    steps = np.empty(w.shape)
    for first in range(0, len(w), block_size):
        block = w[first : first + block_size]
        low, high = np.minimum(block.min(axis=0), 0), np.maximum(block.max(axis=0), 0)
        steps[first : first + block_size] = (
            np.maximum(-low, high) / 8 if symmetric else (high - low) / 15
        )
    return steps


def measure_blocks(w: Array, block_size: int) -> Array:
    """Squares of each block and column, summed."""
    return np.add.reduceat(np.square(w), np.arange(0, len(w), block_size), axis=0)


def lose_at_extremes(w: Array, block_size: int, *, symmetric: bool) -> Array:
    """Squared errors of each block with scales that reach exactly to its extremes."""
    errors = np.empty(w.shape)
    for first in range(0, len(w), block_size):
        block = w[first : first + block_size]
        low, high = np.minimum(block.min(axis=0), 0), np.maximum(block.max(axis=0), 0)
        if symmetric:
            scale = np.where(-low > high, low, high) / -8
            rounded = np.clip(np.rint(block / scale), -8, 7)
        else:
            scale = (high - low) / 15
            zero_point = np.rint(-low / scale)
            rounded = np.clip(np.rint(block / scale) + zero_point, 0, 15) - zero_point
        errors[first : first + block_size] = rounded * scale - block
    return measure_blocks(errors, block_size)


def activation_steps(x: Array, block_size: int) -> Array:
    """The kernel quantizes each block of the activation to 127 steps to either side."""
    blocks = -(-x.shape[-1] // block_size)
    padded = np.zeros((*x.shape[:-1], blocks * block_size))
    padded[..., : x.shape[-1]] = np.abs(x)
    largest = padded.reshape(*x.shape[:-1], blocks, block_size).max(axis=-1)
    return np.repeat(largest / 127, block_size, axis=-1)[..., : x.shape[-1]]


def check(
    quantized: Quantized,
    actual: Array,
    x: Array,
    w: Array,
    block_size: int,
    *,
    bias: Array | float = 0.0,
    symmetric: bool = False,
) -> None:
    """``actual`` is x w + bias up to what the blocks and the activations lose.

    As for 8-bit products: sum over K of (|x| + s_x / 2) s_w + s_x / 2 |w|, with the steps of each
    block. Elements that a scale cuts off may be ``MOST_STEPS_LOST`` off, and no block loses more
    than with a scale that cuts off none.
    """
    x, w = x.astype(np.float64), w.astype(np.float64)
    steps = weight_steps(w, block_size, symmetric=symmetric)
    half_step = activation_steps(x, block_size) / 2
    bound = (np.abs(x) + half_step) @ (MOST_STEPS_LOST * steps) + half_step @ np.abs(w)
    unit = max(np.finfo(actual.dtype).eps, np.finfo(np.float32).eps) / 2
    rounding = ROUNDINGS * unit * ((np.abs(x) + half_step) @ (np.abs(w) + steps) + np.abs(bias))
    error = np.abs(actual.astype(np.float64) - (x @ w + bias))
    # Where a target falls back to 8 bits, every step is smaller.
    assert np.all(error <= bound + rounding)
    if "MatMulInteger" in quantized.operators():
        assert quantized.result.plan.target == "onnx"
        assert quantized.result.plan.tensors[0].explanation
        return
    stored = read_matrix(quantized, len(w))
    lost = measure_blocks(stored - w, block_size)
    # Compared in float32, with numbers of up to 16 steps.
    slack = 1e-5 * measure_blocks(w, block_size)
    assert np.all(lost <= lose_at_extremes(w, block_size, symmetric=symmetric) + slack)
    # On the stored weight only the activation is rounded.
    error = np.abs(actual.astype(np.float64) - (x @ stored + bias))
    assert np.all(error <= half_step @ np.abs(stored) + rounding)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("weights", "symmetric"),
    [("int4", True), ("int4", False), ("uint4", False)],
    ids=["int4-symmetric", "int4", "uint4"],
)
@pytest.mark.parametrize(
    ("rows", "block_size"),
    [(128, None), (128, 16), (256, 32), (200, 64), (200, 128), (257, 128), (96, 128), (255, 256)],
    ids=[
        "one-default-block",
        "blocks-of-16",
        "blocks-of-32",
        "short-last-block",
        "short-second-block",
        "last-block-of-one",
        "block-over-all",
        "odd-rows-in-one-block",
    ],
)
def test_matmul_is_within_the_bound_of_its_blocks(
    rows: int,
    block_size: int | None,
    weights: str,
    symmetric: bool,
    target: str,
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(rows)
    w = float_weight(rng, (rows, N))
    x = (rng.standard_normal((M, rows)) + 0.5).astype(np.float32)
    model = make_model("y = MatMul(x, w)", f"float[M, {rows}] x", f"float[M, {N}] y", {"w": w})
    options = {"weights": weights, "symmetric": symmetric or None, "block_size": block_size}
    quantized = quantize(model, tmp_path, target=target, **options)
    size = block_size or ORT_CPU.default_block_size
    check(quantized, quantized.run({"x": x})[0], x, w, size, symmetric=symmetric)


@pytest.mark.parametrize("kind", ["float", "float16", "double"])
@pytest.mark.parametrize("target", TARGETS)
def test_every_float_type_is_within_the_bound(kind: str, target: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    dtype = ELEMENT_TYPES[kind]
    w = float_weight(rng, (128, N)).astype(dtype)
    x = rng.standard_normal((2, M, 128)).astype(dtype)
    model = make_model("y = MatMul(x, w)", f"{kind}[B, M, 128] x", f"{kind}[B, M, {N}] y", {"w": w})
    quantized = quantize(model, tmp_path, weights="int4", target=target)
    (actual,) = quantized.run({"x": x})
    assert actual.dtype == dtype
    check(quantized, actual, x, w, ORT_CPU.default_block_size)


GEMMS: dict[str, tuple[str, tuple[int, ...] | None, float, float]] = {
    "plain": ("Gemm(x, w)", None, 1.0, 1.0),
    "bias": ("Gemm(x, w, c)", (N,), 1.0, 1.0),
    "transB": ("Gemm<transB = 1>(x, w, c)", (N,), 1.0, 1.0),
    "alpha-beta": ("Gemm<alpha = 0.5, beta = -2.0>(x, w, c)", (N,), 0.5, -2.0),
    "bias-matrix": ("Gemm<beta = 0.5>(x, w, c)", (M, N), 1.0, 0.5),
    "bias-column": ("Gemm(x, w, c)", (M, 1), 1.0, 1.0),
    "negative-alpha-transB": ("Gemm<alpha = -3.0, transB = 1>(x, w)", None, -3.0, 1.0),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("node", "c", "alpha", "beta"), GEMMS.values(), ids=GEMMS)
def test_gemm_is_within_the_bound_of_its_blocks(
    node: str, c: tuple[int, ...] | None, alpha: float, beta: float, target: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(2)
    w = float_weight(rng, (128, N))
    x = rng.standard_normal((M, 128)).astype(np.float32)
    weights = {"w": np.ascontiguousarray(w.T) if "transB" in node else w}
    bias: Array | float = 0.0
    if c is not None:
        weights["c"] = rng.standard_normal(c).astype(np.float32)
        bias = beta * weights["c"].astype(np.float64)
    model = make_model(f"y = {node}", f"float[{M}, 128] x", f"float[{M}, {N}] y", weights)
    quantized = quantize(model, tmp_path, weights="int4", target=target)
    check(
        quantized, quantized.run({"x": x})[0], x, alpha * w, ORT_CPU.default_block_size, bias=bias
    )


@pytest.mark.parametrize("weights", ["int4", "uint4"])
def test_standard_target_runs_in_the_reference_implementation(weights: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    w = float_weight(rng, (200, N))
    x = rng.standard_normal((M, 200)).astype(np.float32)
    model = make_model("y = MatMul(x, w)", "float[M, 200] x", f"float[M, {N}] y", {"w": w})
    quantized = quantize(model, tmp_path, weights=weights, target="onnx", block_size=32)
    assert domains(quantized.model) == {"ai.onnx"}
    assert quantized.result.opset >= 21
    (actual,) = quantized.run_reference({"x": x})
    stored = read_matrix(quantized, 200)
    # float32 sums of 200 products on the very weights of the file.
    np.testing.assert_allclose(
        actual, x.astype(np.float64) @ stored, rtol=0, atol=200 * 6e-8 * np.abs(x).max()
    )


@pytest.mark.parametrize("midpoint_only", [True, False], ids=["symmetric", "asymmetric"])
def test_zero_points_are_written_only_where_they_differ(
    midpoint_only: bool, tmp_path: Path
) -> None:
    rng = np.random.default_rng(5)
    model = make_model(
        "y = MatMul(x, w)", "float[M, 128] x", "float[M, 64] y", {"w": float_weight(rng, (128, N))}
    )
    quantized = quantize(model, tmp_path, weights="int4", symmetric=midpoint_only or None)
    (node,) = quantized.model.graph.node
    assert (len(node.input) == 3) is midpoint_only
    attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    # The default level is 0, which computes in float and is many times slower.
    assert attributes["accuracy_level"] == 4


@pytest.mark.parametrize(
    ("text", "inputs", "w", "reason"),
    [
        pytest.param(
            "y = Gemm<transA = 1>(x, w)",
            "float[128, 5] x",
            (128, N),
            "4-bit kernels cannot transpose the activation",
            id="transA",
        ),
        pytest.param(
            "y = MatMul(x, w)",
            "float[2, 5, 128] x",
            (2, 128, N),
            "4-bit kernels take matrices only",
            id="stack",
        ),
    ],
)
def test_matrix_that_4_bit_kernels_cannot_take_becomes_8_bit(
    text: str, inputs: str, w: tuple[int, ...], reason: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(6)
    model = make_model(text, inputs, "float[B, M, N] y", {"w": float_weight(rng, w)})
    if "Gemm" in text:
        model = make_model(text, inputs, f"float[5, {N}] y", {"w": float_weight(rng, w)})
    quantized = quantize(model, tmp_path, weights="int4")
    (plan,) = quantized.result.plan.tensors
    assert str(plan.scheme).removesuffix(" in pairs") == "int8 per channel"
    assert reason in plan.explanation
    assert quantized.operators()["MatMulInteger"] == 1


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"block_size": 20}, id="no-power-of-two"),
        pytest.param({"block_size": 8}, id="too-small"),
        pytest.param({"block_size": 32, "weights": "int8"}, id="8-bit"),
    ],
)
def test_contradicting_options_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    import onnxq

    model = make_model(
        "y = MatMul(x, w)",
        "float[M, 128] x",
        "float[M, 64] y",
        {"w": float_weight(np.random.default_rng(7), (128, N))},
    )
    with pytest.raises(onnxq.OnnxqError) as caught:
        quantize(model, tmp_path, **{"weights": "int4", **options})
    assert caught.value.exit_code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx"]


@pytest.mark.parametrize("middle", ["LayerNormalization", "Relu"])
def test_sums_are_kept_where_inputs_have_a_mean(middle: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(10)
    w, scale = float_weight(rng, (128, N)), np.ones(128, np.float32)
    call = "LayerNormalization(x, s)" if middle == "LayerNormalization" else "Relu(x)"
    model = make_model(
        f"h = {call} y = MatMul(h, w)", "float[M, 128] x", f"float[M, {N}] y", {"w": w, "s": scale}
    )
    quantized = quantize(model, tmp_path, weights="int4")
    errors = read_matrix(quantized, 128) - w
    nearest, parameters = quantize_blocks(
        w, Scheme(type=WeightType.INT4, block_size=128, symmetric=False)
    )
    plain = dequantize(nearest, parameters).reshape(128, N) - w
    if middle == "LayerNormalization":
        np.testing.assert_allclose(errors, plain, atol=1e-6)
    else:
        # A sum of 128 errors, each of half a step at most, against less than a step.
        assert np.abs(errors.sum(axis=0)).mean() < 0.3 * np.abs(plain.sum(axis=0)).mean()


SURROUNDINGS = {
    "bias": "p = MatMul(x, w) y = Add(p, c)",
    "bias-in-front": "p = MatMul(x, w) y = Add(c, p)",
    "residual": "p = MatMul(x, w) y = Add(p, r)",
    "activation-behind": "p = MatMul(x, w) y = Relu(p)",
    "bias-activation-and-more": "p = MatMul(x, w) q = Add(p, v) g = Relu(q) y = Neg(g)",
    "gemm-activation-and-more": "q = Gemm(x, w, v) g = Relu(q) y = Neg(g)",
    "two-readers-of-the-weight": "p = MatMul(x, w) h = Relu(x) k = MatMul(h, w) y = Add(p, k)",
    "in-a-branch": (
        "y = If(b) <then_branch = yes () => (float[5, 64] s) { s = MatMul(x, w) },"
        " else_branch = no () => (float[5, 64] t) { t = Identity(r) }>"
    ),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("text", SURROUNDINGS.values(), ids=SURROUNDINGS)
def test_product_is_fused_whatever_is_around_it(text: str, target: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    w, c = float_weight(rng, (128, N)), rng.standard_normal((1, N)).astype(np.float32)
    feeds = {
        "x": rng.standard_normal((M, 128)).astype(np.float32),
        "r": rng.standard_normal((M, N)).astype(np.float32),
        "b": np.array(True),
    }
    model = make_model(
        text,
        f"float[{M}, 128] x, float[{M}, {N}] r, bool b",
        f"float[{M}, {N}] y",
        {"w": w, "c": c, "v": c[0]},
    )
    quantized = quantize(model, tmp_path, weights="int4", target=target)
    verification = quantized.result.verification
    assert verification is not None
    assert verification.optimized is not None
    assert verification.optimized.constant_dequantize_nodes == ()
    expected, actual = quantized.run_float(feeds)[0], quantized.run(feeds)[0]
    # 16 integers over -2.6 to 2.6 standard deviations (the extremes of a block of 128): a step of
    # 0.33, so noise of 0.33 / sqrt(12), or -20 dB. Anything in the wrong place leaves under 3 dB.
    noise = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
    assert -20 * np.log10(noise) > 15


@pytest.mark.parametrize("target", TARGETS)
def test_tied_weight_is_stored_once(target: str, tmp_path: Path) -> None:
    w = float_weight(np.random.default_rng(9), (256, 256))
    model = make_model(
        "p = MatMul(x, w) h = Tanh(p) y = MatMul(h, w)",
        "float[M, 256] x",
        "float[M, 256] y",
        {"w": w},
    )
    quantized = quantize(model, tmp_path, weights="int4", target=target)
    (plan,) = quantized.result.plan.tensors
    assert plan.scheme is not None
    # The elements, a float32 scale for each block of 16 at least, and the text of the graph.
    limit = w.size * plan.scheme.type.bits // 8 + 4 * w.size // 16 + 2000
    assert quantized.path.stat().st_size <= limit
    if target == "ort-cpu":
        assert plan.scheme.type.bits == 4
