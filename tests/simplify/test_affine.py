from __future__ import annotations

from itertools import permutations, product

import numpy as np
import onnx
import pytest

from onnxq.simplify.affine import KINDS, fold_affine
from onnxq.simplify.unused import remove_unused
from tests.models import FloatArray, float_weight, make_model, to_ir
from tests.simplify.equality import assert_close, assert_equal, change, operators, run

LAYERS = {
    "Conv": ((6, 4, 3, 3), (1, 4, 7, 7), 36),
    "ConvTranspose": ((4, 6, 3, 3), (1, 4, 5, 5), 36),
    "Gemm": ((4, 6), (3, 4), 4),
}
STEPS = {
    "normalize": "BatchNormalization<epsilon = 0.0>({0}, scale, shift, mean, var)",
    "multiply": "Mul({0}, k)",
    "add": "Add(k, {0})",
    "subtract": "Sub(two, {0})",
    "divide": "Div({0}, two)",
}
CHAINS = [list(one) for length in (2, 3) for one in permutations(STEPS, length)]


def _weights(rng: np.random.Generator, layer: str) -> dict[str, FloatArray]:
    shape = LAYERS[layer][0]
    per_channel = (6,) + (1,) * (len(shape) - 2)
    return {
        "w": float_weight(rng, shape),
        "two": np.full((), 2, np.float32),
        "k": rng.uniform(0.3, 3, per_channel).astype(np.float32),
        "scale": rng.uniform(-2, 2, 6).astype(np.float32),
        "shift": rng.standard_normal(6).astype(np.float32),
        "mean": rng.standard_normal(6).astype(np.float32),
        "var": rng.uniform(0.1, 2, 6).astype(np.float32),
    }


def _chain(steps: list[str], layer: str, weights: dict[str, FloatArray]) -> onnx.ModelProto:
    nodes, last = f"v0 = {layer}(x, w)", "v0"
    for index, step in enumerate(steps, 1):
        last = "y" if index == len(steps) else f"v{index}"
        nodes += f" {last} = {STEPS[step].format(f'v{index - 1}')}"
    return make_model(nodes, f"float{list(LAYERS[layer][1])} x", "float[] y", weights)


def _fold(model: onnx.ModelProto) -> onnx.ModelProto:
    return change(model, fold_affine, remove_unused)


def _sizes(model: onnx.ModelProto, weights: dict[str, FloatArray]) -> onnx.ModelProto:
    """The same with a plus for each minus."""
    sizes = onnx.ModelProto()
    sizes.CopyFrom(model)
    for node in sizes.graph.node:
        node.op_type = {"Sub": "Add"}.get(node.op_type, node.op_type)
    del sizes.graph.initializer[:]
    for name, array in weights.items():
        positive = -np.abs(array) if name == "mean" else np.abs(array)
        sizes.graph.initializer.append(onnx.numpy_helper.from_array(positive, name))
    return sizes


@pytest.mark.parametrize(
    ("layer", "steps"),
    [
        pytest.param(layer, steps, id="-".join([layer, *steps]))
        for layer, steps in product(LAYERS, CHAINS)
    ],
)
def test_chains_collapse(layer: str, steps: list[str], rng: np.random.Generator) -> None:
    weights = _weights(rng, layer)
    model = _chain(steps, layer, weights)
    folded = _fold(model)
    assert operators(folded) == [layer]
    assert len(folded.graph.initializer) <= 2
    x = rng.standard_normal(LAYERS[layer][1]).astype(np.float32)
    sizes = _sizes(model, weights)
    assert_close(model, folded, {"x": x}, sizes=sizes, terms=LAYERS[layer][2])


def test_a_chain_ends_at_what_cannot_be_folded(rng: np.random.Generator) -> None:
    model = make_model(
        "a = Conv(x, w) b = Mul(a, k) c = Relu(b) y = Add(c, k)",
        "float[1, 4, 7, 7] x",
        "float[] y",
        _weights(rng, "Conv"),
    )
    assert operators(_fold(model)) == ["Conv", "Relu", "Add"]


def test_each_layer_gets_what_follows_it(rng: np.random.Generator) -> None:
    weights = _weights(rng, "Conv") | {"v": float_weight(rng, (4, 6, 1, 1))}
    model = make_model(
        "a = Conv(x, w) b = Mul(a, k) c = Conv(b, v) y = Add(c, two)",
        "float[1, 4, 7, 7] x",
        "float[] y",
        weights,
    )
    folded = _fold(model)
    assert operators(folded) == ["Conv", "Conv"]
    x = rng.standard_normal((1, 4, 7, 7)).astype(np.float32)
    assert_close(model, folded, {"x": x}, sizes=_sizes(model, weights), terms=36 + 6)


@pytest.mark.parametrize("operator", sorted(KINDS))
@pytest.mark.parametrize("which", ["layer", "reader"])
def test_kept_nodes_stay(which: str, operator: str, rng: np.random.Generator) -> None:
    texts = {text.split("<")[0].split("(")[0]: step for step, text in STEPS.items()}
    model = to_ir(_chain([texts[operator]], "Conv", _weights(rng, "Conv")))
    fold_affine(model, [model.graph[0 if which == "layer" else 1]])
    assert [node.op_type for node in model.graph] == ["Conv", operator]


@pytest.mark.parametrize("condition", [True, False])
def test_bodies(condition: bool, rng: np.random.Generator) -> None:
    weights = _weights(rng, "Conv")
    weights["w"] = np.round(weights["w"] * 8)
    weights["k"] = np.full((6, 1, 1), 4, np.float32)
    model = make_model(
        """y = If (d) <
              then_branch = t () => (p) { c = Conv(x, w) m = Mul(c, k) p = Add(m, two) },
              else_branch = e () => (q) { q = Relu(x) }
            >""",
        "float[1, 4, 7, 7] x, bool d",
        "float[] y",
        weights,
    )
    folded = _fold(model)
    (branch,) = (one.g for one in folded.graph.node[0].attribute if one.name == "then_branch")
    assert [one.op_type for one in branch.node] == ["Conv"]
    x = rng.integers(-8, 9, (1, 4, 7, 7)).astype(np.float32)
    assert_equal(model, folded, {"x": x, "d": np.array(condition)})


def test_the_body_of_a_loop(rng: np.random.Generator) -> None:
    weights = {"w": np.full((4, 4, 1, 1), 0.25, np.float32), "k": np.full((), 2, np.float32)}
    model = make_model(
        """y = Loop (trips, go, x) <
             body = b (int64 i, bool more, float[1, 4, 2, 2] s)
                 => (bool again, float[1, 4, 2, 2] t) {
               again = Identity(more) c = Conv(s, w) m = Mul(c, k) t = Sub(m, k)
             }
           >""",
        "float[1, 4, 2, 2] x, int64 trips, bool go",
        "float[1, 4, 2, 2] y",
        weights,
    )
    folded = _fold(model)
    (body,) = (one.g for one in folded.graph.node[0].attribute)
    assert [one.op_type for one in body.node] == ["Identity", "Conv"]
    x = rng.integers(-8, 9, (1, 4, 2, 2)).astype(np.float32)
    assert_equal(model, folded, {"x": x, "trips": np.array(3), "go": np.array(True)})


def test_functions_have_no_initializers_and_stay(rng: np.random.Generator) -> None:
    model = to_ir(
        make_model(
            "y = local.f(x, w)",
            "float[1, 4, 7, 7] x",
            "float[] y",
            {"w": float_weight(rng, (6, 4, 3, 3))},
            functions="""<domain: "local", opset_import: ["" : 17]> f (p, v) => (q) {
                k = Constant<value = float {2.0}>() c = Conv(p, v) q = Mul(c, k)
            }""",
        )
    )
    fold_affine(model)
    (function,) = model.functions.values()
    assert [node.op_type for node in function] == ["Constant", "Conv", "Mul"]


def test_an_output_of_the_model_keeps_its_name_type_and_shape(rng: np.random.Generator) -> None:
    model = _chain(["multiply", "normalize", "add"], "Conv", _weights(rng, "Conv"))
    del model.graph.output[:]
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 6, 5, 5])
    )
    assert list(_fold(model).graph.output) == list(model.graph.output)


def test_new_constants_take_no_name_that_is_taken(rng: np.random.Generator) -> None:
    weights = _weights(rng, "Conv") | {
        "v0_weight": np.ones(1, np.float32),
        "v0_bias": np.ones(1, np.float32),
    }
    model = _chain(["multiply", "add"], "Conv", weights)
    model.graph.node.append(onnx.helper.make_node("Add", ["v0_weight", "v0_bias"], ["z"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("z", 1, None))
    folded = _fold(model)
    assert operators(folded) == ["Conv", "Add"]
    x = rng.standard_normal((1, 4, 7, 7)).astype(np.float32)
    assert run(folded, {"x": x})[1].tolist() == [2.0]
