"""Counting what the runtime made of a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxq.runtime.optimized import OptimizedGraph, read_optimized_graph
from tests.apply.quantized import quantize
from tests.models import float_weight, make_model, save

CONSTANT_DEQUANTIZE = "[d] w = DequantizeLinear(q, s) y = Conv(x, w)"
FED_DEQUANTIZE = "[d] h = DequantizeLinear(i, s) y = Conv(h, w)"


def read(text: str, inputs: str, weights: dict[str, np.ndarray], folder: Path) -> OptimizedGraph:
    model = make_model(text, inputs, "float[1, 16, 7, 7] y", weights)
    return read_optimized_graph(save(model, folder / "model.onnx"))


def test_constant_dequantize_linear_is_found_by_name(tmp_path: Path) -> None:
    graph = read(
        CONSTANT_DEQUANTIZE,
        "float[1, 8, 9, 9] x",
        {"q": np.ones((16, 8, 3, 3), np.int8), "s": np.float32(0.1)},
        tmp_path,
    )
    assert graph.constant_dequantize_nodes == ("d",)
    assert graph.float_nodes == {"Conv": 1}
    assert graph.integer_nodes == {}
    assert graph.to_json()["constant_dequantize_nodes"] == 1


def test_dequantize_linear_of_an_activation_is_none(tmp_path: Path) -> None:
    graph = read(
        FED_DEQUANTIZE,
        "int8[1, 8, 9, 9] i",
        {"w": np.ones((16, 8, 3, 3), np.float32), "s": np.float32(0.1)},
        tmp_path,
    )
    assert graph.constant_dequantize_nodes == ()


def test_bodies_are_counted(tmp_path: Path) -> None:
    weights = {"w": np.ones((8, 8), np.float32), "q": np.ones((8, 8), np.int8), "s": np.float32(1)}
    model = make_model(
        "y = If(b) <then_branch = yes () => (float[8, 8] o) { o = MatMul(x, w) },"
        " else_branch = no () => (float[8, 8] p)"
        " { [inner] d = DequantizeLinear(q, s) p = Gemm(x, d) }>",
        "bool b, float[8, 8] x",
        "float[8, 8] y",
        weights,
    )
    graph = read_optimized_graph(save(model, tmp_path / "model.onnx"))
    assert graph.float_nodes == {"Gemm": 1, "MatMul": 1}
    assert graph.constant_dequantize_nodes == ("inner",)


WEIGHT = np.ones((8, 8), np.float32)
INTEGERS = {"q": np.ones((8, 8), np.int8), "s": np.float32(1)}
LAYERS = {
    "constant": ("[n] y = MatMul(x, w)", {"w": WEIGHT}, ("n",)),
    "constant-on-the-left": ("[n] y = MatMul(w, x)", {"w": WEIGHT}, ("n",)),
    "without-a-name": ("y = Gemm(x, w)", {"w": WEIGHT}, ("y",)),
    "bias-only": ("[n] y = Gemm(x, x, w)", {"w": WEIGHT}, ()),
    "activations": ("[n] y = MatMul(x, x)", {}, ()),
    "dequantized": ("w = DequantizeLinear(q, s) [n] y = MatMul(x, w)", INTEGERS, ("n",)),
    "dequantized-and-transposed": (
        "d = DequantizeLinear(q, s) w = Transpose(d) [n] y = Gemm(x, w)",
        INTEGERS,
        ("n",),
    ),
    "widened": ("c = Cast<to = 1>(q) w = Mul(c, s) [n] y = MatMul(x, w)", INTEGERS, ("n",)),
    "from-an-activation": ("w = Mul(x, s) [n] y = MatMul(x, w)", {"s": np.float32(1)}, ()),
    "dequantized-activation": (
        "i = QuantizeLinear(x, s) d = DequantizeLinear(i, s) [n] y = MatMul(d, d)",
        {"s": np.float32(1)},
        (),
    ),
    "integer": (
        "i = Cast<to = 3>(x) j = MatMulInteger(i, q) y = Cast<to = 1>(j)",
        {"q": INTEGERS["q"]},
        (),
    ),
}


@pytest.mark.parametrize(("text", "weights", "layers"), LAYERS.values(), ids=LAYERS)
def test_float_layers_are_those_with_a_weight(
    text: str, weights: dict[str, np.ndarray], layers: tuple[str, ...], tmp_path: Path
) -> None:
    model = make_model(text, "float[8, 8] x", "float[8, 8] y", weights)
    assert read_optimized_graph(save(model, tmp_path / "model.onnx")).float_layers == layers


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[n] y = Conv(x, w)", ("w",)),
        ("[n] y = ConvTranspose(x, w)", ("w",)),
        ("[n] y = com.microsoft.FusedConv(x, w)", ("w",)),
        ("[n] y = LSTM<hidden_size = 2>(x, w, r)", ("w", "r")),
        ("[n] y = GRU<hidden_size = 2>(x, x, r)", ("r",)),
        ("[n] y = com.microsoft.Attention<num_heads = 1>(x, w)", ("w",)),
        ('[n] y = Einsum<equation = "ij,jk->ik">(x, w)', ("w",)),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_weight_of_every_operator(text: str, names: tuple[str, ...], tmp_path: Path) -> None:
    weights = dict.fromkeys(names, WEIGHT)
    model = make_model(text, "float[8, 8] x", "float[8, 8] y", weights, contrib=True)
    assert read_optimized_graph(save(model, tmp_path / "model.onnx")).float_layers == ("n",)


def test_layers_in_bodies_see_weights_outside(tmp_path: Path) -> None:
    model = make_model(
        "w = DequantizeLinear(q, s)"
        " y = If(b) <then_branch = yes () => (float[8, 8] o) { [inner] o = MatMul(x, w) },"
        " else_branch = no () => (float[8, 8] p) { p = MatMul(x, x) }>",
        "bool b, float[8, 8] x",
        "float[8, 8] y",
        INTEGERS,
    )
    graph = read_optimized_graph(save(model, tmp_path / "model.onnx"))
    assert graph.float_nodes == {"MatMul": 2}
    assert graph.float_layers == ("inner",)


def test_branches_of_a_constant_condition_are_no_constants(tmp_path: Path) -> None:
    model = make_model(
        "w = If(b) <then_branch = yes () => (float[8, 8] o) { o = Neg(x) },"
        " else_branch = no () => (float[8, 8] p) { p = Identity(x) }> [n] y = MatMul(x, w)",
        "float[8, 8] x",
        "float[8, 8] y",
        {"b": np.array(True)},
    )
    assert read_optimized_graph(save(model, tmp_path / "model.onnx")).float_layers == ()


CASES = {
    "one-reader": ("y = MatMul(x, a)", {"DynamicQuantizeMatMul": 1}, {}),
    "bias": ("p = MatMul(x, a) y = Add(p, c)", {"DynamicQuantizeMatMul": 1}, {}),
    "gemm": ("y = Gemm<alpha = 0.5>(x, a, c)", {"DynamicQuantizeMatMul": 1}, {}),
    "two-readers": (
        "p = MatMul(x, a) r = MatMul(x, b) y = Add(p, r)",
        {"MatMulIntegerToFloat": 2},
        {"DynamicQuantizeLinear": 1},
    ),
    "three-readers-in-a-row": (
        "p = MatMul(x, a) g = Relu(p) r = MatMul(g, b) h = Relu(r) y = MatMul(h, b)",
        {"DynamicQuantizeMatMul": 3},
        {},
    ),
}


@pytest.mark.parametrize("target", ["ort-cpu", "onnx"])
@pytest.mark.parametrize("kind", ["int8", "uint8"])
@pytest.mark.parametrize(("text", "integer", "others"), CASES.values(), ids=CASES)
def test_forms_of_onnxq_are_fused(
    text: str,
    integer: dict[str, int],
    others: dict[str, int],
    kind: str,
    target: str,
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    weights = {
        "a": float_weight(rng, (96, 96)),
        "b": float_weight(rng, (96, 96)),
        "c": float_weight(rng, (96,)),
    }
    used = {name: one for name, one in weights.items() if f", {name}" in text}
    model = make_model(text, "float[4, 96] x", "float[4, 96] y", used)
    quantized = quantize(model, tmp_path, weights=kind, target=target)
    verification = quantized.result.verification
    assert verification is not None
    assert verification.optimized is not None
    assert verification.optimized.integer_nodes == integer
    assert verification.optimized.float_nodes == {}
    operators = {node.op_type for node in quantized.optimized.graph.node}
    assert operators - {"Relu", "Add"} == set(integer) | set(others)
