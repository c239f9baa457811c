from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxq.graph.files import load_model
from onnxq.rules.quantized import find_quantization
from tests.models import float_weight, make_model, to_ir

INT8 = np.ones((32, 16), np.int8)
SCALE = np.float32(0.1)
ZERO = np.int8(0)

DIALECTS = {
    "qdq_activation": (
        "[q] v = QuantizeLinear(x, s, z) y = DequantizeLinear(v, s, z)", "is a QuantizeLinear"),
    "qdq_weight": ("[d] v = DequantizeLinear(w, s, z) y = MatMul(x, v)", "is a DequantizeLinear"),
    "qlinear_matmul": ("[q] y = QLinearMatMul(a, s, z, w, s, z, s, z)", "is a QLinearMatMul"),
    "qlinear_conv": ("[q] y = QLinearConv(a, s, z, w, s, z, s, z)", "is a QLinearConv"),
    "qlinear_contrib": ("[q] y = com.microsoft.QLinearAdd(a, s, z, w, s, z)", "is a QLinearAdd"),
    "dynamic": ("[q] y, t, u = DynamicQuantizeLinear(x)", "is a DynamicQuantizeLinear"),
    "matmul_integer": ("[q] y = MatMulInteger(a, w)", "is a MatMulInteger"),
    "conv_integer": ("[q] y = ConvInteger(a, w)", "is a ConvInteger"),
    "dynamic_matmul": (
        "[q] y = com.microsoft.DynamicQuantizeMatMul(x, w, s)", "is a DynamicQuantizeMatMul"),
    "dynamic_lstm": (
        "[q] y = com.microsoft.DynamicQuantizeLSTM(x, w, w)", "is a DynamicQuantizeLSTM"),
    "four_bits": (
        "[q] y = com.microsoft.MatMulNBits<K = 32, N = 16, bits = 4, block_size = 32>(x, w, s)",
        "is a MatMulNBits"),
    "four_bits_bnb": ("[q] y = com.microsoft.MatMulBnb4(x, w, s)", "is a MatMulBnb4"),
    "gather_four_bits": (
        "[q] y = com.microsoft.GatherBlockQuantized(w, i, s)", "is a GatherBlockQuantized"),
    "gemm": ("[q] y = com.microsoft.QGemm(a, s, z, w, s, z)", "is a QGemm"),
    "attention": ("[q] y = com.microsoft.QAttention(a, w, s)", "is a QAttention"),
    "cast_and_scale": (
        "[c] v = Cast<to = 1>(w) m = Mul(v, s) y = MatMul(x, m)",
        "turns int8 weights into floats"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_recognises_every_dialect(name: str) -> None:
    nodes, evidence = DIALECTS[name]
    model = make_model(
        nodes,
        "float[N, 32] x, int8[N, 32] a, int64[N] i",
        "float[] y",
        {"w": INT8, "s": SCALE, "z": ZERO},
        contrib=True,
    )
    found = find_quantization(to_ir(model))
    assert found is not None
    assert found.endswith(evidence)
    assert found.startswith(f"node '{model.graph.node[0].name}'")


@pytest.mark.parametrize(
    ("dtype", "text"),
    [(np.int8, "int8"), (np.uint8, "uint8"), (np.float16, "float16")],
    ids=["int8", "uint8", "float16"],
)
@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param("v = Cast<to = 1>(w) y = MatMul(x, v)", id="matmul"),
        pytest.param("v = Cast<to = 11>(w) y = MatMul(x, v)", id="matmul_of_doubles"),
        pytest.param("v = Cast<to = 1>(w) m = Mul(v, s) y = Conv(x, m)", id="scaled"),
        pytest.param("v = Cast<to = 1>(w) o = Sub(v, s) m = Mul(o, s) y = Gemm(x, m)", id="offset"),
        pytest.param("t = Transpose(w) v = Cast<to = 1>(t) y = MatMul(x, v)", id="moved_before"),
        pytest.param("v = Cast<to = 1>(w) t = Transpose(v) y = MatMul(x, t)", id="moved_after"),
        pytest.param("g = Gather(w, i) v = Cast<to = 1>(g) y = Mul(v, s)", id="looked_up"),
    ],
)
def test_recognises_small_weights_that_are_widened(nodes: str, dtype: type, text: str) -> None:
    weights = {"w": INT8.astype(dtype), "s": SCALE}
    model = make_model(nodes, "float[] x, int64[N] i", "float[] y", weights)
    found = find_quantization(to_ir(model))
    assert found is not None
    assert text in found


def test_recognises_weights_in_constant_nodes() -> None:
    numbers = ", ".join(["1"] * 256)
    model = make_model(
        f"k = Constant<value = int8[16, 16] {{{numbers}}}>() v = Cast<to = 1>(k) y = MatMul(x, v)",
        "float[N, 16] x",
        "float[N, 16] y",
    )
    assert find_quantization(to_ir(model)) == "node 'Cast#1' turns int8 weights into floats"


@pytest.mark.parametrize(
    ("nodes", "functions", "where"),
    [
        pytest.param(
            """[choose] y = If (c) <
                 then_branch = t () => (a) { [inner] q, s, z = DynamicQuantizeLinear(x)
                                             a = Identity(x) },
                 else_branch = e () => (b) { b = Identity(x) }
               >""",
            "",
            "choose/then_branch/inner",
            id="body",
        ),
        pytest.param(
            "y = local.f(x)",
            """<domain: "local", opset_import: ["" : 17]> f (p) => (r) {
                 [inner] q, s, z = DynamicQuantizeLinear(p)
                 r = Identity(p)
               }""",
            "f()/inner",
            id="function",
        ),
    ],
)
def test_looks_into_bodies_and_functions(nodes: str, functions: str, where: str) -> None:
    model = make_model(nodes, "bool c, float[4] x", "float[4] y", functions=functions)
    assert find_quantization(to_ir(model)) == f"node '{where}' is a DynamicQuantizeLinear"


@pytest.mark.parametrize(
    ("nodes", "weight"),
    [
        pytest.param("y = MatMul(x, w)", np.ones((32, 16), np.float32), id="float"),
        pytest.param(
            "v = Cast<to = 1>(w) y = MatMul(x, v)", np.ones((17, 15), np.int8), id="small"
        ),
        pytest.param("v = Cast<to = 1>(w) y = Add(x, v)", np.ones((32, 16), np.uint8), id="mask"),
        pytest.param(
            "v = Cast<to = 1>(w) y = MatMul(x, v)", np.ones((32, 16), np.int64), id="wide_integers"
        ),
        pytest.param(
            "v = Cast<to = 10>(w) y = MatMul(x, v)", np.ones((32, 16), np.float32), id="narrowing"
        ),
        pytest.param(
            "v = Cast<to = 16>(w) y = MatMul(x, v)",
            np.ones((32, 16), np.float16),
            id="half_to_half",
        ),
        pytest.param(
            "v = Cast<to = 1>(a) y = MatMul(v, w)", np.ones((32, 16), np.float32), id="activation"
        ),
        pytest.param("y = Quantile(x, w)", np.ones(300, np.float32), id="similar_name"),
    ],
)
def test_leaves_models_alone_that_are_not_quantized(nodes: str, weight: np.ndarray) -> None:
    model = make_model(nodes, "float[] x, int8[N, 32] a", "float[] y", {"w": weight})
    assert find_quantization(to_ir(model)) is None


def test_a_half_precision_model_is_not_quantized(rng: np.random.Generator) -> None:
    weight = float_weight(rng, (32, 16)).astype(np.float16)
    model = make_model("y = MatMul(x, w)", "float16[N, 32] x", "float16[N, 16] y", {"w": weight})
    assert find_quantization(to_ir(model)) is None


@pytest.mark.parametrize("name", ["mlp", "cnn", "lstm", "transformer"])
def test_the_sample_models_are_not_quantized(sample_models: Path, name: str) -> None:
    assert find_quantization(load_model(sample_models / f"{name}.onnx").model) is None
