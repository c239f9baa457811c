"""Calibrated layers: what the file holds, what the runtime makes of it, how near it is to float."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import onnxq
from onnxq.rules.calibrated import CALIBRATED_RULES
from tests.apply.calibrated_models import (
    CHANNELS,
    IMAGE,
    INTEGER_COMPUTE,
    MODELS,
    SIZE,
    calibrated_operators,
    images,
    largest_error,
    parameters,
    quantize_static,
    reasons,
    save_samples,
    stored_weight,
    weight_of,
    weights,
)
from tests.apply.quantized import (
    TARGETS,
    Quantized,
    count_operators,
    domains,
    iterate_graphs,
    run,
)
from tests.cli.running import onnxq as onnxq_command
from tests.models import make_model, save, save_external

Get = Callable[[str, str, int], Quantized]


@pytest.fixture(scope="module")
def get(tmp_path_factory: pytest.TempPathFactory) -> Get:
    """A model of ``MODELS``, quantized once for all tests that look at it."""

    @cache
    def quantized(name: str, target: str, opset: int) -> Quantized:
        folder = tmp_path_factory.mktemp("model")
        return quantize_static(MODELS[name].build(opset=opset), folder, target=target)

    return quantized


def integer_kernels(quantized: Quantized) -> dict[str, int]:
    counts = count_operators(quantized.optimized)
    return {name: count for name, count in counts.items() if name in INTEGER_COMPUTE}


def pairs_left(quantized: Quantized) -> tuple[int, int]:
    counts = count_operators(quantized.optimized)
    return counts.get("QuantizeLinear", 0), counts.get("DequantizeLinear", 0)


def assert_near_float(quantized: Quantized, feeds: dict[str, np.ndarray]) -> None:
    error = np.abs(quantized.run(feeds)[0] - quantized.run_float(feeds)[0]).max()
    assert error <= largest_error(quantized, feeds)


def test_every_rule_has_a_model() -> None:
    covered = {operator for model in MODELS.values() for operator in model.operators}
    assert covered == {rule.operator for rule in CALIBRATED_RULES}


OLDER = ("Conv-Clip", "Concat", "Gemm", "MatMul", "Resize", "Split")
"""Their operators, or what is written for them, differ between operator sets."""


@pytest.mark.parametrize(
    ("name", "target", "opset"),
    [
        *((name, target, 21) for name in MODELS for target in TARGETS),
        *((name, "ort-cpu", opset) for name in OLDER for opset in (13, 17)),
    ],
)
def test_runtime_makes_integer_kernels(name: str, target: str, opset: int, get: Get) -> None:
    quantized, model = get(name, target, opset), MODELS[name]
    onnx.checker.check_model(str(quantized.path), full_check=True)
    assert quantized.result.opset == opset
    assert set(model.operators) <= set(calibrated_operators(quantized))
    assert integer_kernels(quantized) == model.kernels
    assert pairs_left(quantized) == model.left
    verification = quantized.result.verification
    assert verification is not None
    assert verification.optimized is not None
    assert verification.optimized.constant_dequantize_nodes == ()
    assert verification.optimized.float_nodes == {}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", MODELS)
def test_output_is_near_float(name: str, target: str, get: Get) -> None:
    quantized = get(name, target, 21)
    for feeds in images(3):
        assert_near_float(quantized, feeds)


def test_linear_interpolation_stays_float(get: Get) -> None:
    """onnxruntime has no kernel that mixes integers and rounds."""
    quantized = get("Resize-linear", "ort-cpu", 21)
    assert _layer(quantized, "linear").op_type == "Resize"
    assert calibrated_operators(quantized) == ["Conv", "Conv"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", MODELS)
def test_runtime_agrees_with_the_reference(name: str, target: str, get: Get) -> None:
    quantized = get(name, target, 21)
    for feeds in images(1):
        difference = np.abs(quantized.run(feeds)[0] - quantized.run_reference(feeds)[0])
        assert difference.max() <= largest_error(quantized, feeds, against_float=False)
        # Both round the same real number. That differs in its last float bits only, so that the
        # two go apart only where it lies within 1e-5 of half a step: one value in 50000.
        assert np.median(difference) <= 1e-6


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", MODELS)
def test_file_holds_pairs_as_the_runtime_wants_them(name: str, target: str, get: Get) -> None:
    quantized = get(name, target, 21)
    constants = {one.name: numpy_helper.to_array(one) for one in quantized.model.graph.initializer}
    pairs = [
        node
        for node in quantized.model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[0] not in constants
    ]
    assert pairs
    # Only a product with a float output is an operator on integers, where there are such.
    products = {"MatMulIntegerToFloat": 1, "QGemm": 1}
    written = {name: count for name, count in quantized.operators().items() if name in products}
    expected = MODELS[name].kernels if target == "ort-cpu" else {}
    assert written == {name: count for name, count in expected.items() if name in products}
    for node in pairs:
        scale, zero_point = (constants[name] for name in node.input[1:])
        assert scale.shape == zero_point.shape == ()
        assert scale.dtype == np.float32
        assert zero_point.dtype == np.uint8
    outputs = {one.name for one in quantized.model.graph.output}
    made = {name: node.op_type for node in quantized.model.graph.node for name in node.output}
    assert all(made[name] != "DequantizeLinear" for name in outputs)


@pytest.mark.parametrize("name", ["Conv-Clip", "Add-Relu", "Concat", "SiLU", "MatMul"])
@pytest.mark.parametrize("activations", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
def test_activation_types(name: str, activations: str, symmetric: bool, tmp_path: Path) -> None:
    quantized = quantize_static(
        MODELS[name].build(),
        tmp_path,
        target="onnx",
        activations=activations,
        symmetric_activations=symmetric,
    )
    onnx.checker.check_model(str(quantized.path), full_check=True)
    scale, zero_point = parameters(quantized, "a")
    assert zero_point.dtype == np.dtype(activations)
    limits = np.iinfo(activations)
    if symmetric:
        assert zero_point == (limits.min + limits.max + 1) // 2
    assert scale > 0
    feeds = images(1)[0]
    assert_near_float(quantized, feeds)
    error = np.abs(quantized.run_reference(feeds)[0] - quantized.run_float(feeds)[0]).max()
    assert error <= largest_error(quantized, feeds)


@pytest.mark.parametrize("name", ["Conv", "Add-Relu", "Gemm-transposed", "MatMul"])
@pytest.mark.parametrize(
    "options",
    [
        {"weights": "uint8"},
        {"weights": "uint8", "symmetric": True},
        {"weights": "int8", "symmetric": False},
        {"weights": "int4"},
        {"weights": "int4", "symmetric": True},
        {"weights": "int4", "symmetric": False},
        {"weights": "int16"},
        {"per_channel": False},
        {"per_channel": False, "weights": "uint8"},
        {"per_channel": False, "weights": "int4"},
        {"reduce_range": True},
        {"reduce_range": True, "weights": "uint8"},
    ],
    ids=lambda options: ",".join(f"{name}={value}" for name, value in options.items()),
)
@pytest.mark.parametrize("target", TARGETS)
def test_weight_types(name: str, options: dict[str, object], target: str, tmp_path: Path) -> None:
    if target == "ort-cpu" and options.get("weights") == "int16":
        pytest.skip("refused: see test_types_without_kernels_are_refused")
    quantized = quantize_static(MODELS[name].build(), tmp_path, target=target, **options)
    onnx.checker.check_model(str(quantized.path), full_check=True)
    feeds = images(1)[0]
    assert_near_float(quantized, feeds)
    reference = quantized.run_reference(feeds)[0]
    error = np.abs(reference - quantized.run_float(feeds)[0]).max()
    assert error <= largest_error(quantized, feeds)
    if target == "ort-cpu":
        assert integer_kernels(quantized) == MODELS[name].kernels
        assert pairs_left(quantized) == MODELS[name].left


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activations": "int8"}, "--activations int8: target 'ort-cpu' has no fast kernel"),
        ({"activations": "int16"}, "types that it has: uint8, uint4; or use --target onnx"),
        ({"weights": "int16"}, "--weights int16: target 'ort-cpu' has no fast kernel"),
        ({"weights": "uint4"}, "--weights uint4 cannot be calibrated"),
        ({"weights": "int4", "reduce_range": True}, "--reduce-range is for 8-bit weights"),
    ],
    ids=lambda one: one if isinstance(one, str) else ",".join(map(str, one.values())),
)
def test_types_without_kernels_are_refused(
    options: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(onnxq.OnnxqError, match=message):
        quantize_static(MODELS["Conv"].build(), tmp_path, **options)
    assert not (tmp_path / "quantized.onnx").exists()


def test_4_bit_weights_take_half_the_bytes(tmp_path: Path) -> None:
    sizes = {}
    for kind in ("int8", "int4"):
        (tmp_path / kind).mkdir()
        quantized = quantize_static(MODELS["Conv"].build(), tmp_path / kind, weights=kind)
        (stored,) = (
            one for one in quantized.model.graph.initializer if list(one.dims) == [24, 24, 3, 3]
        )
        sizes[kind] = len(stored.raw_data)
        assert quantized.optimized.graph.node
    assert sizes == {"int8": 24 * 24 * 9, "int4": 24 * 24 * 9 // 2}


@pytest.mark.parametrize("name", ["Conv", "Gemm-transposed", "MatMul"])
@pytest.mark.parametrize("per_channel", [True, False], ids=["per-channel", "per-tensor"])
def test_zero_points_of_4_bits_are_subtracted_once(
    name: str, per_channel: bool, tmp_path: Path
) -> None:
    """With zero points in the kernel onnxruntime's convolutions are slower than float."""
    model = MODELS[name].build()
    # All of one side: the integers of half of a symmetric range would be left over.
    for stored in model.graph.initializer:
        if len(stored.dims) > 1:
            array = np.abs(numpy_helper.to_array(stored)) + np.float32(0.1)
            stored.CopyFrom(numpy_helper.from_array(array, stored.name))
    quantized = quantize_static(model, tmp_path, weights="int4", per_channel=per_channel)
    arrays = {one.name: numpy_helper.to_array(one) for one in quantized.model.graph.initializer}
    nodes = quantized.model.graph.node
    subtractions = [one for one in nodes if one.op_type == "Sub"]
    assert subtractions
    for one in subtractions:
        assert arrays[one.input[1]].dtype == np.int8
        assert np.all(arrays[one.input[1]] == -8)
        (reader,) = (node for node in nodes if one.output[0] in node.input)
        assert not arrays[reader.input[{"DequantizeLinear": 2, "QGemm": 5}[reader.op_type]]].any()
    assert "Sub" not in count_operators(quantized.optimized)
    assert integer_kernels(quantized) == MODELS[name].kernels
    feeds = images(1)[0]
    error = np.abs(quantized.run_reference(feeds)[0] - quantized.run_float(feeds)[0]).max()
    assert error <= largest_error(quantized, feeds)


# What the numbers are.


@pytest.mark.parametrize("activations", ["uint8", "int8", "uint16", "int16"])
def test_relu_is_taken_over_by_the_zero_point(activations: str, tmp_path: Path) -> None:
    model = MODELS["Conv-Relu"].build()
    quantized = quantize_static(model, tmp_path, target="onnx", activations=activations)
    scale, zero_point = parameters(quantized, "c")
    limits = np.iinfo(activations)
    assert zero_point == limits.min
    inputs = [feeds["x"] for feeds in images()]
    expected = max(float(_value(model, "c", x).max()) for x in _calibrated(inputs))
    assert scale == pytest.approx(expected / (limits.max - limits.min), rel=1e-6)
    assert "Relu" not in count_operators(quantized.optimized)


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 6.0), (-1.0, 1.0), (0.0, 0.05), (-0.3, 100.0), (-0.37, 0.73)]
)
@pytest.mark.parametrize("activations", ["uint8", "int8", "uint16"])
def test_clip_is_taken_over_by_the_range(
    low: float, high: float, activations: str, tmp_path: Path
) -> None:
    model = make_model(
        "[first] a = Conv(x, w1) [mid] m = Conv(a, w2) c = Clip(m, low, high) "
        "[last] d = Conv(c, w4) y = Neg(d)",
        f"{IMAGE} x",
        f"{IMAGE} y",
        {
            **weights(w1=(24, 24, 1, 1), w2=(24, 24, 1, 1), w4=(24, 24, 1, 1)),
            "low": np.float32(low),
            "high": np.float32(high),
        },
        opset=21,
    )
    target = "ort-cpu" if activations == "uint8" else "onnx"
    quantized = quantize_static(model, tmp_path, target=target, activations=activations)
    scale, zero_point = (float(one) for one in parameters(quantized, "c"))
    limits = np.iinfo(activations)
    assert np.float32(low) <= np.float32(scale) * np.float32(limits.min - zero_point)
    assert np.float32(scale) * np.float32(limits.max - zero_point) <= np.float32(high)
    # onnxruntime 1.32 removes a Clip in front of 8 bits only; 16 bits have no integer kernel.
    if limits.bits == 8:
        assert "Clip" not in count_operators(quantized.optimized)
    assert_near_float(quantized, images(1)[0])


def test_zero_behind_a_relu_that_others_read_stays_float(tmp_path: Path) -> None:
    """The value before a Relu is read elsewhere, so its range cannot be that of the Relu."""
    model = make_model(
        "[first] a = Conv(x, w1) c = Relu(a) n = Neg(a) [last] d = Conv(c, w4) y = Add(n, d)",
        f"{IMAGE} x",
        f"{IMAGE} y",
        weights(w1=(24, 24, 1, 1), w4=(24, 24, 1, 1)),
        opset=21,
    )
    quantized = quantize_static(model, tmp_path)
    assert_near_float(quantized, images(1)[0])


@pytest.mark.parametrize("per_channel", [True, False], ids=["per-channel", "per-tensor"])
@pytest.mark.parametrize(
    ("name", "layer"), [("Conv", "mid"), ("Gemm", "mm"), ("Gemm-transposed", "mm")]
)
def test_bias_has_the_scale_of_the_sums(
    name: str, layer: str, per_channel: bool, tmp_path: Path
) -> None:
    model = MODELS[name].build()
    quantized = quantize_static(model, tmp_path, per_channel=per_channel)
    integers, scale, _ = weight_of(quantized, layer, 2)
    weight_scale = weight_of(quantized, layer)[1]
    activation_scale, _ = parameters(quantized, "a")
    bias = next(
        numpy_helper.to_array(one)
        for one in model.graph.initializer
        if one.name == ("b3" if name == "Conv" else "bm")
    )
    assert integers.dtype == np.int32
    np.testing.assert_array_equal(scale, activation_scale * weight_scale)
    steps = bias.astype(np.float64) / scale.astype(np.float64)
    np.testing.assert_array_equal(integers, np.rint(steps).astype(np.int32))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "channel",
    [
        pytest.param((1e-9, 1000.0), id="tiny-weights"),
        pytest.param((0.0, 1000.0), id="no-weights"),
        pytest.param((1e-30, -3.0), id="vanishing-weights"),
    ],
)
def test_bias_too_large_for_its_scale(
    channel: tuple[float, float], target: str, tmp_path: Path
) -> None:
    """A channel of almost nothing but its bias: |b| / (s_x s_w) does not fit int32."""
    factor, offset = channel
    constants = weights(w1=(24, 24, 1, 1), w2=(24, 24, 1, 1), b2=(24,), w4=(24, 24, 1, 1))
    constants["w2"][3] *= np.float32(factor)
    constants["b2"][3] = offset
    model = make_model(
        "[first] a = Conv(x, w1) [mid] c = Conv(a, w2, b2) [last] d = Conv(c, w4) y = Neg(d)",
        f"{IMAGE} x",
        f"{IMAGE} y",
        constants,
        opset=21,
    )
    quantized = quantize_static(model, tmp_path, target=target)
    stored = quantized.read_constant(_layer(quantized, "mid").input[2])
    # Half a step of the output, which the channel shares with all others, is lost anyway.
    scale, _ = parameters(quantized, "c")
    assert abs(float(stored[3]) - offset) <= float(scale) / 2
    assert_near_float(quantized, images(1)[0])


# Float layers beside integer ones.

FLOAT_LAYERS = {
    "Conv": ("[free] e = Conv(a, wf, bf)", {"wf": (24, 24, 1, 1), "bf": (24,)}),
    "Conv-no-bias": ("[free] e = Conv(a, wf)", {"wf": (24, 24, 1, 1)}),
    "ConvTranspose": ("[free] e = ConvTranspose(a, wf, bf)", {"wf": (24, 24, 1, 1), "bf": (24,)}),
    "MatMul": ("[free] e = MatMul(a, wf)", {"wf": (8, 8)}),
    "MatMul-Add": ("[free] m = MatMul(a, wf) [bias] e = Add(m, bf)", {"wf": (8, 8), "bf": (8,)}),
}


@pytest.mark.parametrize(
    ("target", "storage"),
    [("ort-cpu", True), ("ort-cpu", False), ("onnx", True)],
    ids=["ort-cpu-stored-int8", "ort-cpu-stored-float", "onnx-stored-int8"],
)
@pytest.mark.parametrize("follower", ["", "Relu", "Clip"], ids=["bare", "Relu", "Clip"])
@pytest.mark.parametrize("layer", FLOAT_LAYERS)
def test_excluded_layer_stays_float(
    layer: str, follower: str, target: str, storage: bool, tmp_path: Path
) -> None:
    nodes, shapes = FLOAT_LAYERS[layer]
    bounds = ", low, high" if follower == "Clip" else ""
    last = f"c = {follower}(e{bounds})" if follower else "c = Identity(e)"
    constants = weights(w1=(24, 24, 1, 1), w4=(24, 24, 1, 1), **shapes)
    if follower == "Clip":
        constants |= {"low": np.float32(-1), "high": np.float32(1)}
    text = f"[first] a = Conv(x, w1) {nodes} {last} [last] d = Conv(c, w4) y = Neg(d)"
    if not follower:
        text = text.replace("c = Identity(e)", "").replace("Conv(c,", "Conv(e,")
    model = make_model(text, f"{IMAGE} x", "float[N, C, H, W] y", constants, opset=21)
    quantized = quantize_static(
        model,
        tmp_path,
        exclude=["free", "bias"] if layer == "MatMul-Add" else ["free"],
        target=target,
        storage=storage,
    )
    assert calibrated_operators(quantized) == ["Conv", "Conv"]
    assert integer_kernels(quantized) == {"QLinearConv": 2}
    verification = quantized.result.verification
    assert verification is not None
    assert verification.optimized is not None
    assert sum(verification.optimized.float_nodes.values()) == 1
    assert verification.optimized.constant_dequantize_nodes == ()
    # The float layer, alone, on what it reads in the quantized model.
    value = "c" if follower else "e"
    for feeds in images(2):
        given = _value(quantized.model, _layer(quantized, "free").input[0], feeds["x"])
        found = _value(quantized.model, _float_input(quantized, value), feeds["x"])
        inner = f"{nodes} {last}".replace("c = Identity(e)", "")
        alone = make_model(
            inner,
            f"{IMAGE} a",
            f"float[N, C, H, W] {value}",
            {name: array for name, array in constants.items() if name not in ("w1", "w4")},
            opset=21,
        )
        expected = run(alone, {"a": given})[0]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("follower", ["", "Relu"], ids=["bare", "Relu"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("transposed", [0, 1])
def test_excluded_gemm_stays_float(
    transposed: int, target: str, follower: str, tmp_path: Path
) -> None:
    last = f"h = {follower}(g)" if follower else ""
    shape = (64, 96) if transposed else (96, 64)
    model = make_model(
        f"[first] a = Gemm(x, w1) [free] g = Gemm<transB = {transposed}>(a, wf, bf) {last} "
        f"[last] d = Gemm({'h' if follower else 'g'}, w4) y = Neg(d)",
        "float[N, 80] x",
        "float[N, 96] y",
        weights(w1=(80, 96), wf=shape, bf=(64,), w4=(64, 96)),
        opset=21,
    )
    samples = [
        {"x": np.random.default_rng(i).standard_normal((2, 80)).astype(np.float32)}
        for i in range(6)
    ]
    quantized = quantize_static(
        model, tmp_path, samples, exclude=["free"], target=target, dynamic_matmul=False
    )
    assert calibrated_operators(quantized) == ["Gemm", "Gemm"]
    verification = quantized.result.verification
    assert verification is not None
    assert verification.optimized is not None
    assert sum(verification.optimized.float_nodes.values()) == 1
    assert integer_kernels(quantized) == {"QGemm": 2}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("side", ["MatMul + b", "b + MatMul"])
@pytest.mark.parametrize("rank", [2, 3])
def test_bias_behind_a_matmul_costs_no_float_gemm(
    rank: int, side: str, target: str, tmp_path: Path
) -> None:
    sizes = "N, 96" if rank == 2 else "N, 5, 96"
    operands = "m, b" if side.startswith("M") else "b, m"
    model = make_model(
        f"[mm] m = MatMul(x, w) [bias] s = Add({operands}) y = Tanh(s)",
        f"float[{sizes}] x",
        f"float[{sizes}] y".replace("96", "80"),
        weights(w=(96, 80), b=(80,)),
        opset=21,
    )
    shape = (4, 96) if rank == 2 else (4, 5, 96)
    samples = [
        {"x": np.random.default_rng(i).standard_normal(shape).astype(np.float32)} for i in range(6)
    ]
    quantized = quantize_static(model, tmp_path, samples, target=target, dynamic_matmul=False)
    assert calibrated_operators(quantized) == ["MatMul"]
    verification = quantized.result.verification
    assert verification is not None
    assert verification.optimized is not None
    assert verification.optimized.float_nodes == {}
    assert integer_kernels(quantized) == {"MatMulIntegerToFloat": 1}
    (feeds, *_) = samples
    expected, actual = quantized.run_float(feeds)[0], quantized.run(feeds)[0]
    scale, _ = parameters(quantized, "x")
    stored = stored_weight(quantized, "mm")
    off = np.abs(stored - weights(w=(96, 80))["w"]).sum(0) * np.abs(feeds["x"]).max()
    bound = np.abs(stored).sum(0).max() * float(scale) + off.max()
    assert np.abs(actual - expected).max() <= bound


PRODUCTS = {
    "MatMul": "h = MatMul(x, w)",
    "MatMul-Add": "g = MatMul(x, w) h = Add(g, b)",
    "Gemm": "h = Gemm(x, w)",
    "Gemm-bias": "h = Gemm(x, w, b)",
}
FLOAT_READERS = {
    "Relu-out": "y = Relu(h)",
    "Relu": "r = Relu(h) y = Tanh(r)",
    "Clip": "r = Clip(h, low, high) y = Tanh(r)",
    "LeakyRelu": "r = LeakyRelu<alpha = 0.1>(h) y = Neg(r)",
    "Sigmoid": "y = Sigmoid(h)",
    "scaled": "r = Mul(h, half) y = Tanh(r)",
    "Add-Relu": "a = Add(h, c) r = Relu(a) y = Neg(r)",
    "Add-rows": "r = Add(h, rows) y = Tanh(r)",
    "Sum-rows": "r = Sum(h, rows) y = Tanh(r)",
    "Transpose": "y = Transpose<perm = [1, 0]>(h)",
    "Softmax": "y = Softmax(h)",
    "Gelu": "y = Gelu(h)",
}
FUSED = ("Relu", "Clip", "Sum-rows", "Transpose")
"""Those that onnxruntime fuses with a product of floats."""


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("product", "reader"),
    [
        *((product, reader) for product in ("MatMul-Add", "Gemm-bias") for reader in FLOAT_READERS),
        *((product, reader) for product in ("MatMul", "Gemm") for reader in FUSED),
    ],
)
def test_float_node_behind_a_product(
    product: str, reader: str, target: str, tmp_path: Path
) -> None:
    """onnxruntime fuses what follows a product before it looks for integers, and finds none then.

    It cannot where an operator is written instead. With standard operators there is none, so that
    the pairs stay, for any runtime; a note says where onnxruntime has to compute in float.
    """
    text = f"{PRODUCTS[product]} {FLOAT_READERS[reader]}"
    constants = {
        **weights(w=(96, 80), b=(80,), c=(80,), rows=(4, 80)),
        "low": np.float32(-1),
        "high": np.float32(1),
        "half": np.float32(0.5),
    }
    words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
    used = {name: array for name, array in constants.items() if name in words}
    model = make_model(text, "float[4, 96] x", "float[M, K] y", used, opset=21)
    rng = np.random.default_rng(0)
    samples = [{"x": rng.standard_normal((4, 96)).astype(np.float32)} for _ in range(6)]
    quantized = quantize_static(model, tmp_path, samples, target=target, dynamic_matmul=False)
    if target == "ort-cpu":
        assert_is_operator(quantized)
    else:
        layer = PRODUCTS[product].split("= ")[1].split("(")[0]
        assert_is_in_pairs(quantized, layer, biased=product == "Gemm-bias")
    expected, actual = quantized.run_float(samples[0])[0], quantized.run(samples[0])[0]
    # One tensor and one weight of 8 bits have 40 dB each; half of it is far from none.
    assert np.linalg.norm(actual - expected) < 0.1 * np.linalg.norm(expected)
    # No value is rounded behind the product, so that only the last bits of floats differ: with
    # 96 products a sum, and readers that have a slope of at most about 1.
    reference = quantized.run_reference(samples[0])[0]
    bound = 96 * np.finfo(np.float32).eps * max(1.0, float(np.abs(reference).max()))
    np.testing.assert_allclose(actual, reference, rtol=0, atol=bound)


def assert_is_operator(quantized: Quantized) -> None:
    """A product is written as one operator, which the runtime runs as it is."""
    verification = quantized.result.verification
    assert verification is not None
    assert verification.optimized is not None
    assert verification.optimized.float_nodes == {}
    assert verification.optimized.constant_dequantize_nodes == ()
    written = quantized.operators()
    assert written["QuantizeLinear"] == 1
    assert "DequantizeLinear" not in written
    products = written.get("QGemm", 0) + written.get("MatMulIntegerToFloat", 0)
    assert products == sum(integer_kernels(quantized).values()) == 1


def assert_is_in_pairs(quantized: Quantized, layer: str, *, biased: bool) -> None:
    """A product, of type ``layer``, reads integers through DequantizeLinear and gives floats."""
    assert domains(quantized.model) == {"ai.onnx"}
    written = quantized.operators()
    assert (written["QuantizeLinear"], written[layer]) == (1, 1)
    assert written["DequantizeLinear"] == (3 if biased else 2)
    (node,) = (one for one in quantized.model.graph.node if one.op_type == layer)
    made = {name: one.op_type for one in quantized.model.graph.node for name in one.output}
    assert {made[name] for name in node.input} == {"DequantizeLinear"}
    assert_note_where_float(quantized)


def assert_note_where_float(quantized: Quantized) -> None:
    """Weights that onnxruntime expands at every run are told of, and only they."""
    verification = quantized.result.verification
    assert verification is not None
    assert verification.optimized is not None
    expanded = len(verification.optimized.constant_dequantize_nodes)
    assert (expanded > 0) == bool(verification.optimized.float_nodes)
    told = [note for note in verification.notes if "the result is for other runtimes" in note]
    assert len(told) == (1 if expanded else 0)
    assert all(f"dequantize {expanded} constants" in note for note in told)


@pytest.mark.parametrize("target", TARGETS)
def test_classifier_behind_convolutions(target: str, tmp_path: Path) -> None:
    """As in VGG: the last layer has too few columns for integers, so what it reads is float."""
    model = make_model(
        "[conv] a = Conv(x, w1) r = Relu(a) f = Flatten(r) [hidden] h = Gemm(f, wm, bm) "
        "g = Relu(h) [class] y = Gemm(g, wc)",
        f"{IMAGE} x",
        "float[N, 10] y",
        weights(w1=(24, 24, 1, 1), wm=(1536, 64), bm=(64,), wc=(64, 10)),
        opset=21,
    )
    quantized = quantize_static(model, tmp_path, target=target)
    assert calibrated_operators(quantized) == ["Conv", "Flatten", "Gemm"]
    verification = quantized.result.verification
    assert verification is not None
    assert verification.optimized is not None
    if target == "ort-cpu":
        assert integer_kernels(quantized) == {"QLinearConv": 1, "QGemm": 1}
        assert verification.optimized.float_nodes == {"Gemm": 1}
    else:
        made = {name: one.op_type for one in quantized.model.graph.node for name in one.output}
        hidden = _layer(quantized, "hidden")
        assert hidden.op_type == "Gemm"
        assert {made[name] for name in hidden.input} == {"DequantizeLinear"}
        assert domains(quantized.model) == {"ai.onnx"}
        assert integer_kernels(quantized) == {"QLinearConv": 1}
        assert_note_where_float(quantized)
    feeds = images(1)[0]
    assert_near_float(quantized, feeds)
    difference = np.abs(quantized.run(feeds)[0] - quantized.run_reference(feeds)[0])
    assert difference.max() <= largest_error(quantized, feeds, against_float=False)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (80,), (1, 80)], ids=str)
def test_bias_of_any_shape_behind_a_matmul(shape: tuple[int, ...], tmp_path: Path) -> None:
    model = make_model(
        "m = MatMul(x, w) s = Add(m, b) y = Tanh(s)",
        "float[N, 96] x",
        "float[N, 80] y",
        {**weights(w=(96, 80)), "b": np.full(shape, 0.25, np.float32)},
        opset=21,
    )
    rng = np.random.default_rng(0)
    samples = [{"x": rng.standard_normal((4, 96)).astype(np.float32)} for _ in range(6)]
    quantized = quantize_static(model, tmp_path, samples, dynamic_matmul=False)
    assert integer_kernels(quantized) == {"MatMulIntegerToFloat": 1}


def test_clip_to_zero(tmp_path: Path) -> None:
    """Nothing is left of the layer, and nothing may fail because of that."""
    model = make_model(
        "a = Conv(x, w1) c = Clip(a, zero, zero) [last] d = Conv(c, w4) y = Neg(d)",
        f"{IMAGE} x",
        f"{IMAGE} y",
        {**weights(w1=(24, 24, 1, 1), w4=(24, 24, 1, 1)), "zero": np.float32(0)},
        opset=21,
    )
    quantized = quantize_static(model, tmp_path)
    np.testing.assert_array_equal(quantized.run(images(1)[0])[0], 0)


# Who reads what.


def test_value_read_by_integer_and_float_nodes(tmp_path: Path) -> None:
    """A float tensor is quantized for its integer readers; others read it as it is."""
    model = make_model(
        "[first] a = Conv(x, w1) [other] e = Conv(x, w2) c = Add(a, e) [last] d = Conv(c, w4) "
        "t = Tanh(x) y = Sub(d, t)",
        f"{IMAGE} x",
        f"{IMAGE} y",
        weights(w1=(24, 24, 1, 1), w2=(24, 24, 1, 1), w4=(24, 24, 1, 1)),
        opset=21,
    )
    quantized = quantize_static(model, tmp_path)
    (tanh,) = (node for node in quantized.model.graph.node if node.op_type == "Tanh")
    assert list(tanh.input) == ["x"]
    quantizers = [
        node
        for node in quantized.model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] == "x"
    ]
    assert len(quantizers) == 1
    assert pairs_left(quantized) == (1, 1)
    assert_near_float(quantized, images(1)[0])


def test_graph_outputs_are_float_tensors(tmp_path: Path) -> None:
    """A tensor that is an output of the model and read by an integer node as well."""
    model = make_model(
        "[first] a = Conv(x, w1) [mid] c = Conv(a, w2) [last] d = Conv(c, w4) y = Neg(d)",
        f"{IMAGE} x",
        f"{IMAGE} y, {IMAGE} c",
        weights(w1=(24, 24, 1, 1), w2=(24, 24, 1, 1), w4=(24, 24, 1, 1)),
        opset=21,
    )
    quantized = quantize_static(model, tmp_path)
    assert reasons(quantized)["mid"] == "an output of the model stays float"
    assert [one.name for one in quantized.model.graph.output] == ["y", "c"]
    assert {node.op_type for node in quantized.model.graph.node if "c" in node.output} == {"Conv"}
    for feeds in images(2):
        given = _value(quantized.model, _layer(quantized, "mid").input[0], feeds["x"])
        weight = weights(w2=(24, 24, 1, 1))["w2"]
        exact = make_model("c = Conv(a, w)", f"{IMAGE} a", f"{IMAGE} c", {"w": weight}, opset=21)
        noise = np.abs(quantized.run(feeds)[1] - run(exact, {"a": given})[0])
        stored = quantized.read_constant(_layer(quantized, "mid").input[1])
        bound = np.abs(stored - weight).sum((1, 2, 3)).max() * np.abs(given).max()
        assert noise.max() <= bound + 1e-5


def test_input_that_is_read_by_two_integer_nodes_is_quantized_once(tmp_path: Path) -> None:
    quantized = quantize_static(MODELS["Add"].build(), tmp_path)
    readers = [
        node
        for node in quantized.model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] == "x"
    ]
    assert len(readers) == 1


@pytest.mark.parametrize("target", TARGETS)
def test_shared_weight_is_stored_once(target: str, tmp_path: Path) -> None:
    model = make_model(
        "[first] a = Conv(x, w, b) [mid] c = Conv(a, w, b) [last] d = Conv(c, w) y = Neg(d)",
        f"{IMAGE} x",
        f"{IMAGE} y",
        weights(w=(24, 24, 1, 1), b=(24,)),
        opset=21,
    )
    quantized = quantize_static(model, tmp_path, target=target)
    large = [one for one in quantized.model.graph.initializer if list(one.dims) == [24, 24, 1, 1]]
    assert len(large) == 1
    # The two layers have inputs of different scales, so the bias has different integers in each.
    first, mid = (weight_of(quantized, layer, 2) for layer in ("first", "mid"))
    assert not np.array_equal(first[1], mid[1])
    assert integer_kernels(quantized) == {"QLinearConv": 3}
    assert_near_float(quantized, images(1)[0])


def test_weight_shared_with_a_float_reader(tmp_path: Path) -> None:
    model = make_model(
        "[first] a = Conv(x, w) [free] c = ConvTranspose(a, w) [last] d = Conv(c, w) y = Neg(d)",
        f"{IMAGE} x",
        f"{IMAGE} y",
        weights(w=(24, 24, 1, 1)),
        opset=21,
    )
    quantized = quantize_static(model, tmp_path)
    assert calibrated_operators(quantized) == ["Conv", "Conv"]
    verification = quantized.result.verification
    assert verification is not None
    assert verification.optimized is not None
    assert verification.optimized.constant_dequantize_nodes == ()
    feeds = images(1)[0]
    expected, actual = quantized.run_float(feeds)[0], quantized.run(feeds)[0]
    assert np.linalg.norm(actual - expected) < 0.1 * np.linalg.norm(expected)


@pytest.mark.parametrize("target", TARGETS)
def test_same_input_twice(target: str, tmp_path: Path) -> None:
    model = make_model(
        "[first] a = Conv(x, w1) [sum] c = Add(a, a) [last] d = Conv(c, w4) y = Neg(d)",
        f"{IMAGE} x",
        f"{IMAGE} y",
        weights(w1=(24, 24, 1, 1), w4=(24, 24, 1, 1)),
        opset=21,
    )
    quantized = quantize_static(model, tmp_path, target=target)
    assert_near_float(quantized, images(1)[0])


# Bodies of If nodes.

BRANCHES = {
    "both": "y = If(b) <then_branch = yes () => (float[N, 24, 8, 8] y1) "
    "{ [first] a1 = Conv(x, w1, b1) [last] d1 = Conv(a1, w2) y1 = Neg(d1) }, "
    "else_branch = no () => (float[N, 24, 8, 8] y2) "
    "{ [other] a2 = Conv(x, w2) r2 = Relu(a2) [end] d2 = Conv(r2, w1, b1) y2 = Abs(d2) }>",
    "outer-value": "[first] a = Conv(x, w1, b1) "
    "y = If(b) <then_branch = yes () => (float[N, 24, 8, 8] y1) "
    "{ [last] d1 = Conv(a, w2) y1 = Neg(d1) }, "
    "else_branch = no () => (float[N, 24, 8, 8] y2) { y2 = Abs(a) }>",
    "outer-input": "[first] a = Conv(x, w1, b1) [mid] e = Conv(a, w2) z = Neg(e) "
    "i = If(b) <then_branch = yes () => (float[N, 24, 8, 8] y1) "
    "{ [inner] d1 = Conv(x, w2) [last] e1 = Conv(d1, w1) y1 = Neg(e1) }, "
    "else_branch = no () => (float[N, 24, 8, 8] y2) { y2 = Abs(x) }> y = Add(z, i)",
    "nested": "y = If(b) <then_branch = yes () => (float[N, 24, 8, 8] y1) "
    "{ [first] a1 = Conv(x, w1) y1 = If(b2) <then_branch = inner () => (float[N, 24, 8, 8] y3) "
    "{ [deep] a3 = Conv(a1, w2) [last] d3 = Conv(a3, w1) y3 = Neg(d3) }, "
    "else_branch = skip () => (float[N, 24, 8, 8] y4) { y4 = Abs(a1) }> }, "
    "else_branch = no () => (float[N, 24, 8, 8] y2) { y2 = Abs(x) }>",
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("shape", BRANCHES)
def test_branches(shape: str, target: str, tmp_path: Path) -> None:
    conditions = "bool b, bool b2" if shape == "nested" else "bool b"
    model = make_model(
        BRANCHES[shape],
        f"{IMAGE} x, {conditions}",
        f"{IMAGE} y",
        weights(w1=(24, 24, 1, 1), w2=(24, 24, 1, 1))
        | (weights(b1=(24,)) if "b1" in BRANCHES[shape] else {}),
        opset=21,
    )
    samples = [
        {**feeds, "b": np.array(index % 2 == 0)}
        | ({"b2": np.array(index % 4 == 0)} if shape == "nested" else {})
        for index, feeds in enumerate(images(10))
    ]
    quantized = quantize_static(model, tmp_path, samples, target=target)
    onnx.checker.check_model(str(quantized.path), full_check=True)
    assert "Conv" in calibrated_operators(quantized)
    verification = quantized.result.verification
    assert verification is not None
    assert verification.optimized is not None
    assert verification.optimized.constant_dequantize_nodes == ()
    assert integer_kernels(quantized)["QLinearConv"] == calibrated_operators(quantized).count(
        "Conv"
    )
    for feeds in samples:
        expected, actual = quantized.run_float(feeds)[0], quantized.run(feeds)[0]
        # Three tensors of 8 bits over +-4 standard deviations have 40 dB each; a wrong number or
        # operator leaves about none. Half of it separates the two.
        assert np.linalg.norm(actual - expected) < 10 ** (-20 / 20) * np.linalg.norm(expected)
        difference = np.abs(quantized.run_reference(feeds)[0] - actual)
        assert np.median(difference) <= 1e-6


def test_branch_that_no_sample_takes_still_works(tmp_path: Path) -> None:
    """Nothing is known of its activations: the result must still run, and warn or stay float."""
    model = make_model(
        BRANCHES["both"],
        f"{IMAGE} x, bool b",
        f"{IMAGE} y",
        weights(w1=(24, 24, 1, 1), b1=(24,), w2=(24, 24, 1, 1)),
        opset=21,
    )
    samples = [{**feeds, "b": np.array(True)} for feeds in images(10)]
    quantized = quantize_static(model, tmp_path, samples)
    feeds = {**images(1)[0], "b": np.array(False)}
    expected, actual = quantized.run_float(feeds)[0], quantized.run(feeds)[0]
    assert np.linalg.norm(actual - expected) < 0.1 * np.linalg.norm(expected)


MOVEMENTS = {
    "none": "f = Abs(a)",
    "Transpose": "f = Transpose<perm = [0, 1, 3, 2]>(a)",
    "Squeeze": "e = Unsqueeze(a, i) f = Squeeze(e, i)",
}
"""For the others there is test_regions.py, which starts no process."""


@pytest.mark.parametrize("movement", MOVEMENTS)
def test_moved_value_that_a_branch_reads(movement: str, tmp_path: Path) -> None:
    """onnxruntime 1.32 aborts the process where it moves a pair across the border of a body."""
    constants = weights(w1=(24, 24, 1, 1), w4=(24, 24, 1, 1))
    if movement == "Squeeze":
        constants["i"] = np.array([2])
    model = make_model(
        f"[first] a = Conv(x, w1) {MOVEMENTS[movement]} [last] z = Conv(a, w4) n = Neg(z) "
        "i1 = If(b) <then_branch = yes () => (float[N, 24, 8, 8] y1) { y1 = Abs(f) }, "
        "else_branch = no () => (float[N, 24, 8, 8] y2) { y2 = Tanh(f) }> y = Add(i1, n)",
        f"{IMAGE} x, bool b",
        f"{IMAGE} y",
        constants,
        opset=21,
    )
    save(model, tmp_path / "net.onnx")
    samples = [{**feeds, "b": np.array(True)} for feeds in images()]
    save_samples(samples, tmp_path / "samples")
    # In a process of its own, which an abort does not take the other tests with.
    fast = ("--accuracy", "fast")
    result = onnxq_command("static", "net.onnx", "--calib", "samples", *fast, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "net.static.onnx").is_file()


# Edges.


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_other_batches_than_in_the_samples(batch: int, get: Get) -> None:
    quantized = get("Conv", "ort-cpu", 21)
    feeds = {"x": np.zeros((batch, CHANNELS, SIZE, SIZE), np.float32)}
    assert quantized.run(feeds)[0].shape == quantized.run_float(feeds)[0].shape


def test_names_of_inputs_outputs_and_nodes_stay(get: Get) -> None:
    quantized = get("Add", "ort-cpu", 21)
    assert [one.name for one in quantized.model.graph.input] == ["x"]
    assert [one.name for one in quantized.model.graph.output] == ["y"]
    names = {node.name for node in quantized.model.graph.node}
    assert {"first", "side", "sum", "last"} <= names


def test_values_are_named_once(get: Get) -> None:
    for name in MODELS:
        for graph in iterate_graphs(get(name, "ort-cpu", 21).model):
            made = [output for node in graph.node for output in node.output if output]
            assert len(made) == len(set(made))


def test_old_operator_set_is_raised(tmp_path: Path) -> None:
    model = make_model(
        "[first] a = Conv(x, w1) c = Relu(a) [last] d = Conv(c, w4) y = Neg(d)",
        f"{IMAGE} x",
        f"{IMAGE} y",
        weights(w1=(24, 24, 1, 1), w4=(24, 24, 1, 1)),
        opset=11,
        ir_version=6,
    )
    quantized = quantize_static(model, tmp_path)
    assert quantized.result.float_opset == 11
    assert quantized.result.opset >= 13
    assert integer_kernels(quantized) == {"QLinearConv": 2}
    assert_near_float(quantized, images(1)[0])


def test_weights_outside_the_file(tmp_path: Path) -> None:
    source = save_external(MODELS["Conv"].build(), tmp_path / "model.onnx")
    data = save_samples(images(), tmp_path / "samples")
    result = onnxq.quantize_static(source, data, tmp_path / "out.onnx", method="minmax")
    whole = save(MODELS["Conv"].build(), tmp_path / "whole.onnx")
    inside = onnxq.quantize_static(whole, data, tmp_path / "in.onnx", method="minmax")
    feeds = images(1)[0]
    (tmp_path / "model.onnx").unlink()
    (tmp_path / "weights.bin").unlink()
    outputs = [_run_file(one.output, feeds) for one in (result, inside)]
    np.testing.assert_array_equal(*outputs)


def _run_file(path: Path, feeds: dict[str, np.ndarray]) -> np.ndarray:
    return run(onnx.load(str(path)), feeds)[0]


def _calibrated(samples: list[np.ndarray]) -> list[np.ndarray]:
    """Those that are not held back."""
    return [one for index, one in enumerate(samples) if index % 5 != 4]


def _layer(quantized: Quantized, name: str) -> onnx.NodeProto:
    (node,) = (one for one in quantized.model.graph.node if one.name == name)
    return node


def _float_input(quantized: Quantized, value: str) -> str:
    """The tensor that is quantized for the readers of ``value``."""
    names = [
        node.input[0] for node in quantized.model.graph.node if node.op_type == "QuantizeLinear"
    ]
    return value if value in names else next(name for name in names if name.startswith(value))


def _value(model: onnx.ModelProto, name: str, x: np.ndarray) -> np.ndarray:
    """One value inside a model, without optimisation of the runtime."""
    import onnxruntime

    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    if name == "x":
        return x
    del exposed.graph.output[:]
    exposed.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        exposed.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0])


def test_loads_where_weights_are_made_unsigned_at_load(tmp_path: Path) -> None:
    """``session.x64quantprecision`` renames the zero points of each weight: none may be shared."""
    model = make_model(
        "[a] p = Conv(x, w1) r = Relu(p) [b] q = Conv(r, w2) y = Neg(q)",
        f"{IMAGE} x",
        f"{IMAGE} y",
        weights(w1=(CHANNELS, CHANNELS, 1, 1), w2=(CHANNELS, CHANNELS, 1, 1)),
        opset=21,
    )
    quantized = quantize_static(model, tmp_path)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(quantized.path, options)
    feeds = images(1)[0]
    (plain,), (unsigned,) = quantized.run(feeds), session.run(None, feeds)
    # The same sums of integers, multiplied by scales in float32: a value between two steps may
    # be rounded the other way.
    step, _ = parameters(quantized, "q")
    np.testing.assert_allclose(unsigned, plain, rtol=0, atol=1.01 * float(step))
