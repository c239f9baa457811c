"""Weights that are stored small and read as floats: exact values, folded when the model loads."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxq.targets.presets import ORT_CPU
from tests.apply.quantized import (
    ELEMENT_TYPES,
    TARGETS,
    Array,
    Quantized,
    count_operators,
    domains,
    iterate_graphs,
    quantize,
    run,
)
from tests.models import constant_node, float_weight, make_model

HALF_TYPES = {"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
WIDENING = {"Cast", "Mul", "Sub", "DequantizeLinear", "Transpose", "Identity"}


def random(shape: tuple[int, ...], seed: int = 0) -> Array:
    return float_weight(np.random.default_rng(seed), shape)


LAYERS: dict[str, tuple[str, str, str, dict[str, tuple[int, ...]]]] = {
    "Conv": (
        "y = Conv(x, w, b)",
        "[1, 8, 9, 9] x",
        "[1, 16, 7, 7] y",
        {"w": (16, 8, 3, 3), "b": (16,)},
    ),
    "Conv-1d": ("y = Conv(x, w)", "[1, 8, 20] x", "[1, 16, 16] y", {"w": (16, 8, 5)}),
    "Conv-3d": ("y = Conv(x, w)", "[1, 4, 5, 5, 5] x", "[1, 8, 3, 3, 3] y", {"w": (8, 4, 3, 3, 3)}),
    "Conv-grouped": (
        "y = Conv<group = 2>(x, w)",
        "[1, 16, 6, 6] x",
        "[1, 16, 4, 4] y",
        {"w": (16, 8, 3, 3)},
    ),
    "Conv-depthwise": (
        "y = Conv<group = 32>(x, w)",
        "[1, 32, 6, 6] x",
        "[1, 32, 4, 4] y",
        {"w": (32, 1, 3, 3)},
    ),
    "ConvTranspose": (
        "y = ConvTranspose(x, w)",
        "[1, 8, 5, 5] x",
        "[1, 16, 7, 7] y",
        {"w": (8, 16, 3, 3)},
    ),
    "GRU": (
        "y = GRU<hidden_size = 40>(x, w, r)",
        "[3, 2, 33] x",
        "[3, 1, 2, 40] y",
        {"w": (1, 120, 33), "r": (1, 120, 40)},
    ),
    "RNN": (
        "y = RNN<hidden_size = 40>(x, w, r)",
        "[3, 2, 33] x",
        "[3, 1, 2, 40] y",
        {"w": (1, 40, 33), "r": (1, 40, 40)},
    ),
    "LSTM-small": (
        "y = LSTM<hidden_size = 40>(x, w, r)",
        "[3, 2, 33] x",
        "[3, 1, 2, 40] y",
        {"w": (1, 160, 33), "r": (1, 160, 40)},
    ),
    "Einsum": (
        'y = Einsum<equation = "bik,kn->bin">(x, w)',
        "[2, 3, 48] x",
        "[2, 3, 40] y",
        {"w": (48, 40)},
    ),
    "MatMul-small": ("y = MatMul(x, w)", "[3, 48] x", "[3, 40] y", {"w": (48, 40)}),
    "Gemm-narrow": ("y = Gemm<transB = 1>(x, w)", "[3, 200] x", "[3, 10] y", {"w": (10, 200)}),
}
"""Node, input, output and weights of layers without an integer kernel; types are put in front."""

DOUBLE_LAYERS = ("MatMul-small", "Gemm-narrow", "Einsum")
"""The layers that onnxruntime has in double."""

HALF_LAYERS = ("Conv", "ConvTranspose", "MatMul-small", "Gemm-narrow")
"""The layers that onnxruntime runs in float16, by way of float32."""


def build(layer: str, kind: str = "float") -> tuple[onnx.ModelProto, dict[str, Array]]:
    node, x, y, shapes = LAYERS[layer]
    dtype = ELEMENT_TYPES[kind]
    weights = {name: random(shape).astype(dtype) for name, shape in shapes.items()}
    model = make_model(node, kind + x, kind + y, weights)
    sizes = [one.dim_value for one in model.graph.input[0].type.tensor_type.shape.dim]
    feeds = {"x": np.random.default_rng(1).standard_normal(sizes).astype(dtype)}
    return model, feeds


def assert_equal_to_twin(quantized: Quantized, feeds: dict[str, Array]) -> None:
    """The float kernels get the same numbers, so the outputs are the same, bit by bit."""
    for actual, expected in zip(quantized.run(feeds), quantized.run_twin(feeds), strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("layer", LAYERS)
def test_layer_reads_the_stored_numbers(layer: str, target: str, tmp_path: Path) -> None:
    model, feeds = build(layer)
    quantized = quantize(model, tmp_path, target=target)
    assert quantized.result.plan.changes
    assert_equal_to_twin(quantized, feeds)


@pytest.mark.parametrize("layer", LAYERS)
def test_layer_reads_the_stored_numbers_when_asymmetric(layer: str, tmp_path: Path) -> None:
    model, feeds = build(layer)
    assert_equal_to_twin(quantize(model, tmp_path, weights="uint8"), feeds)


@pytest.mark.parametrize(
    ("layer", "kind"),
    [(layer, "double") for layer in DOUBLE_LAYERS] + [(layer, "float16") for layer in HALF_LAYERS],
)
@pytest.mark.parametrize("weights", ["int8", "uint8"])
def test_other_float_types_read_the_stored_numbers(
    layer: str, kind: str, weights: str, tmp_path: Path
) -> None:
    model, feeds = build(layer, kind)
    quantized = quantize(model, tmp_path, weights=weights)
    assert quantized.read_constant("w").dtype == ELEMENT_TYPES[kind]
    assert_equal_to_twin(quantized, feeds)


@pytest.mark.parametrize("layer", ["Conv", "Gemm-narrow", "GRU", "ConvTranspose", "Einsum"])
def test_standard_target_runs_in_the_reference_implementation(layer: str, tmp_path: Path) -> None:
    from onnx.reference import ReferenceEvaluator

    model, feeds = build(layer)
    quantized = quantize(model, tmp_path, target="onnx")
    assert domains(quantized.model) == {"ai.onnx"}
    (expected,) = ReferenceEvaluator(quantized.make_twin()).run(None, feeds)
    np.testing.assert_array_equal(quantized.run_reference(feeds)[0], expected)


NUMBERS = {
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize(
    "options",
    [
        {"weights": "int8"},
        {"weights": "uint8"},
        {"weights": "int8", "symmetric": False},
        {"weights": "int8", "per_channel": False},
        {"weights": "uint8", "per_channel": False, "reduce_range": True},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_value_in_the_runtime_is_scale_times_integer(
    options: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    dtype = NUMBERS[kind]
    # A Gather of all columns shows the weight itself. Python cannot take a bfloat16 from the
    # runtime; float16 holds the 8 significant bits of numbers of this size.
    model = make_model(
        "c = Gather<axis = 1>(w, i) y = Cast<to = 10>(c)"
        if kind == "bfloat16"
        else "y = Gather<axis = 1>(w, i)",
        "int64[64] i",
        f"{'float16' if kind == 'bfloat16' else kind}[48, 64] y",
        {"w": (random((48, 64)) + 0.02).astype(dtype)},
    )
    quantized = quantize(model, tmp_path, **options)
    (use,) = quantized.result.plan.tensors[0].uses
    assert use.form.value == "storage"
    integers = quantized.initializer(f"w_{options['weights']}").astype(np.int64)
    wide = dtype if dtype.itemsize >= 4 else np.dtype(np.float32)
    scale = quantized.initializer("w_scale")
    assert scale.dtype == wide
    names = {tensor.name for tensor in quantized.model.graph.initializer}
    zero_point = quantized.initializer("w_offset") if "w_offset" in names else wide.type(0)
    expected = ((integers.astype(wide) - zero_point) * scale).astype(dtype).astype(np.float64)
    actual = quantized.run({"i": np.arange(64)})[0].astype(np.float64)
    np.testing.assert_array_equal(actual, expected)
    exact = quantized.run_float({"i": np.arange(64)})[0].astype(np.float64)
    # One step, for a flipped rounding or for the zero point; half a unit of the narrow type.
    unit = float(ml_dtypes.finfo(dtype).eps)
    assert np.all(np.abs(actual - exact) <= scale * (1 + 1e-5) + unit * np.abs(exact))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("options", [{}, {"weights": "uint8"}, {"weights": "fp16"}], ids=str)
def test_nothing_is_left_to_widen_at_run_time(
    layer: str, options: dict[str, Any], tmp_path: Path
) -> None:
    model, _ = build(layer)
    quantized = quantize(model, tmp_path, **options)
    assert WIDENING & set(quantized.operators())
    assert not WIDENING & set(count_operators(quantized.optimized))


@pytest.mark.parametrize("weights", HALF_TYPES)
@pytest.mark.parametrize("layer", LAYERS)
def test_half_equals_the_float_model_on_rounded_weights(
    layer: str, weights: str, tmp_path: Path
) -> None:
    model, feeds = build(layer)
    quantized = quantize(model, tmp_path, weights=weights)
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    stored = {tensor.name for tensor in quantized.result.plan.changes}
    assert "w" in stored
    for tensor in rounded.graph.initializer:
        if tensor.name in stored:
            array = numpy_helper.to_array(tensor)
            half = array.astype(HALF_TYPES[weights]).astype(array.dtype)
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    for actual, expected in zip(quantized.run(feeds), run(rounded, feeds), strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("weights", HALF_TYPES)
def test_double_in_half_equals_the_float_model_on_rounded_weights(
    weights: str, tmp_path: Path
) -> None:
    model, feeds = build("MatMul-small", "double")
    quantized = quantize(model, tmp_path, weights=weights)
    assert_equal_to_twin(quantized, feeds)
    (tensor,) = model.graph.initializer
    half = numpy_helper.to_array(tensor).astype(HALF_TYPES[weights]).astype(np.float64)
    np.testing.assert_array_equal(quantized.read_constant("w"), half)


@pytest.mark.parametrize("value", [1e6, 65520.0, -7e4, 1e-9])
def test_value_that_does_not_fit_fp16(value: float, tmp_path: Path) -> None:
    weight = random((40, 48))
    if abs(value) < 1:
        weight *= np.float32(value)
    else:
        weight[3, 4] = value
    other = random((48, 48), 1)
    model = make_model(
        "h = MatMul(x, w) y = MatMul(h, u)",
        "float[2, 40] x",
        "float[2, 48] y",
        {"w": weight, "u": other},
    )
    quantized = quantize(model, tmp_path, weights="fp16")
    plans = {plan.name: plan for plan in quantized.result.plan.tensors}
    assert plans["w"].scheme is None
    assert ("beyond fp16" if abs(value) > 1 else "too small for fp16") in plans["w"].reason
    np.testing.assert_array_equal(quantized.initializer("w"), weight)
    assert plans["u"].scheme is not None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 65504.0])
def test_special_numbers_survive_fp16(value: float, tmp_path: Path) -> None:
    weight = random((40, 48))
    weight[3, 4] = value
    model = make_model("y = MatMul(x, w)", "float[2, 40] x", "float[2, 48] y", {"w": weight})
    quantized = quantize(model, tmp_path, weights="fp16")
    np.testing.assert_array_equal(
        quantized.read_constant("w"), weight.astype(np.float16).astype(np.float32)
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weight_that_is_not_finite_stays_float(value: float, tmp_path: Path) -> None:
    weight = random((40, 48))
    weight[3, 4] = value
    model = make_model(
        "h = MatMul(x, w) y = MatMul(x, u)",
        "float[2, 40] x",
        "float[2, 48] h, float[2, 48] y",
        {"w": weight, "u": random((40, 48), 1)},
    )
    quantized = quantize(model, tmp_path)
    plans = {plan.name: plan for plan in quantized.result.plan.tensors}
    assert plans["w"].reason == "holds NaN or infinity"
    np.testing.assert_array_equal(quantized.initializer("w"), weight)
    assert plans["u"].scheme is not None


@pytest.mark.parametrize("columns", [10, 48], ids=["storage", "integer-matmul"])
def test_weight_that_int8_spoils_is_stored_as_fp16(columns: int, tmp_path: Path) -> None:
    rows = 1000
    weight = random((rows, columns))
    # Where one element holds nearly all power, 127 steps of it leave the noise of the others:
    # (A^2 / rows) / ((A / 127)^2 / 12).
    weight[0] = 100.0
    expected_db = 10 * math.log10(12 * 127**2 / rows)
    assert expected_db < ORT_CPU.lowest_integer_sqnr_db < ORT_CPU.lowest_storage_sqnr_db
    model = make_model(
        "y = MatMul(x, w)", f"float[2, {rows}] x", f"float[2, {columns}] y", {"w": weight}
    )
    quantized = quantize(model, tmp_path, reduce_range=False)
    (plan,) = quantized.result.plan.tensors
    assert str(plan.scheme) == "fp16"
    assert f"int8 would leave only {expected_db:.0f} dB of it" in plan.explanation
    np.testing.assert_array_equal(
        quantized.read_constant("w"), weight.astype(np.float16).astype(np.float32)
    )


def test_weight_in_a_constant_node_is_stored_small(tmp_path: Path) -> None:
    weight = random((48, 40))
    model = make_model("y = MatMul(x, w)", "float[2, 48] x", "float[2, 40] y", {})
    model.graph.node.insert(0, constant_node(weight, "w"))
    quantized = quantize(model, tmp_path)
    assert "Constant" not in quantized.operators()
    np.testing.assert_array_equal(
        quantized.read_constant("w"),
        quantized.initializer("w_int8").astype(np.float32) * quantized.initializer("w_scale"),
    )


def test_weight_that_a_caller_can_override_stays(tmp_path: Path) -> None:
    weight = random((48, 40))
    model = make_model(
        "h = MatMul(x, w) y = MatMul(h, u)",
        "float[2, 48] x, float[48, 40] w",
        "float[2, 48] y",
        {"w": weight, "u": random((40, 48), 1)},
    )
    quantized = quantize(model, tmp_path)
    plans = {plan.name: plan for plan in quantized.result.plan.tensors}
    assert "a caller may feed another value" in plans["w"].reason
    np.testing.assert_array_equal(quantized.initializer("w"), weight)
    feeds = {"x": np.ones((2, 48), np.float32), "w": np.zeros((48, 40), np.float32)}
    assert not quantized.run(feeds)[0].any()


def test_no_storage_leaves_what_no_kernel_reads(tmp_path: Path) -> None:
    model = make_model(
        "h = MatMul(x, w) y = MatMul(h, u)",
        "float[2, 96] x",
        "float[2, 40] y",
        {"w": random((96, 48)), "u": random((48, 40), 1)},
    )
    quantized = quantize(model, tmp_path, storage=False)
    plans = {plan.name: plan for plan in quantized.result.plan.tensors}
    assert plans["w"].scheme is not None
    assert "--no-storage" in plans["u"].explanation
    np.testing.assert_array_equal(quantized.initializer("u"), random((48, 40), 1))


def test_weight_of_several_layers_is_stored_once(tmp_path: Path) -> None:
    model = make_model(
        'h = MatMul(x, w) k = Relu(h) l = MatMul(k, w) y = Einsum<equation = "bk,kn->bn">(l, w)',
        "float[2, 48] x",
        "float[2, 48] y",
        {"w": random((48, 48))},
    )
    quantized = quantize(model, tmp_path)
    assert [t.name for t in quantized.model.graph.initializer] == ["w_int8", "w_scale"]
    assert_equal_to_twin(quantized, {"x": random((2, 48), 3)})


@pytest.mark.parametrize("weights", ["int8", "uint8", "fp16", "bf16", "int4"])
def test_inputs_outputs_and_other_nodes_keep_their_names(weights: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    model = make_model(
        "[first] a = Conv(image, kernel, b) [act] r = Relu(a) [flat] f = Flatten(r)"
        " [big] m = MatMul(f, matrix) [soft] p = Softmax(m) [small] q = Gemm(p, narrow)",
        "float[1, 4, 6, 6] image",
        "float[1, 40] p, float[1, 12] q, float[1, 16, 4, 4] r",
        {
            "kernel": float_weight(rng, (16, 4, 3, 3)),
            "b": float_weight(rng, (16,)),
            "matrix": float_weight(rng, (256, 40)),
            "narrow": float_weight(rng, (40, 12)),
        },
    )
    quantized = quantize(model, tmp_path, weights=weights)
    for kind in ("input", "output"):
        before, after = getattr(model.graph, kind), getattr(quantized.model.graph, kind)
        assert [one.name for one in after] == [one.name for one in before]
        assert [one.type for one in after] == [one.type for one in before]
    kept = {"first", "act", "flat", "soft", "small"}
    nodes = {node.name: node for node in quantized.model.graph.node}
    assert kept <= set(nodes)
    for node in model.graph.node:
        if node.name in kept:
            after = nodes[node.name]
            assert (after.op_type, after.domain) == (node.op_type, node.domain)
            assert (after.input, after.output) == (node.input, node.output)
            assert after.attribute == node.attribute
    names = [
        node.name for graph in iterate_graphs(quantized.model) for node in graph.node if node.name
    ]
    assert len(names) == len(set(names))
