from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest

from onnxq.rules.calibrated import (
    CALIBRATED_RULES,
    Behaviour,
    bias_elements,
    clip_bounds,
    find_calibrated_rule,
    input_channels,
)
from tests.models import constant_node, make_model, to_ir

Weights = dict[str, npt.NDArray[Any]]

F = np.float32
CONV = np.ones((8, 4, 3, 3), F)
MATRIX = np.ones((6, 8), F)
FLOAT16 = "integer kernels take float32 models; the weight is float16"
NOT_CONSTANT = "its weight is not constant"
BIAS = "its bias is not a constant vector"


def _node(text: str, weights: Weights | None = None, **kwargs: Any) -> ir.Node:
    """The first node of a model that reads x, u and any weights."""
    inputs = kwargs.pop("inputs", "float[] x, float[] u")
    model = make_model(text, inputs, "float[] y", weights, **kwargs)
    return next(iter(to_ir(model).graph))


def _refusal(node: ir.Node) -> str | None:
    rule = find_calibrated_rule(node)
    assert rule is not None
    return rule.check(node)


@pytest.mark.parametrize(
    ("text", "weights", "reason"),
    [
        pytest.param("y = Conv(x, w)", {"w": CONV}, None, id="conv"),
        pytest.param("y = Conv(x, w, b)", {"w": CONV, "b": np.ones(8, F)}, None, id="conv_bias"),
        pytest.param("y = Conv(x, w, )", {"w": CONV}, None, id="conv_empty_bias"),
        pytest.param("y = Conv(x, u)", {}, NOT_CONSTANT, id="conv_two_activations"),
        pytest.param("y = Conv(x, w)", {"w": CONV.astype(np.float16)}, FLOAT16, id="conv_float16"),
        pytest.param("y = Conv(x, w, u)", {"w": CONV}, BIAS, id="conv_bias_activation"),
        pytest.param(
            "y = Conv(x, w, b)", {"w": CONV, "b": np.ones(4, F)}, BIAS, id="conv_bias_length"
        ),
        pytest.param(
            "y = Conv(x, w, b)", {"w": CONV, "b": np.ones((8, 1), F)}, BIAS, id="conv_bias_matrix"
        ),
        pytest.param(
            "y = Conv(x, w, b)", {"w": CONV, "b": np.float32(1)}, BIAS, id="conv_bias_number"
        ),
        pytest.param(
            "y = Conv(x, w, b)", {"w": CONV, "b": np.ones(8)}, BIAS, id="conv_bias_double"
        ),
        pytest.param("y = Gemm(x, w)", {"w": MATRIX}, None, id="gemm"),
        pytest.param("y = Gemm(x, w, b)", {"w": MATRIX, "b": np.ones(8, F)}, None, id="gemm_bias"),
        pytest.param(
            "y = Gemm(x, w, b)", {"w": MATRIX, "b": np.ones((1, 8), F)}, None, id="gemm_bias_row"
        ),
        pytest.param(
            "y = Gemm<transB = 1>(x, w, b)",
            {"w": MATRIX, "b": np.ones(6, F)},
            None,
            id="gemm_transposed_bias",
        ),
        pytest.param(
            "y = Gemm<transB = 1>(x, w, b)",
            {"w": MATRIX, "b": np.ones(8, F)},
            BIAS,
            id="gemm_transposed_bias_length",
        ),
        pytest.param(
            "y = Gemm(x, w, b)", {"w": MATRIX, "b": np.ones((3, 8), F)}, BIAS, id="gemm_bias_rows"
        ),
        pytest.param(
            "y = Gemm(x, w, b)", {"w": MATRIX, "b": np.ones(1, F)}, BIAS, id="gemm_bias_broadcast"
        ),
        pytest.param(
            "y = Gemm<transA = 1>(x, w)",
            {"w": MATRIX},
            "the integer kernel cannot transpose the activation",
            id="gemm_activation_transposed",
        ),
        pytest.param(
            "y = Gemm<alpha = 0.5>(x, w)",
            {"w": MATRIX},
            "the integer kernel takes alpha and beta of 1 only",
            id="gemm_alpha",
        ),
        pytest.param(
            "y = Gemm<beta = 0.0>(x, w)",
            {"w": MATRIX},
            "the integer kernel takes alpha and beta of 1 only",
            id="gemm_beta",
        ),
        pytest.param(
            "y = Gemm<alpha = 1.0, beta = 1.0>(x, w)", {"w": MATRIX}, None, id="gemm_defaults"
        ),
        pytest.param("y = Gemm(w, x)", {"w": MATRIX}, NOT_CONSTANT, id="gemm_left"),
        pytest.param("y = MatMul(x, w)", {"w": MATRIX}, None, id="matmul"),
        pytest.param("y = MatMul(w, x)", {"w": MATRIX}, NOT_CONSTANT, id="matmul_left"),
        pytest.param("y = MatMul(x, u)", {}, NOT_CONSTANT, id="matmul_activations"),
        pytest.param(
            "y = MatMul(x, w)", {"w": np.ones((2, 6, 8), F)}, "its weight is no matrix", id="stack"
        ),
        pytest.param(
            "y = MatMul(x, w)", {"w": np.ones(6, F)}, "its weight is no matrix", id="vector"
        ),
        pytest.param(
            "y = MatMul(x, w)",
            {"w": MATRIX.astype(np.float64)},
            "integer kernels take float32 models; the weight is double",
            id="matmul_double",
        ),
        pytest.param("y = Add(x, u)", {}, None, id="add"),
        pytest.param("y = Add(x, w)", {"w": MATRIX}, "one operand is constant", id="add_constant"),
        pytest.param("y = Mul(w, x)", {"w": MATRIX}, "one operand is constant", id="mul_constant"),
        pytest.param("y = Concat<axis = 0>(x, u, x)", {}, None, id="concat"),
        pytest.param(
            "y = Concat<axis = 0>(x, u, w)",
            {"w": MATRIX},
            "one operand is constant",
            id="concat_constant",
        ),
        pytest.param("y = MaxPool<kernel_shape = [2]>(x)", {}, None, id="max_pool"),
        pytest.param("y, i = MaxPool<kernel_shape = [2]>(x)", {}, None, id="indices_unread"),
        pytest.param(
            "y, i = MaxPool<kernel_shape = [2]>(x) j = Abs(i)",
            {},
            "gives indices, too",
            id="indices_read",
        ),
        pytest.param("y = Resize(x, , s)", {"s": np.ones(4, F)}, None, id="resize_default"),
        pytest.param('y = Resize<mode = "nearest">(x, , u)', {}, None, id="resize_nearest"),
        pytest.param(
            'y = Resize<mode = "linear">(x, , u)',
            {},
            "no integer kernel for linear interpolation",
            id="resize_linear",
        ),
        pytest.param(
            'y = Resize<mode = "cubic">(x, , u)',
            {},
            "no integer kernel for cubic interpolation",
            id="resize_cubic",
        ),
        pytest.param(
            'y = Resize<coordinate_transformation_mode = "tf_crop_and_resize">(x, u, u)',
            {},
            "fills with a value of its own",
            id="resize_crop",
        ),
        pytest.param(
            'y = Resize<coordinate_transformation_mode = "asymmetric">(x, , u)',
            {},
            None,
            id="resize_asymmetric",
        ),
    ],
)
def test_what_a_node_needs(text: str, weights: Weights, reason: str | None) -> None:
    assert _refusal(_node(text, weights)) == reason


def test_weights_in_constant_nodes() -> None:
    model = make_model("y = Conv(x, w, b)", "float[] x", "float[] y")
    model.graph.node.insert(0, constant_node(CONV, "w"))
    model.graph.node.insert(0, constant_node(np.ones(8, F), "b"))
    assert _refusal(list(to_ir(model).graph)[2]) is None


def test_a_weight_that_a_caller_may_replace_is_not_constant() -> None:
    inputs = "float[] x, float[8, 4, 3, 3] w"
    assert _refusal(_node("y = Conv(x, w)", {"w": CONV}, inputs=inputs)) == NOT_CONSTANT


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("y = Relu(x)", (0.0, math.inf), id="relu"),
        pytest.param("y = Clip(x, zero, six)", (0.0, 6.0), id="relu6"),
        pytest.param("y = Clip(x, low, six)", (-1.5, 6.0), id="around_zero"),
        pytest.param("y = Clip(x, low, zero)", (-1.5, 0.0), id="up_to_zero"),
        pytest.param("y = Clip(x, vector, six)", (0.0, 6.0), id="bound_of_rank_1"),
        pytest.param("y = Clip(x, zero)", (0.0, math.inf), id="minimum_only"),
        pytest.param("y = Clip(x, , six)", (-math.inf, 6.0), id="maximum_only"),
        pytest.param("y = Clip(x)", (-math.inf, math.inf), id="none"),
        pytest.param("y = Clip(x, six)", None, id="above_zero"),
        pytest.param("y = Clip(x, , low)", None, id="below_zero"),
        pytest.param("y = Clip(x, six, low)", None, id="the_wrong_way_round"),
        pytest.param("y = Clip(x, zero, u)", None, id="not_constant"),
        pytest.param("y = Clip(x, nan, six)", None, id="nan"),
        pytest.param("y = Clip(x, zero, zero)", None, id="nothing_but_zero"),
        pytest.param("y = Clip(x, pair, six)", None, id="no_number"),
        pytest.param("y = LeakyRelu(x)", None, id="leaky_relu"),
        pytest.param("y = Sigmoid(x)", None, id="sigmoid"),
        pytest.param("y = com.microsoft.Relu(x)", None, id="other_domain"),
    ],
)
def test_limits(text: str, expected: tuple[float, float] | None) -> None:
    constants = {
        "zero": F(0),
        "six": F(6),
        "low": F(-1.5),
        "nan": F("nan"),
        "vector": np.zeros(1, F),
        "pair": np.zeros(2, F),
    }
    used = {name: array for name, array in constants.items() if name in text}
    assert clip_bounds(_node(text, used, contrib=True)) == expected


def test_limits_of_old_operator_sets_are_attributes_and_not_absorbed() -> None:
    assert clip_bounds(_node("y = Clip<min = 0.0, max = 6.0>(x)", opset=10)) is None


def test_limits_that_a_caller_sets_are_not_absorbed() -> None:
    model = make_model(
        "y = local.f<a = 1.0>(x)",
        "float[] x",
        "float[] y",
        functions="""<domain: "local", opset_import: ["" : 10]>
                     f <a> (p) => (r) { r = Clip<min: float = @a>(p) }""",
    )
    (function,) = to_ir(model).functions.values()
    assert clip_bounds(next(iter(function))) is None


@pytest.mark.parametrize(
    ("bias", "expected"),
    [
        pytest.param(None, 0, id="none"),
        pytest.param(np.ones(8, F), 8, id="vector"),
        pytest.param(np.ones((1, 1, 8), F), 8, id="rank_3"),
        pytest.param(np.ones((8, 1), F), None, id="column"),
        pytest.param(F(1), None, id="number"),
        pytest.param(np.ones(8, np.float16), None, id="float16"),
    ],
)
def test_bias_elements(bias: npt.NDArray[Any] | None, expected: int | None) -> None:
    if bias is None:
        assert bias_elements(_node("y = Gemm(x, u)")) == expected
        assert bias_elements(_node("y = Gemm(x, u, )")) == expected
    else:
        assert bias_elements(_node("y = Gemm(x, u, b)", {"b": bias})) == expected


@pytest.mark.parametrize(
    ("text", "weight", "expected"),
    [
        pytest.param("y = Conv(x, w)", CONV, (4, 1), id="conv"),
        pytest.param("y = Conv<group = 2>(x, w)", CONV, (8, 1), id="grouped_conv"),
        pytest.param("y = ConvTranspose(x, w)", CONV, (8, 1), id="conv_transpose"),
        pytest.param("y = ConvTranspose<group = 2>(x, w)", CONV, (8, 1), id="grouped_transpose"),
        pytest.param("y = Gemm(x, w)", MATRIX, (6, 1), id="gemm"),
        pytest.param("y = Gemm<transB = 1>(x, w)", MATRIX, (8, 1), id="gemm_transposed"),
        pytest.param("y = Gemm<transA = 1>(x, w)", MATRIX, (6, 0), id="gemm_left_transposed"),
        pytest.param("y = MatMul(x, w)", MATRIX, (6, -1), id="matmul"),
        pytest.param("y = MatMul(x, w)", np.ones((2, 6, 8), F), (6, -1), id="stack"),
        pytest.param("y = MatMul(x, w)", np.ones(6, F), None, id="vector"),
        pytest.param("y = Add(x, w)", MATRIX, None, id="add"),
        pytest.param("y = com.microsoft.Conv(x, w)", CONV, None, id="other_domain"),
    ],
)
def test_input_channels(
    text: str, weight: npt.NDArray[np.float32], expected: tuple[int, int] | None
) -> None:
    assert input_channels(_node(text, {"w": weight}, contrib=True)) == expected


def test_input_channels_needs_a_constant() -> None:
    assert input_channels(_node("y = Conv(x, u)")) is None
    assert input_channels(_node("y = Relu(x)")) is None


@pytest.mark.parametrize(
    "text",
    ["y = Softmax(x)", "y = Relu(x)", "y = Erf(x)", "y = com.microsoft.Conv(x, u)"],
    ids=["softmax", "relu", "erf", "other_domain"],
)
def test_operators_without_a_row(text: str) -> None:
    assert find_calibrated_rule(_node(text, contrib=True)) is None


def test_every_operator_has_one_row() -> None:
    assert len({rule.operator for rule in CALIBRATED_RULES}) == len(CALIBRATED_RULES)


@pytest.mark.parametrize("rule", CALIBRATED_RULES, ids=lambda rule: rule.operator)
def test_layers_and_only_layers_have_a_weight(rule: Any) -> None:
    is_layer = rule.behaviour in (Behaviour.CONVOLUTION, Behaviour.PRODUCT)
    assert rule.weight_index == (1 if is_layer else None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("y = Conv(x, u, v)", ["x"], id="conv"),
        pytest.param("y = Gemm(x, u, v)", ["x"], id="gemm"),
        pytest.param("y = Add(x, u)", ["x", "u"], id="add"),
        pytest.param("y = Add(x, x)", ["x", "x"], id="add_twice"),
        pytest.param("y = Concat<axis = 0>(x, u, v)", ["x", "u", "v"], id="concat"),
        pytest.param("y = Resize(x, , u)", ["x"], id="resize"),
        pytest.param("y = Gather(x, u)", ["x"], id="gather"),
    ],
)
def test_activations(text: str, expected: list[str]) -> None:
    node = _node(text, inputs="float[] x, float[] u, float[] v")
    rule = find_calibrated_rule(node)
    assert rule is not None
    assert [value.name for value in rule.activations(node)] == expected
