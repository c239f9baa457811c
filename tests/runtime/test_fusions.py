"""Facts about onnxruntime that the target preset rests on.

Each test builds a graph by hand, without onnxq, and fails when the runtime changes what it makes
of it: then the preset, the form or docs/targets.md is out of date.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.apply.quantized import count_operators, optimize
from tests.models import float_weight, make_model, save

K, N = 128, 64
INTEGERS = np.random.default_rng(0).integers(-127, 128, (K, N)).astype(np.int8)
SCALE = np.full(N, 0.01, np.float32)
DYNAMIC = (
    "q, s, z = DynamicQuantizeLinear({x}) i = MatMulInteger(q, {w}, z) f = Cast<to = 1>(i)"
    " c = Mul(s, scale) {y} = Mul(f, c)"
)


def fused(model: onnx.ModelProto, folder: Path) -> dict[str, int]:
    return count_operators(optimize(save(model, folder / "model.onnx")))


def test_runtime_fuses_one_reader_into_dynamic_quantize_matmul(tmp_path: Path) -> None:
    model = make_model(
        DYNAMIC.format(x="x", w="w", y="y"),
        f"float[M, {K}] x",
        f"float[M, {N}] y",
        {"w": INTEGERS, "scale": SCALE},
    )
    assert fused(model, tmp_path) == {"DynamicQuantizeMatMul": 1}


def test_runtime_takes_the_bias_into_dynamic_quantize_matmul(tmp_path: Path) -> None:
    model = make_model(
        DYNAMIC.format(x="x", w="w", y="p") + " y = Add(p, b)",
        f"float[M, {K}] x",
        f"float[M, {N}] y",
        {"w": INTEGERS, "scale": SCALE, "b": SCALE},
    )
    assert fused(model, tmp_path) == {"DynamicQuantizeMatMul": 1}


def test_runtime_fuses_several_readers_into_matmul_integer_to_float(tmp_path: Path) -> None:
    product = (
        "i{n} = MatMulInteger(q, w{n}, z) f{n} = Cast<to = 1>(i{n})"
        " c{n} = Mul(s, scale{n}) y{n} = Mul(f{n}, c{n})"
    )
    model = make_model(
        "q, s, z = DynamicQuantizeLinear(x) " + " ".join(product.format(n=n) for n in range(3)),
        f"float[M, {K}] x",
        ", ".join(f"float[M, {N}] y{n}" for n in range(3)),
        {f"w{n}": INTEGERS for n in range(3)} | {f"scale{n}": SCALE for n in range(3)},
    )
    assert fused(model, tmp_path) == {"DynamicQuantizeLinear": 1, "MatMulIntegerToFloat": 3}


def test_runtime_fuses_a_stack_of_weights_with_its_own_scales(tmp_path: Path) -> None:
    model = make_model(
        DYNAMIC.format(x="x", w="w", y="y"),
        f"float[2, M, {K}] x",
        f"float[2, M, {N}] y",
        {"w": np.stack([INTEGERS, INTEGERS]), "scale": np.full((2, 1, N), 0.01, np.float32)},
    )
    assert fused(model, tmp_path) == {"DynamicQuantizeMatMul": 1}


@pytest.mark.parametrize("element_type", ["int8", "uint8", "float16", "bfloat16"])
def test_runtime_folds_cast_and_multiplication_of_a_constant(
    element_type: str, tmp_path: Path
) -> None:
    import ml_dtypes

    dtype = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}.get(element_type, element_type)
    model = make_model(
        "f = Cast<to = 1>(q) d = Sub(f, offset) w = Mul(d, scale) y = MatMul(x, w)",
        f"float[M, {K}] x",
        f"float[M, {N}] y",
        {
            "q": np.abs(INTEGERS).astype(dtype),
            "offset": np.float32([3.0]),
            "scale": SCALE,
        },
    )
    assert fused(model, tmp_path) == {"MatMul": 1}


def test_runtime_does_not_fold_a_constant_dequantize_linear(tmp_path: Path) -> None:
    """If this fails the simpler form has become as good: a DequantizeLinear a weight."""
    model = make_model(
        "w = DequantizeLinear(q, s) y = Conv(x, w)",
        "float[1, 8, 9, 9] x",
        "float[1, 16, 7, 7] y",
        {
            "q": np.random.default_rng(0).integers(-9, 9, (16, 8, 3, 3)).astype(np.int8),
            "s": np.array(0.1, np.float32),
        },
    )
    assert fused(model, tmp_path).get("DequantizeLinear") == 1


def test_runtime_fuses_a_blocked_dequantize_linear_into_matmul_nbits(tmp_path: Path) -> None:
    model = make_model(
        "y = MatMul(x, w)",
        f"float[M, {K}] x",
        f"float[M, {N}] y",
        {"s": np.full((K // 32, N), 0.1, np.float32)},
        opset=21,
        ir_version=10,
    )
    packed = np.random.default_rng(0).integers(0, 256, K * N // 2, np.uint8).tobytes()
    model.graph.initializer.append(
        helper.make_tensor("q", TensorProto.INT4, (K, N), packed, raw=True)
    )
    dequantize = helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=0, block_size=32)
    model.graph.node.insert(0, dequantize)
    assert fused(model, tmp_path) == {"MatMulNBits": 1}


def test_runtime_runs_matmul_nbits_in_integers_at_accuracy_level_4(tmp_path: Path) -> None:
    """Level 4 rounds the activations, level 1 does not: the two differ, but little."""
    rng = np.random.default_rng(0)
    packed = rng.integers(0, 256, (N, K // 32, 16), np.uint8)
    x = rng.standard_normal((4, K)).astype(np.float32)
    outputs = []
    for level in (1, 4):
        model = make_model(
            f"y = com.microsoft.MatMulNBits<K = {K}, N = {N}, bits = 4, block_size = 32,"
            f" accuracy_level = {level}>(x, q, s)",
            f"float[M, {K}] x",
            f"float[M, {N}] y",
            {"q": packed, "s": np.full((N, K // 32), 0.1, np.float32)},
            contrib=True,
        )
        session = onnxruntime.InferenceSession(model.SerializeToString())
        outputs.append(session.run(None, {"x": x})[0])
    nibbles = np.stack([packed & 15, packed >> 4], axis=-1).reshape(N, K).astype(np.float64)
    exact = x.astype(np.float64) @ ((nibbles - 8) * 0.1).T
    np.testing.assert_allclose(outputs[0], exact, rtol=0, atol=K * 8 * 0.1 * 4 * 6e-8)
    blocks = np.abs(x).reshape(4, -1, 32).max(axis=-1, keepdims=True)
    half_step = np.broadcast_to(blocks / 127 / 2, (4, K // 32, 32)).reshape(4, K)
    bound = half_step @ np.abs((nibbles - 8) * 0.1).T
    assert np.all(np.abs(outputs[1] - exact) <= bound + 1e-4)
    assert not np.array_equal(outputs[0], outputs[1])


def test_runtime_looks_rows_up_before_it_widens_them(tmp_path: Path) -> None:
    """The Cast stays behind the Gather; a folded table would be four times the memory."""
    model = make_model(
        "r = Gather(table, i) f = Cast<to = 1>(r) t = Gather(scale, i) y = Mul(f, t)",
        "int64[S] i",
        f"float[S, {N}] y",
        {"table": INTEGERS, "scale": np.full((K, 1), 0.01, np.float32)},
    )
    assert fused(model, tmp_path) == {"Gather": 2, "Cast": 1, "Mul": 1}


@pytest.mark.parametrize("operator", ["DynamicQuantizeLSTM", "QAttention"])
def test_runtime_has_the_contrib_kernel(operator: str, tmp_path: Path) -> None:
    if operator == "QAttention":
        model = make_model(
            "q, s, z = DynamicQuantizeLinear(x)"
            " y = com.microsoft.QAttention<num_heads = 4>(q, w, b, s, scale, , z, wz)",
            "float[1, S, 48] x",
            "float[1, S, 48] y",
            {
                "w": np.ones((48, 144), np.int8),
                "b": np.zeros(144, np.float32),
                "scale": np.full(144, 0.01, np.float32),
                "wz": np.zeros(144, np.int8),
            },
            contrib=True,
        )
    else:
        model = make_model(
            "y = com.microsoft.DynamicQuantizeLSTM<hidden_size = 128>"
            "(x, w, r, , , , , , sw, zw, sr, zr)",
            "float[S, 1, 32] x",
            "float[S, 1, 1, 128] y",
            {
                "w": np.ones((1, 32, 512), np.int8),
                "r": np.ones((1, 128, 512), np.int8),
                **{name: np.full((1, 512), 0.01, np.float32) for name in ("sw", "sr")},
                **{name: np.zeros((1, 512), np.int8) for name in ("zw", "zr")},
            },
            contrib=True,
        )
    assert fused(model, tmp_path)[operator] == 1


def test_runtime_keeps_a_float_matmul_that_shares_no_integer_form(tmp_path: Path) -> None:
    """The detector of onnxq counts what is left: a plain model has nothing but float."""
    weight = float_weight(np.random.default_rng(0), (K, N))
    model = make_model("y = MatMul(x, w)", f"float[M, {K}] x", f"float[M, {N}] y", {"w": weight})
    assert numpy_helper.to_array(model.graph.initializer[0]).dtype == np.float32
    assert fused(model, tmp_path) == {"MatMul": 1}
