from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxq.simplify.affine import fold_affine
from onnxq.simplify.arithmetic import refuse_arithmetic
from tests.models import float_weight, make_model, to_ir
from tests.simplify.equality import change, operators

CONV = (6, 4, 3, 3)


def _text(
    nodes: str,
    weights: dict[str, np.ndarray],
    *,
    inputs: str = "float[1, 4, 7, 7] x",
    outputs: str = "float[] y",
) -> onnx.ModelProto:
    return make_model(nodes, inputs, outputs, weights)


def _weights(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"w": float_weight(rng, CONV), "k": np.full((6, 1, 1), 3, np.float32)}


class TestRefusals:
    def _check(self, model: onnx.ModelProto, reason: str) -> None:
        node = next(one for one in to_ir(model).graph if one.op_type == "Mul")
        assert refuse_arithmetic(node) == reason
        assert operators(change(model, fold_affine)) == operators(model)

    @pytest.mark.parametrize(
        "nodes",
        [
            pytest.param("c = Relu(x) y = Mul(c, k)", id="after_another_operator"),
            pytest.param("y = Mul(x, k)", id="after_input"),
        ],
    )
    def test_no_layer(self, nodes: str, rng: np.random.Generator) -> None:
        weights = _weights(rng) | {"k": np.full((), 3, np.float32)}
        self._check(_text(nodes, weights), "does not follow a layer with a weight")

    def test_a_namesake_of_another_domain(self, rng: np.random.Generator) -> None:
        node = to_ir(_text("c = local.Conv(x, w) y = Mul(c, k)", _weights(rng))).graph[1]
        assert refuse_arithmetic(node) == "does not follow a layer with a weight"

    @pytest.mark.parametrize(
        ("nodes", "outputs"),
        [
            pytest.param(
                "c = Conv(x, w) y = Mul(c, k) z = Relu(c)", "float[] y, float[] z", id="node"
            ),
            pytest.param("c = Conv(x, w) y = Mul(c, k)", "float[] y, float[] c", id="output"),
            pytest.param(
                """c = Conv(x, w) y = Mul(c, k)
                    z = If (d) <
                      then_branch = t () => (p) { p = Relu(c) },
                      else_branch = e () => (q) { q = Relu(x) }
                    >""",
                "float[] y, float[] z",
                id="body",
            ),
        ],
    )
    def test_another_reader(self, nodes: str, outputs: str, rng: np.random.Generator) -> None:
        inputs = "float[1, 4, 7, 7] x, bool d"
        model = _text(nodes, _weights(rng), inputs=inputs, outputs=outputs)
        self._check(model, "the layer has another reader")

    def test_another_body(self, rng: np.random.Generator) -> None:
        model = _text(
            """c = Conv(x, w)
               y = If (d) <
                 then_branch = t () => (p) { p = Mul(c, k) },
                 else_branch = e () => (q) { q = Relu(x) }
               >""",
            _weights(rng),
            inputs="float[1, 4, 7, 7] x, bool d",
        )
        (node,) = to_ir(model).graph[1].attributes["then_branch"].as_graph()
        assert refuse_arithmetic(node) == "the layer is in another body"
        (branch, _) = (one.g for one in change(model, fold_affine).graph.node[1].attribute)
        assert [one.op_type for one in branch.node] == ["Mul"]

    @pytest.mark.parametrize("name", ["w", "b"])
    def test_no_constant(self, name: str, rng: np.random.Generator) -> None:
        weights = _weights(rng) | {"b": np.ones(6, np.float32)}
        del weights[name]
        shape = {"w": "6, 4, 3, 3", "b": "6"}[name]
        inputs = f"float[1, 4, 7, 7] x, float[{shape}] {name}"
        model = _text("c = Conv(x, w, b) y = Mul(c, k)", weights, inputs=inputs)
        self._check(model, "the weight of the layer is not constant")

    def test_a_shared_weight(self, rng: np.random.Generator) -> None:
        model = _text(
            "c = Conv(x, w) y = Mul(c, k) z = Conv(x, w)",
            _weights(rng),
            outputs="float[] y, float[] z",
        )
        self._check(model, "the weight of the layer is shared")

    def test_a_grouped_transposed_convolution(self, rng: np.random.Generator) -> None:
        weights = _weights(rng) | {"w": float_weight(rng, (4, 3, 3, 3))}
        model = _text("c = ConvTranspose<group = 2>(x, w) y = Mul(c, k)", weights)
        self._check(model, "the transposed convolution is grouped")

    def test_integers(self) -> None:
        weights = {"w": np.ones((4, 6), np.int32), "k": np.int32(3)}
        inputs = "int32[3, 4] x, int32[6] c0"
        model = make_model("c = Gemm(x, w) y = Mul(c, k)", inputs, "int32[] y", weights)
        self._check(model, "the weight of the layer is not float")

    @pytest.mark.parametrize("shape", [(3, 1), (3, 6)], ids=["column", "matrix"])
    def test_a_bias_that_differs_between_rows(
        self, shape: tuple[int, int], rng: np.random.Generator
    ) -> None:
        weights = {
            "w": float_weight(rng, (4, 6)),
            "b": np.ones(shape, np.float32),
            "k": np.full((), 3, np.float32),
        }
        model = _text("c = Gemm(x, w, b) y = Mul(c, k)", weights, inputs="float[3, 4] x")
        self._check(model, "the bias of the layer differs between rows")

    @pytest.mark.parametrize("number", [1e38, float("inf"), float("nan")])
    def test_overflow(self, number: float, rng: np.random.Generator) -> None:
        weights = _weights(rng) | {"k": np.full((), number, np.float32)}
        weights["w"] = weights["w"] * 1e3
        self._check(_text("c = Conv(x, w) y = Mul(c, k)", weights), "the weight would overflow")

    def test_overflow_of_the_bias(self, rng: np.random.Generator) -> None:
        weights = _weights(rng) | {"b": np.full(6, 3e38, np.float32)}
        model = _text("c = Conv(x, w, b) y = Mul(c, k)", weights)
        self._check(model, "the weight would overflow")

    def test_underflow(self, rng: np.random.Generator) -> None:
        """As of a model in 16 bits whose factor is small: 2^-12 of 2^-6 has few digits left."""
        weights = {"w": np.full(CONV, 2**-6, np.float16), "k": np.full((), 2**-12, np.float16)}
        model = make_model(
            "c = Conv(x, w) y = Mul(c, k)", "float16[1, 4, 7, 7] x", "float16[] y", weights
        )
        self._check(model, "the weight would underflow")


@pytest.mark.parametrize("number", [0.0, 2.0**-140], ids=["zero", "without_digits"])
def test_dead_channels_are_folded(number: float, rng: np.random.Generator) -> None:
    """Training leaves some, and their own digits are lost already."""
    weights = _weights(rng)
    weights["k"][2] = number
    model = _text("c = Conv(x, w) y = Mul(c, k)", weights)
    assert operators(change(model, fold_affine)) == ["Conv"]
