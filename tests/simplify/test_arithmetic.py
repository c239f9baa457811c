from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from onnxq.simplify.affine import fold_affine
from onnxq.simplify.arithmetic import ARITHMETIC, refuse_arithmetic
from onnxq.simplify.unused import remove_unused
from tests.models import FloatArray, float_weight, make_model, to_ir
from tests.simplify.equality import (
    assert_close,
    assert_equal,
    change,
    operators,
    operators_in_runtime,
    run,
)

LAYERS = {
    "conv": ("Conv", "", (6, 4, 3, 3), (2, 4, 7, 7)),
    "conv_depthwise": ("Conv", "<group = 4>", (4, 1, 3, 3), (1, 4, 7, 7)),
    "conv_grouped": ("Conv", "<group = 2>", (6, 2, 3, 3), (1, 4, 7, 7)),
    "conv_1d": ("Conv", "", (6, 4, 3), (1, 4, 7)),
    "conv_3d": ("Conv", "", (6, 4, 2, 2, 2), (1, 4, 4, 4, 4)),
    "conv_transpose": ("ConvTranspose", "", (4, 6, 3, 3), (1, 4, 5, 5)),
    "gemm": ("Gemm", "", (4, 6), (3, 4)),
    "gemm_transposed": ("Gemm", "<transB = 1>", (6, 4), (3, 4)),
    "gemm_scaled": ("Gemm", "<alpha = 0.5, beta = -2.0>", (4, 6), (3, 4)),
}
OPERATIONS = {
    "multiplied": "y = Mul(c, k)",
    "multiplied_from_the_left": "y = Mul(k, c)",
    "added": "y = Add(c, k)",
    "added_from_the_left": "y = Add(k, c)",
    "subtracted": "y = Sub(c, k)",
    "subtracted_from": "y = Sub(k, c)",
    "divided": "y = Div(c, k)",
}
SCALARS = ["scalar", "one_element"]

every_layer = pytest.mark.parametrize("name", sorted(LAYERS))
every_operation = pytest.mark.parametrize("operation", sorted(OPERATIONS))
biased = pytest.mark.parametrize("bias", [None, "vector"], ids=["plain", "with_bias"])


def _channels(name: str) -> int:
    operator, _, shape, _ = LAYERS[name]
    return shape[1 if operator == "ConvTranspose" or name in ("gemm", "gemm_scaled") else 0]


def _shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Every shape in which a constant can hold one value for each channel, or for all."""
    rank, channels = len(LAYERS[name][2]), _channels(name)
    row = (channels,) + (1,) * (rank - 2)
    return {
        "scalar": (),
        "one_element": (1,),
        "all_axes_of_one": (1,) * rank,
        "channels": row,
        "batch_and_channels": (1, *row),
    }


def _model(
    name: str, nodes: str, weights: dict[str, FloatArray], *, outputs: str = "float[] y"
) -> onnx.ModelProto:
    operator, options, _, input_shape = LAYERS[name]
    inputs = "x, w, b" if "b" in weights else "x, w"
    return make_model(
        f"c = {operator}{options}({inputs}) {nodes}",
        f"float{list(input_shape)} x",
        outputs,
        weights,
    )


def _sizes(name: str, nodes: str, weights: dict[str, FloatArray]) -> onnx.ModelProto:
    """The same model with a plus for each minus."""
    positive = {key: np.abs(array) for key, array in weights.items()}
    model = _model(name, nodes.replace("Sub", "Add"), positive)
    for attribute in model.graph.node[0].attribute:
        if attribute.type == onnx.AttributeProto.FLOAT:
            attribute.f = abs(attribute.f)
    return model


def _fold(model: onnx.ModelProto) -> onnx.ModelProto:
    return change(model, fold_affine, remove_unused)


def _terms(name: str) -> int:
    return int(np.prod(LAYERS[name][2])) // _channels(name)


def _weights(
    rng: np.random.Generator, name: str, shape: tuple[int, ...], bias: str | None
) -> dict[str, FloatArray]:
    weights = {
        "w": float_weight(rng, LAYERS[name][2]),
        # Neither a power of two nor near 0.
        "k": (rng.choice([-1, 1], shape) * rng.uniform(0.3, 3, shape)).astype(np.float32),
    }
    shapes = {"vector": (_channels(name),), "scalar": (), "row": (1, _channels(name))}
    if bias is not None:
        weights["b"] = rng.standard_normal(shapes[bias]).astype(np.float32)
    return weights


def test_every_operator_has_a_case() -> None:
    used = {operator for operator in ARITHMETIC for text in OPERATIONS.values() if operator in text}
    assert used == ARITHMETIC


@every_layer
@every_operation
@biased
@pytest.mark.parametrize("shape", ["scalar", "channels", "batch_and_channels"])
def test_folded_and_equal(
    name: str, operation: str, bias: str | None, shape: str, rng: np.random.Generator
) -> None:
    weights = _weights(rng, name, _shapes(name)[shape], bias)
    model = _model(name, OPERATIONS[operation], weights)
    folded = _fold(model)
    assert operators(folded) == [LAYERS[name][0]]
    x = rng.standard_normal(LAYERS[name][3]).astype(np.float32)
    sizes = _sizes(name, OPERATIONS[operation], weights)
    assert_close(model, folded, {"x": x}, sizes=sizes, terms=_terms(name))


@every_layer
@pytest.mark.parametrize("shape", ["one_element", "all_axes_of_one"])
def test_one_value_in_other_shapes(name: str, shape: str, rng: np.random.Generator) -> None:
    weights = _weights(rng, name, _shapes(name)[shape], None)
    model = _model(name, "y = Mul(c, k)", weights)
    folded = _fold(model)
    assert operators(folded) == [LAYERS[name][0]]
    x = rng.standard_normal(LAYERS[name][3]).astype(np.float32)
    sizes = _sizes(name, "y = Mul(c, k)", weights)
    assert_close(model, folded, {"x": x}, sizes=sizes, terms=_terms(name))


@pytest.mark.parametrize("bias", ["scalar", "row"])
@pytest.mark.parametrize("name", ["gemm", "gemm_scaled"])
def test_a_bias_of_gemm_that_broadcasts(name: str, bias: str, rng: np.random.Generator) -> None:
    weights = _weights(rng, name, (6,), bias)
    nodes = "d = Mul(c, k) y = Sub(d, k)"
    model = _model(name, nodes, weights)
    folded = _fold(model)
    assert operators(folded) == ["Gemm"]
    x = rng.standard_normal((3, 4)).astype(np.float32)
    assert_close(model, folded, {"x": x}, sizes=_sizes(name, nodes, weights), terms=4)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(LAYERS)),
    operation=st.sampled_from(["Mul", "Add", "Sub"]),
    shape=st.lists(st.sampled_from([1, 1, 4, 6]), max_size=5),
    seed=st.integers(0, 2**16),
)
def test_whole_numbers_are_exact_whatever_the_shape(
    name: str, operation: str, shape: list[int], seed: int
) -> None:
    """Shapes that broadcast the output to another are among them, and must not be folded."""
    rng = np.random.default_rng(seed)
    weights = {
        "w": rng.integers(-4, 5, LAYERS[name][2]).astype(np.float32),
        "k": rng.integers(-4, 5, shape).astype(np.float32),
    }
    model = _model(name, f"y = {operation}(c, k)", weights)
    x = rng.integers(-4, 5, LAYERS[name][3]).astype(np.float32)
    try:
        run(model, {"x": x})
    except Fail:
        # The shapes do not fit together.
        assert refuse_arithmetic(to_ir(model).graph[1]) is not None
    else:
        assert_equal(model, _fold(model), {"x": x})


@pytest.mark.parametrize("operator", ["Mul", "Add"])
@pytest.mark.parametrize("name", ["conv", "conv_depthwise", "conv_1d"])
def test_the_runtime_folds_the_same(
    name: str, operator: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    weights = _weights(rng, name, _shapes(name)["batch_and_channels"], "vector")
    model = _model(name, f"y = {operator}(c, k)", weights)
    assert operators_in_runtime(model, tmp_path) == operators(_fold(model)) == ["Conv"]


def test_a_multiplication_alone_adds_no_bias(rng: np.random.Generator) -> None:
    model = _model("conv", "y = Mul(c, k)", _weights(rng, "conv", (), None))
    assert len(_fold(model).graph.node[0].input) == 2


def test_the_constant_stays_for_other_readers(rng: np.random.Generator) -> None:
    weights = _weights(rng, "conv", (6, 1, 1), None)
    model = _model("conv", "y = Mul(c, k) z = Neg(k)", weights, outputs="float[] y, float[] z")
    folded = _fold(model)
    assert operators(folded) == ["Conv", "Neg"]
    assert "k" in [one.name for one in folded.graph.initializer]


REFUSED_SHAPES = {
    "last_axis_of_a_convolution": ("conv", (5,)),
    "one_value_for_each_pixel": ("conv", (5, 5)),
    "channels_and_pixels": ("conv", (6, 1, 5)),
    "batches": ("conv", (2, 1, 1, 1)),
    "more_axes_than_the_output": ("conv", (1, 1, 6, 1, 1)),
    "one_value_on_more_axes": ("conv", (1, 1, 1, 1, 1)),
    "rows_of_gemm": ("gemm", (3, 1)),
    "matrix": ("gemm", (3, 6)),
}


class TestRefusals:
    def _check(self, model: onnx.ModelProto, reason: str) -> None:
        node = next(one for one in to_ir(model).graph if one.op_type in ARITHMETIC)
        assert refuse_arithmetic(node) == reason
        assert operators(_fold(model)) == operators(model)

    @pytest.mark.parametrize("case", sorted(REFUSED_SHAPES))
    def test_no_value_for_each_channel(self, case: str, rng: np.random.Generator) -> None:
        name, shape = REFUSED_SHAPES[case]
        model = _model(name, "y = Mul(c, k)", _weights(rng, name, shape, None))
        self._check(model, "its constant is not one value for each channel")

    def test_more_channels_than_the_layer_has(self, rng: np.random.Generator) -> None:
        """The one channel is broadcast to five."""
        weights = {"w": float_weight(rng, (1, 4, 3, 3)), "k": np.ones((5, 1, 1), np.float32)}
        model = _model("conv", "y = Mul(c, k)", weights)
        self._check(model, "its constant is not one value for each channel")

    def test_a_quotient_by_the_layer(self, rng: np.random.Generator) -> None:
        model = _model("conv", "y = Div(k, c)", _weights(rng, "conv", (), None))
        self._check(model, "divides by the layer")

    @pytest.mark.parametrize(
        "nodes",
        [
            pytest.param("y = Add(c, x)", id="other_operand_is_an_input"),
            pytest.param("y = Add(c, c)", id="both_operands_are_the_layer"),
        ],
    )
    def test_no_constant(self, nodes: str, rng: np.random.Generator) -> None:
        weights = {"w": float_weight(rng, (4, 4, 1, 1))}
        self._check(_model("conv", nodes, weights), "neither operand is constant")

    def test_a_constant_that_a_caller_may_override(self, rng: np.random.Generator) -> None:
        weights = _weights(rng, "conv", (), None)
        model = make_model(
            "c = Conv(x, w) y = Mul(c, k)", "float[2, 4, 7, 7] x, float k", "float[] y", weights
        )
        self._check(model, "neither operand is constant")

    def test_matmul_keeps_its_bias(self, rng: np.random.Generator) -> None:
        weights = {"w": float_weight(rng, (4, 6)), "k": np.ones(6, np.float32)}
        model = make_model("c = MatMul(x, w) y = Add(c, k)", "float[3, 4] x", "float[] y", weights)
        self._check(model, "does not follow a layer with a weight")

    @pytest.mark.parametrize("number", [0.0, float("nan"), 1e-38])
    def test_quotients_that_are_not_finite(self, number: float, rng: np.random.Generator) -> None:
        weights = _weights(rng, "conv", (), None) | {"k": np.float32(number)}
        weights["w"] *= 1e3
        model = _model("conv", "y = Div(c, k)", weights)
        self._check(model, "the weight would overflow")

    def test_broadcasting_of_old_operator_sets(self, rng: np.random.Generator) -> None:
        weights = _weights(rng, "conv", (6,), "vector")
        model = _model("conv", "y = Add<axis = 1, broadcast = 1>(c, k)", weights)
        (node,) = (one for one in to_ir(model).graph if one.op_type == "Add")
        assert refuse_arithmetic(node) == "broadcasts as before operator set 7"

    def test_a_constant_of_another_type(self, rng: np.random.Generator) -> None:
        weights = _weights(rng, "conv", (), None)
        model = _model("conv", "y = Add(c, k)", weights | {"k": np.float64(2)})  # type: ignore[dict-item]
        (node,) = (one for one in to_ir(model).graph if one.op_type == "Add")
        assert refuse_arithmetic(node) == "its constant is of another type"
