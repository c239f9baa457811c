from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxq.simplify.affine import fold_affine
from onnxq.simplify.batch_normalization import refuse_batch_normalization
from onnxq.simplify.unused import remove_unused
from tests.models import FloatArray, float_weight, make_model, to_ir
from tests.simplify.equality import UNIT_ROUNDOFF, assert_equal, change, operators, run

CONVOLUTIONS = {
    "conv": ("Conv", "", (6, 4, 3, 3), (1, 4, 7, 7)),
    "conv_strided": ("Conv", "<strides = [2, 2], pads = [1, 1, 1, 1]>", (6, 4, 3, 3), (2, 4, 7, 7)),
    "conv_depthwise": ("Conv", "<group = 4>", (4, 1, 3, 3), (1, 4, 7, 7)),
    "conv_grouped": ("Conv", "<group = 2>", (6, 2, 3, 3), (1, 4, 7, 7)),
    "conv_1d": ("Conv", "", (6, 4, 3), (1, 4, 7)),
    "conv_3d": ("Conv", "", (6, 4, 2, 2, 2), (1, 4, 4, 4, 4)),
    "conv_transpose": ("ConvTranspose", "", (4, 6, 3, 3), (1, 4, 5, 5)),
}

every_convolution = pytest.mark.parametrize("name", sorted(CONVOLUTIONS))
biased = pytest.mark.parametrize("with_bias", [False, True], ids=["plain", "with_bias"])


def _channels(name: str) -> int:
    operator, _, weight_shape, _ = CONVOLUTIONS[name]
    return weight_shape[1 if operator == "ConvTranspose" else 0]


def _model(
    name: str, weights: dict[str, FloatArray], *, epsilon: str = "0.0", attributes: str = ""
) -> onnx.ModelProto:
    operator, options, _, input_shape = CONVOLUTIONS[name]
    inputs = "x, w, b" if "b" in weights else "x, w"
    return make_model(
        f"""c = {operator}{options}({inputs})
            y = BatchNormalization<epsilon = {epsilon}{attributes}>(c, scale, shift, mean, var)""",
        f"float{list(input_shape)} x",
        "float[] y",
        weights,
    )


def _fold(model: onnx.ModelProto) -> onnx.ModelProto:
    return change(model, fold_affine, remove_unused)


def _whole_numbers(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    return rng.integers(-8, 9, shape).astype(np.float32)


@every_convolution
@biased
def test_exact_where_the_arithmetic_is(
    name: str, with_bias: bool, rng: np.random.Generator
) -> None:
    """Whole numbers, and factors scale / sqrt(variance) that are powers of two: no rounding."""
    _, _, weight_shape, input_shape = CONVOLUTIONS[name]
    channels = _channels(name)
    weights = {
        "w": _whole_numbers(rng, weight_shape),
        "scale": rng.choice(np.float32([-4, 1, 2, 8]), channels),
        "shift": _whole_numbers(rng, (channels,)),
        "mean": _whole_numbers(rng, (channels,)),
        "var": rng.choice(np.float32([0.25, 1, 4, 16]), channels),
    }
    if with_bias:
        weights["b"] = _whole_numbers(rng, (channels,))
    model = _model(name, weights)
    folded = _fold(model)
    assert operators(folded) == [CONVOLUTIONS[name][0]]
    assert_equal(model, folded, {"x": _whole_numbers(rng, input_shape)})


@every_convolution
@biased
@pytest.mark.parametrize("epsilon", ["0.001", "0.00001"])
def test_otherwise_equal_but_for_rounding(
    name: str, with_bias: bool, epsilon: str, rng: np.random.Generator
) -> None:
    _, _, weight_shape, input_shape = CONVOLUTIONS[name]
    channels = _channels(name)
    weights = {
        "w": float_weight(rng, weight_shape),
        "scale": rng.standard_normal(channels).astype(np.float32),
        "shift": rng.standard_normal(channels).astype(np.float32),
        "mean": rng.standard_normal(channels).astype(np.float32),
        "var": rng.uniform(1e-3, 2, channels).astype(np.float32),
    }
    if with_bias:
        weights["b"] = rng.standard_normal(channels).astype(np.float32)
    model = _model(name, weights, epsilon=epsilon)
    folded = _fold(model)
    x = rng.standard_normal(input_shape).astype(np.float32)
    # Both compute sums of k products and four more terms, in which every term is rounded at most
    # k + 8 times: each is off by (k + 8) u times the sum of the sizes of the terms, which is what
    # the model gives for the sizes of its numbers. Half as much again covers that bound's own
    # rounding and the second order.
    sizes = {key: np.abs(value) for key, value in weights.items()}
    sizes["mean"] = -sizes["mean"]
    (size_of_terms,) = run(_model(name, sizes, epsilon=epsilon), {"x": np.abs(x)})
    terms = int(np.prod(weight_shape)) // channels
    bound = 1.5 * 2 * (terms + 8) * UNIT_ROUNDOFF * size_of_terms
    (expected,), (actual,) = run(model, {"x": x}), run(folded, {"x": x})
    assert np.all(np.abs(expected - actual) <= bound)


def test_the_default_epsilon_is_that_of_onnx(rng: np.random.Generator) -> None:
    (attribute,) = (
        one.default_value
        for name, one in onnx.defs.get_schema("BatchNormalization").attributes.items()
        if name == "epsilon"
    )
    weights = _parameters(rng)
    # A variance in the size of epsilon: taking none would change the result by a factor.
    weights["var"] = np.full(6, attribute.f, np.float32)
    model = _model("conv", weights)
    del model.graph.node[1].attribute[:]
    x = float_weight(rng, (1, 4, 7, 7))
    (expected,), (actual,) = run(model, {"x": x}), run(_fold(model), {"x": x})
    assert np.all(np.abs(expected - actual) <= 1e-4 * np.abs(expected).max())


@every_convolution
def test_the_file_does_not_grow(name: str, rng: np.random.Generator) -> None:
    weights = _parameters(rng, name)
    model = _model(name, weights)
    before = sum(tensor.nbytes for tensor in weights.values())
    after = sum(len(tensor.raw_data) for tensor in _fold(model).graph.initializer)
    # Four vectors go, a bias comes.
    assert after == before - 3 * 4 * _channels(name)


def _parameters(rng: np.random.Generator, name: str = "conv") -> dict[str, FloatArray]:
    channels = _channels(name)
    return {
        "w": float_weight(rng, CONVOLUTIONS[name][2]),
        "scale": np.full(channels, 2, np.float32),
        "shift": np.ones(channels, np.float32),
        "mean": np.full(channels, 3, np.float32),
        "var": np.full(channels, 4, np.float32),
    }


def _refusal(model: onnx.ModelProto) -> str | None:
    (node,) = (one for one in to_ir(model).graph if one.op_type == "BatchNormalization")
    return refuse_batch_normalization(node)


def _text(nodes: str, weights: dict[str, FloatArray], **kwargs: str) -> onnx.ModelProto:
    inputs = kwargs.get("inputs", "float[1, 4, 7, 7] x")
    return make_model(nodes, inputs, kwargs.get("outputs", "float[] y"), weights)


NORMALIZE = "BatchNormalization<epsilon = 0.0>(c, scale, shift, mean, var)"


class TestRefusals:
    def _check(self, model: onnx.ModelProto, reason: str | None) -> None:
        assert _refusal(model) == reason
        folded = change(model, fold_affine)
        assert ("BatchNormalization" in operators(folded)) is (reason is not None)

    def test_none_for_the_ordinary_case(self, rng: np.random.Generator) -> None:
        self._check(_text(f"c = Conv(x, w) y = {NORMALIZE}", _parameters(rng)), None)

    @pytest.mark.parametrize(
        "nodes",
        [
            pytest.param(f"c = Relu(x) y = {NORMALIZE}", id="after_another_operator"),
            pytest.param(
                "y = BatchNormalization<epsilon = 0.0>(x, scale, shift, mean, var)",
                id="after_input",
            ),
            pytest.param(f"c = local.Conv(x, w) y = {NORMALIZE}", id="after_a_namesake"),
        ],
    )
    def test_does_not_follow_a_layer(self, nodes: str, rng: np.random.Generator) -> None:
        assert _refusal(_text(nodes, _parameters(rng))) == "does not follow a layer with a weight"

    @pytest.mark.parametrize(
        ("nodes", "outputs"),
        [
            pytest.param(
                f"c = Conv(x, w) y = {NORMALIZE} z = Relu(c)", "float[] y, float[] z", id="node"
            ),
            pytest.param(f"c = Conv(x, w) y = {NORMALIZE}", "float[] y, float[] c", id="output"),
            pytest.param(
                f"""c = Conv(x, w) y = {NORMALIZE}
                    z = If (d) <
                      then_branch = t () => (p) {{ p = Relu(c) }},
                      else_branch = e () => (q) {{ q = Relu(x) }}
                    >""",
                "float[] y, float[] z",
                id="body",
            ),
        ],
    )
    def test_the_layer_has_another_reader(
        self, nodes: str, outputs: str, rng: np.random.Generator
    ) -> None:
        inputs = "float[1, 4, 7, 7] x, bool d"
        model = _text(nodes, _parameters(rng), outputs=outputs, inputs=inputs)
        self._check(model, "the layer has another reader")

    def test_the_layer_is_in_another_body(self, rng: np.random.Generator) -> None:
        model = _text(
            f"""c = Conv(x, w)
                y = If (d) <
                  then_branch = t () => (p) {{ p = {NORMALIZE} }},
                  else_branch = e () => (q) {{ q = Relu(x) }}
                >""",
            _parameters(rng),
            inputs="float[1, 4, 7, 7] x, bool d",
        )
        (node,) = to_ir(model).graph[1].attributes["then_branch"].as_graph()
        assert refuse_batch_normalization(node) == "the layer is in another body"
        folded = change(model, fold_affine)
        (branch,) = (one.g for one in folded.graph.node[1].attribute if one.name == "then_branch")
        assert [one.op_type for one in branch.node] == ["BatchNormalization"]

    def test_training_mode(self, rng: np.random.Generator) -> None:
        normalize = NORMALIZE.replace("epsilon = 0.0", "epsilon = 0.0, training_mode = 1")
        model = _text(f"c = Conv(x, w) y, m, v = {normalize}", _parameters(rng))
        self._check(model, "is in training mode")

    @pytest.mark.parametrize("name", ["scale", "shift", "mean", "var"])
    def test_parameters_that_are_not_constant(self, name: str, rng: np.random.Generator) -> None:
        weights = _parameters(rng)
        del weights[name]
        inputs = f"float[1, 4, 7, 7] x, float[6] {name}"
        model = _text(f"c = Conv(x, w) y = {NORMALIZE}", weights, inputs=inputs)
        self._check(model, "its parameters are not constant vectors")

    @pytest.mark.parametrize("name", ["w", "b"])
    def test_a_convolution_that_is_not_constant(self, name: str, rng: np.random.Generator) -> None:
        weights = _parameters(rng) | {"b": np.ones(6, np.float32)}
        del weights[name]
        shape = {"w": "6, 4, 3, 3", "b": "6"}[name]
        inputs = f"float[1, 4, 7, 7] x, float[{shape}] {name}"
        model = _text(f"c = Conv(x, w, b) y = {NORMALIZE}", weights, inputs=inputs)
        self._check(model, "the weight of the layer is not constant")

    def test_parameters_that_a_caller_may_override(self, rng: np.random.Generator) -> None:
        inputs = "float[1, 4, 7, 7] x, float[6] scale"
        model = _text(f"c = Conv(x, w) y = {NORMALIZE}", _parameters(rng), inputs=inputs)
        self._check(model, "its parameters are not constant vectors")

    def test_a_shared_weight(self, rng: np.random.Generator) -> None:
        model = _text(
            f"c = Conv(x, w) y = {NORMALIZE} z = Conv(x, w)",
            _parameters(rng),
            outputs="float[] y, float[] z",
        )
        self._check(model, "the weight of the layer is shared")

    def test_a_grouped_transposed_convolution(self, rng: np.random.Generator) -> None:
        weights = _parameters(rng) | {"w": float_weight(rng, (4, 3, 3, 3))}
        model = _text(f"c = ConvTranspose<group = 2>(x, w) y = {NORMALIZE}", weights)
        self._check(model, "the transposed convolution is grouped")


def test_a_namesake_of_another_domain_stays(rng: np.random.Generator) -> None:
    model = to_ir(
        make_model(
            f"c = Conv(x, w) y = local.{NORMALIZE}",
            "float[1, 4, 7, 7] x",
            "float[] y",
            _parameters(rng),
            functions="""<domain: "local", opset_import: ["" : 17]>
                BatchNormalization <epsilon>(a, b, c, d, e) => (y) { y = Identity(a) }""",
        )
    )
    fold_affine(model)
    assert [node.op_type for node in model.graph] == ["Conv", "BatchNormalization"]


def test_shared_parameters_are_not_spoiled_for_the_next(rng: np.random.Generator) -> None:
    weights = _parameters(rng, "conv_depthwise") | {
        "w": _whole_numbers(rng, (4, 1, 3, 3)),
        "w2": _whole_numbers(rng, (4, 1, 3, 3)),
    }
    model = _text(
        f"c = Conv<group = 4>(x, w) d = {NORMALIZE} e = Conv<group = 4>(d, w2) "
        f"y = {NORMALIZE.replace('(c', '(e')}",
        weights,
    )
    folded = _fold(model)
    assert operators(folded) == ["Conv", "Conv"]
    assert_equal(model, folded, {"x": _whole_numbers(rng, (1, 4, 7, 7))})


def test_a_shared_bias_keeps_its_value_for_other_readers(rng: np.random.Generator) -> None:
    weights = _parameters(rng) | {
        "w": _whole_numbers(rng, (6, 4, 3, 3)),
        "v": _whole_numbers(rng, (6, 4, 3, 3)),
        "b": _whole_numbers(rng, (6,)),
    }
    model = _text(
        f"c = Conv(x, w, b) y = {NORMALIZE} z = Conv(x, v, b)",
        weights,
        outputs="float[] y, float[] z",
    )
    folded = _fold(model)
    assert operators(folded) == ["Conv", "Conv"]
    assert_equal(model, folded, {"x": _whole_numbers(rng, (1, 4, 7, 7))})


def test_inside_a_body(rng: np.random.Generator) -> None:
    weights = _parameters(rng) | {"w": _whole_numbers(rng, (6, 4, 3, 3))}
    model = _text(
        f"""y = If (d) <
              then_branch = t () => (p) {{ c = Conv(x, w) p = {NORMALIZE} }},
              else_branch = e () => (q) {{ q = Relu(x) }}
            >""",
        weights,
        inputs="float[1, 4, 7, 7] x, bool d",
    )
    folded = _fold(model)
    (branch,) = (one.g for one in folded.graph.node[0].attribute if one.name == "then_branch")
    assert [one.op_type for one in branch.node] == ["Conv"]
    assert_equal(model, folded, {"x": _whole_numbers(rng, (1, 4, 7, 7)), "d": np.array(True)})


def test_the_type_of_the_weight_stays(rng: np.random.Generator) -> None:
    weights = {name: array.astype(np.float16) for name, array in _parameters(rng).items()}
    model = make_model(
        f"c = Conv(x, w) y = {NORMALIZE}", "float16[1, 4, 7, 7] x", "float16[] y", weights
    )
    folded = _fold(model)
    assert {one.data_type for one in folded.graph.initializer} == {onnx.TensorProto.FLOAT16}


def test_new_constants_take_no_name_that_is_taken(rng: np.random.Generator) -> None:
    weights = _parameters(rng)
    first = to_ir(_text(f"c = Conv(x, w) y = {NORMALIZE}", weights))
    fold_affine(first)
    made = [name for name in first.graph.initializers if name not in weights]
    assert len(made) == 2
    taken = {name: np.ones(1, np.float32) for name in made}
    readers = " ".join(f"z{index} = Neg({name})" for index, name in enumerate(made))
    model = _text(
        f"c = Conv(x, w) y = {NORMALIZE} {readers}",
        weights | taken,
        outputs="float[] y, float[] z0, float[] z1",
    )
    folded = _fold(model)
    names = [tensor.name for tensor in folded.graph.initializer]
    assert len(names) == len(set(names)) == 4
    x = float_weight(rng, (1, 4, 7, 7))
    assert all(run(folded, {"x": x})[index].tolist() == [-1.0] for index in (1, 2))


def test_an_output_of_the_model_keeps_its_name_type_and_shape(rng: np.random.Generator) -> None:
    model = _text(
        f"c = Conv(x, w) y = {NORMALIZE}", _parameters(rng), outputs="float[1, 6, 5, 5] y"
    )
    assert list(_fold(model).graph.output) == list(model.graph.output)
