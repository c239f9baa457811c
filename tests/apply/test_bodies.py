"""Weights inside If, Loop and Scan bodies and in model-local functions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.apply.quantized import TARGETS, Array, Quantized, domains, iterate_graphs, quantize, run
from tests.models import constant_node, float_weight, make_model

K, N = 96, 48
GAUSSIAN_INT8_DB = 40.8
"""254 steps over 8 standard deviations: 20 log10(254 / 8 * sqrt(12))."""

FLOOR_DB = GAUSSIAN_INT8_DB - 10 * np.log10(2) - 3
"""Weight and activation each lose that much; 3 dB for flipped roundings."""


def weights(*names: str) -> dict[str, Array]:
    return {
        name: float_weight(np.random.default_rng(index), (K, N)) for index, name in enumerate(names)
    }


def put(graph: onnx.GraphProto, **arrays: Array) -> None:
    """Initializers for a body, which the textual form cannot express."""
    graph.initializer.extend(numpy_helper.from_array(one, name) for name, one in arrays.items())


def branches(operator: str) -> onnx.ModelProto:
    """If with a weight of its own in each branch, and one that both read from outside."""
    equation = '<equation = "mk,kn->mn">' if operator == "Einsum" else ""
    model = make_model(
        f"[choice] y = If(b) <then_branch = yes () => (float[5, {N}] s)"
        f" {{ [own] o = {operator}{equation}(x, w1) [both] q = {operator}{equation}(x, shared)"
        " s = Add(o, q) },"
        f" else_branch = no () => (float[5, {N}] t)"
        f" {{ [own] o2 = {operator}{equation}(x, w2) [both] q2 = {operator}{equation}(x, shared)"
        " t = Sub(o2, q2) }>",
        f"float[5, {K}] x, bool b",
        f"float[5, {N}] y",
        weights("shared"),
    )
    then_branch, else_branch = (one.g for one in model.graph.node[0].attribute)
    put(then_branch, w1=weights("w1")["w1"] + np.float32(0.01))
    put(else_branch, w2=weights("a", "w2")["w2"])
    return model


def assert_near_float(quantized: Quantized, feeds: dict[str, Array]) -> None:
    for actual, expected in zip(quantized.run(feeds), quantized.run_float(feeds), strict=True):
        noise = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
        assert -20 * np.log10(noise) > FLOOR_DB


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("taken", [True, False], ids=["then", "else"])
@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_integer_products_in_branches(kind: str, taken: bool, target: str, tmp_path: Path) -> None:
    quantized = quantize(branches("MatMul"), tmp_path, weights=kind, target=target)
    assert quantized.operators()["MatMulInteger"] == 4
    # Values of one branch do not exist in the other: each quantizes x for itself.
    assert quantized.operators()["DynamicQuantizeLinear"] == 2
    x = np.random.default_rng(0).standard_normal((5, K)).astype(np.float32)
    assert_near_float(quantized, {"x": x, "b": np.array(taken)})


@pytest.mark.parametrize("taken", [True, False], ids=["then", "else"])
@pytest.mark.parametrize("kind", ["int8", "uint8", "fp16", "bf16"])
def test_stored_weights_in_branches_are_exact(kind: str, taken: bool, tmp_path: Path) -> None:
    quantized = quantize(branches("Einsum"), tmp_path, weights=kind)
    assert len(quantized.result.plan.changes) == 3
    x = np.random.default_rng(0).standard_normal((5, K)).astype(np.float32)
    feeds = {"x": x, "b": np.array(taken)}
    np.testing.assert_array_equal(quantized.run(feeds)[0], quantized.run_twin(feeds)[0])


def test_weight_read_in_two_branches_is_stored_once(tmp_path: Path) -> None:
    quantized = quantize(branches("MatMul"), tmp_path)
    sizes = [
        int(np.prod(tensor.dims))
        for graph in iterate_graphs(quantized.model)
        for tensor in graph.initializer
    ]
    assert sizes.count(K * N) == 3


@pytest.mark.parametrize("kind", ["int8", "int4", "fp16"])
def test_loop_body(kind: str, tmp_path: Path) -> None:
    model = make_model(
        "y = Loop(n, go, x) <body = step (int64 i, bool c, float[5, 96] h)"
        " => (bool keep, float[5, 96] out)"
        " { keep = Identity(c) m = MatMul(h, w) out = Tanh(m) }>",
        "int64 n, bool go, float[5, 96] x",
        "float[5, 96] y",
        {},
    )
    put(model.graph.node[0].attribute[0].g, w=float_weight(np.random.default_rng(0), (96, 96)))
    quantized = quantize(model, tmp_path, weights=kind)
    (plan,) = quantized.result.plan.tensors
    assert plan.name.endswith("/body/w")
    feeds = {
        "n": np.array(1),
        "go": np.array(True),
        "x": np.random.default_rng(1).standard_normal((5, 96)).astype(np.float32),
    }
    if kind == "fp16":
        np.testing.assert_array_equal(quantized.run(feeds)[0], quantized.run_twin(feeds)[0])
        return
    expected, actual = quantized.run_float(feeds)[0], quantized.run(feeds)[0]
    noise = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
    # 4 bits: a step of 0.33 standard deviations (see test_blocked_matmul.py) leaves 20 dB.
    assert -20 * np.log10(noise) > (FLOOR_DB if kind == "int8" else 20 - 5)


def test_scan_body(tmp_path: Path) -> None:
    model = make_model(
        "last, y = Scan(h0, x) <num_scan_inputs = 1, body = step (float[1, 96] h, float[1, 96] i)"
        " => (float[1, 96] next, float[1, 96] o)"
        " { m = MatMul(i, w) a = Add(m, h) next = Tanh(a) o = Identity(next) }>",
        "float[1, 96] h0, float[4, 1, 96] x",
        "float[1, 96] last, float[4, 1, 96] y",
        {},
    )
    body = next(one.g for one in model.graph.node[0].attribute if one.name == "body")
    put(body, w=float_weight(np.random.default_rng(0), (96, 96)))
    quantized = quantize(model, tmp_path)
    assert quantized.operators()["MatMulInteger"] == 1
    rng = np.random.default_rng(1)
    feeds = {
        "h0": rng.standard_normal((1, 96)).astype(np.float32),
        "x": rng.standard_normal((4, 1, 96)).astype(np.float32),
    }
    assert_near_float(quantized, feeds)


FUNCTION = """
<domain: "local", opset_import: ["" : 17]>
layer (h) => (o)
{
    o = OPERATOR(h, w)
}
"""


def with_function(operator: str, calls: str) -> onnx.ModelProto:
    equation = '<equation = "mk,kn->mn">' if operator == "Einsum" else ""
    model = make_model(
        calls,
        f"float[5, {K}] x",
        f"float[5, {N}] y",
        {},
        functions=FUNCTION.replace("OPERATOR", operator + equation),
    )
    model.functions[0].node.insert(0, constant_node(weights("w")["w"], "w"))
    return model


CALLS = {
    "one-call": "y = local.layer(x)",
    "two-calls": "a = local.layer(x) z = Neg(x) b = local.layer(z) y = Sub(a, b)",
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("calls", CALLS.values(), ids=CALLS)
def test_integer_product_in_a_function(calls: str, target: str, tmp_path: Path) -> None:
    quantized = quantize(with_function("MatMul", calls), tmp_path, target=target)
    (function,) = quantized.model.functions
    assert "MatMulInteger" in [node.op_type for node in function.node]
    assert domains(quantized.model) == {"ai.onnx", "local"}
    x = np.random.default_rng(0).standard_normal((5, K)).astype(np.float32)
    assert_near_float(quantized, {"x": x})


def test_4_bit_product_in_a_function_imports_its_domain(tmp_path: Path) -> None:
    quantized = quantize(with_function("MatMul", CALLS["one-call"]), tmp_path, weights="int4")
    (function,) = quantized.model.functions
    assert {one.domain for one in function.opset_import} == {"", "com.microsoft"}
    x = np.random.default_rng(0).standard_normal((5, K)).astype(np.float32)
    expected, actual = quantized.run_float({"x": x})[0], quantized.run({"x": x})[0]
    assert np.linalg.norm(actual - expected) < 10 ** (-15 / 20) * np.linalg.norm(expected)


@pytest.mark.parametrize("kind", ["int8", "fp16"])
@pytest.mark.parametrize("calls", CALLS.values(), ids=CALLS)
def test_stored_weight_in_a_function_is_exact(calls: str, kind: str, tmp_path: Path) -> None:
    model = with_function("Einsum", calls)
    quantized = quantize(model, tmp_path, weights=kind)
    (function,) = quantized.model.functions
    stored = {node.output[0]: node for node in function.node if node.op_type == "Constant"}
    integers = numpy_helper.to_array(stored[f"w_{kind}"].attribute[0].t).astype(np.float32)
    scale = 1.0
    if kind == "int8":
        scale = numpy_helper.to_array(stored["w_scale"].attribute[0].t)
    model.functions[0].node[0].CopyFrom(constant_node((integers * scale).astype(np.float32), "w"))
    feeds = {"x": np.random.default_rng(0).standard_normal((5, K)).astype(np.float32)}
    np.testing.assert_array_equal(quantized.run(feeds)[0], run(model, feeds)[0])
