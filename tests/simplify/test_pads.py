from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.simplify.pads import fold_pads, refuse_padding
from onnxq.simplify.unused import remove_unused
from tests.models import float_weight, make_model, to_ir
from tests.simplify.equality import assert_equal, change, operators, operators_in_runtime

CONSTANTS = {
    "w": np.arange(2 * 3 * 3 * 3).reshape(2, 3, 3, 3).astype(np.float32),
    "pads": np.array([0, 0, 1, 0, 0, 0, 2, 3]),
    "nothing": np.float32(0),
    "one": np.float32(1),
    "last_axes": np.array([3, -2]),
    "few": np.array([1, 2, 3, 0]),
}
X = np.arange(3 * 5 * 5, dtype=np.float32).reshape(1, 3, 5, 5)
FOLDED = {
    "no_mode": ("Pad(x, pads)", "", 17, [1, 0, 2, 3]),
    "constant_mode": ('Pad<mode = "constant">(x, pads)', "", 17, [1, 0, 2, 3]),
    "a_zero": ("Pad(x, pads, nothing)", "", 17, [1, 0, 2, 3]),
    "own_pads": ("Pad(x, pads)", "<pads = [1, 1, 0, 2]>", 17, [2, 1, 2, 5]),
    "own_none": ("Pad(x, pads)", '<auto_pad = "VALID">', 17, [1, 0, 2, 3]),
    "strides": ("Pad(x, pads)", "<strides = [2, 2], dilations = [2, 1]>", 17, [1, 0, 2, 3]),
    "axes": ("Pad(x, few, nothing, last_axes)", "", 18, [2, 1, 0, 3]),
    "axes_without_a_value": ("Pad(x, few, , last_axes)", "", 18, [2, 1, 0, 3]),
    "attribute": ("Pad<pads = [0, 0, 1, 0, 0, 0, 2, 3]>(x)", "", 10, [1, 0, 2, 3]),
    "attribute_with_a_value": (
        "Pad<pads = [0, 0, 1, 0, 0, 0, 2, 3], value = 0.0>(x)",
        "",
        10,
        [1, 0, 2, 3],
    ),
}


def _fold(model: onnx.ModelProto) -> onnx.ModelProto:
    return change(model, fold_pads, remove_unused)


def _model(nodes: str, *, opset: int = 17, outputs: str = "float[] y") -> onnx.ModelProto:
    return make_model(nodes, "float[1, 3, 5, 5] x", outputs, CONSTANTS, opset=opset)


def _pads(model: onnx.ModelProto, index: int = 0) -> list[int]:
    (pads,) = (one.ints for one in model.graph.node[index].attribute if one.name == "pads")
    return list(pads)


@pytest.mark.parametrize("case", sorted(FOLDED))
def test_folded_and_equal(case: str) -> None:
    pad, options, opset, expected = FOLDED[case]
    model = _model(f"p = {pad} y = Conv{options}(p, w)", opset=opset)
    folded = _fold(model)
    assert operators(folded) == ["Conv"]
    assert _pads(folded) == expected
    assert_equal(model, folded, {"x": X})


def test_the_runtime_folds_the_same(tmp_path: Path) -> None:
    model = _model("p = Pad(x, pads, nothing) y = Conv(p, w)")
    assert operators_in_runtime(model, tmp_path) == operators(_fold(model)) == ["Conv"]


@settings(max_examples=30, deadline=None)
@given(
    rank=st.integers(3, 5),
    seed=st.integers(0, 2**16),
    grouped=st.booleans(),
)
def test_any_pads_in_any_rank(rank: int, seed: int, grouped: bool) -> None:
    rng = np.random.default_rng(seed)
    spatial = rank - 2
    pads = np.zeros((2, rank), np.int64)
    pads[:, 2:] = rng.integers(0, 4, (2, spatial))
    own = rng.integers(0, 3, 2 * spatial).tolist()
    model = make_model(
        f"p = Pad(x, pads) y = Conv<group = {2 if grouped else 1}, pads = {own}>(p, w)",
        f"float{[1, 4, *[5] * spatial]} x",
        "float[] y",
        {
            "pads": pads.reshape(-1),
            "w": rng.integers(-4, 5, (2, 2 if grouped else 4, *[3] * spatial)).astype(np.float32),
        },
    )
    folded = _fold(model)
    assert operators(folded) == ["Conv"]
    x = rng.integers(-4, 5, (1, 4, *[5] * spatial)).astype(np.float32)
    assert_equal(model, folded, {"x": x})


def test_pads_after_each_other() -> None:
    model = _model("a = Pad(x, pads) b = Pad(a, pads) y = Conv(b, w)")
    folded = _fold(model)
    assert operators(folded) == ["Conv"]
    assert _pads(folded) == [2, 0, 4, 6]
    assert_equal(model, folded, {"x": X})


def test_each_reader_gets_the_pads() -> None:
    model = _model(
        "p = Pad(x, pads) y = Conv(p, w) z = Conv<pads = [1, 1, 1, 1]>(p, w)",
        outputs="float[] y, float[] z",
    )
    folded = _fold(model)
    assert operators(folded) == ["Conv", "Conv"]
    assert (_pads(folded), _pads(folded, 1)) == ([1, 0, 2, 3], [2, 1, 3, 4])
    assert_equal(model, folded, {"x": X})


@pytest.mark.parametrize(
    ("nodes", "left"),
    [
        pytest.param("z = Relu(p)", ["Pad", "Conv", "Relu"], id="node"),
        pytest.param(
            "z = MaxPool<kernel_shape = [2, 2]>(p)", ["Pad", "Conv", "MaxPool"], id="pool"
        ),
    ],
)
def test_other_readers_keep_the_pad(nodes: str, left: list[str]) -> None:
    model = _model(f"p = Pad(x, pads) y = Conv(p, w) {nodes}", outputs="float[] y, float[] z")
    folded = _fold(model)
    assert operators(folded) == left
    assert folded.graph.node[1].input[0] == "x"
    assert_equal(model, folded, {"x": X})


def test_a_pad_that_is_an_output_stays() -> None:
    model = _model("p = Pad(x, pads) y = Conv(p, w)", outputs="float[] y, float[] p")
    folded = _fold(model)
    assert operators(folded) == ["Pad", "Conv"]
    assert_equal(model, folded, {"x": X})


def test_a_weight_that_is_computed() -> None:
    """The convolution only needs to know its rank."""
    model = make_model(
        "p = Pad(x, pads) y = Conv(p, v)",
        "float[1, 3, 5, 5] x, float[2, 3, 3, 3] v",
        "float[] y",
        {"pads": CONSTANTS["pads"]},
    )
    folded = _fold(model)
    assert operators(folded) == ["Conv"]
    assert_equal(model, folded, {"x": X, "v": CONSTANTS["w"]})


def test_within_a_body() -> None:
    model = make_model(
        """y = If (d) <
              then_branch = t () => (a) { p = Pad(x, pads) a = Conv(p, w) },
              else_branch = e () => (b) { b = Relu(x) }
            >""",
        "float[1, 3, 5, 5] x, bool d",
        "float[] y",
        CONSTANTS,
    )
    folded = _fold(model)
    (branch,) = (one.g for one in folded.graph.node[0].attribute if one.name == "then_branch")
    assert [one.op_type for one in branch.node] == ["Conv"]
    assert_equal(model, folded, {"x": X, "d": np.array(True)})


@pytest.mark.parametrize("index", [0, 1], ids=["pad", "convolution"])
def test_kept_nodes_stay(index: int) -> None:
    model = to_ir(_model("p = Pad(x, pads) y = Conv(p, w)"))
    fold_pads(model, [model.graph[index]])
    assert [node.op_type for node in model.graph] == ["Pad", "Conv"]


def test_functions_stay() -> None:
    model = to_ir(
        make_model(
            "y = local.f(x, w)",
            "float[1, 3, 5, 5] x",
            "float[] y",
            CONSTANTS,
            functions="""<domain: "local", opset_import: ["" : 17]> f (a, v) => (q) {
                k = Constant<value = int64[8] {0, 0, 1, 1, 0, 0, 1, 1}>()
                p = Pad(a, k) q = Conv(p, v)
            }""",
        )
    )
    fold_pads(model)
    (function,) = model.functions.values()
    assert [node.op_type for node in function] == ["Constant", "Pad", "Conv"]


REFUSALS = {
    "no_pad": ("p = Relu(x) y = Conv(p, w)", "does not follow a Pad"),
    "input": ("y = Conv(x, w)", "does not follow a Pad"),
    "other_domain": ("p = local.Pad(x, pads) y = Conv(p, w)", "does not follow a Pad"),
    "pool": ("p = Pad(x, pads) y = MaxPool<kernel_shape = [2, 2]>(p)", "is no convolution"),
    "transposed": ("p = Pad(x, pads) y = ConvTranspose(p, w)", "is no convolution"),
    "integers": (
        "p = Pad(x, pads) y = ConvInteger(p, w)",
        "a convolution of integers pads with its zero point",
    ),
    "quantized": (
        "p = Pad(x, pads) y = QLinearConv(p, one, nothing, w, one, nothing, one, nothing)",
        "a convolution of integers pads with its zero point",
    ),
    "same": (
        'p = Pad(x, pads) y = Conv<auto_pad = "SAME_UPPER">(p, w)',
        "the convolution chooses its padding by the size of its input",
    ),
    "edge": ('p = Pad<mode = "edge">(x, pads) y = Conv(p, w)', "the Pad repeats its input"),
    "reflect": ('p = Pad<mode = "reflect">(x, pads) y = Conv(p, w)', "the Pad repeats its input"),
    "one": ("p = Pad(x, pads, one) y = Conv(p, w)", "the Pad is not of zeros"),
    "computed_value": (
        "v = Neg(nothing) p = Pad(x, pads, v) y = Conv(p, w)",
        "the Pad is not of zeros",
    ),
    "one_as_attribute": (
        "p = Pad<pads = [0, 0, 1, 0, 0, 0, 2, 3], value = 1.0>(x) y = Conv(p, w)",
        "the Pad is not of zeros",
    ),
    "weight_of_unknown_rank": (
        "v = Neg(w) p = Pad(x, pads) y = Conv(p, v)",
        "the rank of the convolution is not known",
    ),
    "computed_pads": ("k = Neg(pads) p = Pad(x, k) y = Conv(p, w)", "the pads are not constant"),
    "computed_axes": (
        "k = Neg(last_axes) p = Pad(x, few, , k) y = Conv(p, w)",
        "the pads are not constant",
    ),
    "too_few_pads": ("p = Pad(x, few) y = Conv(p, w)", "the pads are not constant"),
    "negative": (
        "p = Pad<pads = [0, 0, 1, 0, 0, 0, -2, 3]>(x) y = Conv(p, w)",
        "the Pad crops",
    ),
    "channels": (
        "p = Pad<pads = [0, 0, 1, 0, 0, 1, 0, 0]>(x) y = Conv(p, w)",
        "the Pad adds batches or channels",
    ),
    "batches": (
        "p = Pad<pads = [1, 0, 1, 0, 0, 0, 0, 0]>(x) y = Conv(p, w)",
        "the Pad adds batches or channels",
    ),
}


@pytest.mark.parametrize("case", sorted(REFUSALS))
def test_refusals(case: str) -> None:
    nodes, reason = REFUSALS[case]
    model = to_ir(_model(nodes))
    before = [node.op_type for node in model.graph]
    assert refuse_padding(model.graph[-1]) == reason
    fold_pads(model)
    assert [node.op_type for node in model.graph] == before


def test_a_padded_weight_is_not_meant(rng: np.random.Generator) -> None:
    model = to_ir(_model("p = Pad(w, pads) y = Conv(x, p)"))
    assert refuse_padding(model.graph[1]) == "does not follow a Pad"


def test_refusal_of_another_body() -> None:
    model = to_ir(
        make_model(
            """p = Pad(x, pads)
               y = If (d) <
                 then_branch = t () => (a) { a = Conv(p, w) },
                 else_branch = e () => (b) { b = Relu(x) }
               >""",
            "float[1, 3, 5, 5] x, bool d",
            "float[] y",
            CONSTANTS,
        )
    )
    node = model.graph[1].attributes["then_branch"].as_graph()[0]
    assert refuse_padding(node) == "the Pad is in another body"
    fold_pads(model)
    assert model.graph[0].op_type == "Pad"


def test_pads_that_a_caller_may_override(rng: np.random.Generator) -> None:
    model = make_model(
        "p = Pad(x, pads) y = Conv(p, w)",
        "float[1, 3, 5, 5] x, int64[8] pads",
        "float[] y",
        {"w": float_weight(rng, (2, 3, 3, 3)), "pads": CONSTANTS["pads"]},
    )
    assert refuse_padding(to_ir(model).graph[1]) == "the pads are not constant"
