from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.simplify.scalars import find_chain, fold_scalars, refuse_scalars
from onnxq.simplify.unused import remove_unused
from tests.models import float_weight, make_model, to_ir
from tests.simplify.equality import assert_close, change, operators

CONSTANTS = {
    "w": float_weight(np.random.default_rng(0), (6, 4, 3, 3)),
    "depthwise": float_weight(np.random.default_rng(1), (4, 1, 3, 3)),
    "c": np.linspace(-1, 1, 6, dtype=np.float32),
    "half": np.float32(0.5),
    "two": np.full(1, 2, np.float32),
    "third": np.full((1, 1, 1), 1 / 3, np.float32),
    "block": np.full((1, 1, 1, 1), 2, np.float32),
    "columns": np.full(7, 2, np.float32),
    "nothing": np.float32(0),
    "large": np.float32(2000),
    "huge": np.float32(2**25),
}
X = np.random.default_rng(2).standard_normal((1, 4, 7, 7)).astype(np.float32)
PADDED = "<pads = [1, 1, 1, 1]>"
FOLDED = {
    "multiply": ("v = Mul(h, half)", "", []),
    "multiply_first": ("v = Mul(half, h)", "", []),
    "divide": ("v = Div(h, two)", "", []),
    "add": ("v = Add(h, third)", "", []),
    "subtract": ("v = Sub(h, third)", "", []),
    "subtract_from": ("v = Sub(third, h)", "", []),
    "affine": ("a = Mul(h, half) v = Add(a, third)", "", []),
    "chain": ("a = Sub(h, third) b = Div(a, two) c0 = Add(b, half) v = Mul(c0, third)", "", []),
    "multiply_padded": ("v = Mul(h, half)", PADDED, []),
    "affine_padded": ("a = Mul(h, half) v = Add(a, third)", PADDED, ["Add"]),
    "affine_to_size": ("a = Mul(h, half) v = Add(a, third)", '<auto_pad = "SAME_UPPER">', ["Add"]),
    "affine_valid": ("a = Mul(h, half) v = Add(a, third)", '<auto_pad = "VALID">', []),
    "affine_padded_with_nothing": (
        "a = Mul(h, half) v = Add(a, third)",
        "<pads = [0, 0, 0, 0]>",
        [],
    ),
    "shift_first": ("a = Add(h, third) v = Mul(a, half)", PADDED, ["Add"]),
    "shifts": ("a = Add(h, third) v = Sub(a, half)", PADDED, ["Add"]),
    "adds_nothing": ("v = Add(h, nothing)", PADDED, []),
}


def _fold(model: onnx.ModelProto) -> onnx.ModelProto:
    return change(model, fold_scalars, remove_unused)


def _model(nodes: str, outputs: str = "float[] y") -> onnx.ModelProto:
    return make_model(nodes, "float[1, 4, 7, 7] x", outputs, CONSTANTS)


def _sizes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same without a minus."""
    sizes = onnx.ModelProto()
    sizes.CopyFrom(model)
    for node in sizes.graph.node:
        node.op_type = {"Sub": "Add"}.get(node.op_type, node.op_type)
    for tensor in sizes.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.abs(array), tensor.name))
    return sizes


@pytest.mark.parametrize("convolution", ["(v, w)", "(v, w, c)", "<group = 4>(v, depthwise)"])
@pytest.mark.parametrize("case", sorted(FOLDED))
def test_folded_and_equal(case: str, convolution: str) -> None:
    nodes, options, left = FOLDED[case]
    if options and convolution.startswith("<"):
        options, convolution = options.replace("<", "<group = 4, "), "(v, depthwise)"
    model = _model(f"h = Relu(x) {nodes} y = Conv{options}{convolution}")
    folded = _fold(model)
    assert operators(folded) == ["Relu", *left, "Conv"]
    assert_close(model, folded, {"x": X}, sizes=_sizes(model), terms=36)


@settings(max_examples=30, deadline=None)
@given(
    rank=st.integers(3, 5),
    factor=st.floats(2.0**-8, 2.0**8, width=32),
    shift=st.floats(-8, 8, width=32),
    negative=st.booleans(),
    pads=st.integers(0, 2),
    seed=st.integers(0, 2**16),
)
def test_any_numbers_in_any_rank(
    rank: int, factor: float, shift: float, negative: bool, pads: int, seed: int
) -> None:
    rng, spatial = np.random.default_rng(seed), rank - 2
    model = make_model(
        f"a = Mul(x, factor) b = Add(a, shift) y = Conv<pads = {[pads] * 2 * spatial}>(b, w)",
        f"float{[1, 2, *[4] * spatial]} x",
        "float[] y",
        {
            "w": float_weight(rng, (3, 2, *[2] * spatial)),
            "factor": np.float32(-factor if negative else factor),
            "shift": np.float32(shift),
        },
    )
    folded = _fold(model)
    allowed = abs(shift / factor) <= 2.0**10
    left = 2 if not allowed else int(pads > 0 and np.float32(shift / factor) != 0)
    assert len(operators(folded)) == 1 + left
    x = rng.standard_normal((1, 2, *[4] * spatial)).astype(np.float32)
    assert_close(model, folded, {"x": x}, sizes=_sizes(model), terms=2 * 2**spatial)


def test_folding_again_changes_nothing() -> None:
    once = _fold(_model(f"a = Mul(x, half) b = Add(a, third) y = Conv{PADDED}(b, w)"))
    assert _fold(once).SerializeToString() == once.SerializeToString()


def test_a_chain_ends_at_what_is_read_twice() -> None:
    model = _model(
        "a = Mul(x, half) b = Add(a, third) y = Conv(b, w) z = Relu(a)", "float y, float z"
    )
    folded = _fold(model)
    assert operators(folded) == ["Mul", "Conv", "Relu"]
    assert folded.graph.node[1].input[0] == "a"


def test_within_a_body() -> None:
    model = make_model(
        """y = If (d) <
              then_branch = t () => (q) { a = Mul(x, half) q = Conv(a, w) },
              else_branch = e () => (r) { r = Relu(x) }
            >""",
        "float[1, 4, 7, 7] x, bool d",
        "float[] y",
        CONSTANTS,
    )
    folded = _fold(model)
    (branch,) = (one.g for one in folded.graph.node[0].attribute if one.name == "then_branch")
    assert [one.op_type for one in branch.node] == ["Conv"]


@pytest.mark.parametrize(
    ("index", "left"),
    [(0, ["Mul", "Conv"]), (1, ["Mul", "Add", "Conv"]), (2, ["Mul", "Add", "Conv"])],
    ids=["first", "second", "convolution"],
)
def test_kept_nodes_stay(index: int, left: list[str]) -> None:
    model = to_ir(_model("a = Mul(x, half) b = Add(a, third) y = Conv(b, w)"))
    fold_scalars(model, [model.graph[index]])
    assert [node.op_type for node in model.graph] == left


def test_functions_stay() -> None:
    model = to_ir(
        make_model(
            "y = local.f(x)",
            "float[1, 1, 2] x",
            "float[] y",
            functions="""<domain: "local", opset_import: ["" : 17]> f (v) => (q) {
                w = Constant<value = float[1, 1, 1] {3}>() six = Constant<value = float {6}>()
                a = Mul(v, six) q = Conv(a, w)
            }""",
        )
    )
    fold_scalars(model)
    (function,) = model.functions.values()
    assert [node.op_type for node in function][2:] == ["Mul", "Conv"]


NOTHING = "no convolution after an operation with one number"
REFUSALS = {
    "no_operation": ("a = Relu(x) y = Conv(a, w)", NOTHING),
    "input": ("y = Conv(x, w)", NOTHING),
    "pool": ("a = Mul(x, half) y = MaxPool<kernel_shape = [2, 2]>(a)", NOTHING),
    "other_domain": ("a = local.Mul(x, half) y = Conv(a, w)", NOTHING),
    "divided_by": ("a = Div(half, x) y = Conv(a, w)", NOTHING),
    "two_inputs": ("a = Mul(x, x) y = Conv(a, w)", NOTHING),
    "columns": ("a = Mul(x, columns) y = Conv(a, w)", NOTHING),
    "may_add_axes": ("a = Mul(x, block) y = Conv(a, w)", NOTHING),
    "computed_weight": ("v = Neg(w) a = Mul(x, half) y = Conv(a, v)", NOTHING),
    "another_reader": ("a = Mul(x, half) z = Relu(a) y = Conv(a, w)", NOTHING),
    "output": ("z = Mul(x, half) y = Conv(z, w)", NOTHING),
    "shared": ("z = Neg(w) a = Mul(x, half) y = Conv(a, w)", "the weight is shared"),
    "computed_bias": (
        "v = Neg(c) a = Mul(x, half) y = Conv(a, w, v)",
        "the bias is not constant",
    ),
    "no_factor": ("a = Mul(x, nothing) y = Conv(a, w)", "the factor is too large or too small"),
    "huge_factor": ("a = Mul(x, huge) y = Conv(a, w)", "the factor is too large or too small"),
    "tiny_factor": ("a = Div(x, huge) y = Conv(a, w)", "the factor is too large or too small"),
    "large_shift": ("a = Sub(x, large) y = Conv(a, w)", "the shift is too large"),
    "padded": (
        f"a = Add(x, half) y = Conv{PADDED}(a, w)",
        "the convolution pads with zeros that are not shifted",
    ),
    "subtracted_padded": (
        f"a = Sub(half, x) y = Conv{PADDED}(a, w)",
        "the convolution pads with zeros that are not shifted",
    ),
}


@pytest.mark.parametrize("case", sorted(REFUSALS))
def test_refusals(case: str) -> None:
    nodes, reason = REFUSALS[case]
    model = to_ir(_model(nodes, "float[] y, float[] z" if "z =" in nodes else "float[] y"))
    before = [node.op_type for node in model.graph]
    convolution = model.graph[-1]
    assert refuse_scalars(convolution, find_chain(convolution)) == reason
    fold_scalars(model)
    assert [node.op_type for node in model.graph] == before


def test_refusal_of_a_weight_that_would_overflow() -> None:
    weight = np.full((1, 1, 1), 3e38, np.float32)
    model = to_ir(
        make_model(
            "a = Mul(x, two) y = Conv(a, w)",
            "float[1, 1, 2] x",
            "float[] y",
            {"w": weight, "two": np.float32(2)},
        )
    )
    convolution = model.graph[-1]
    assert refuse_scalars(convolution, find_chain(convolution)) == "the weight would overflow"


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_types_stay(dtype: str) -> None:
    name = {"float16": "float16", "float64": "double"}[dtype]
    constants = {"w": np.ones((1, 1, 1), dtype), "two": np.array(2, dtype)}
    model = to_ir(
        make_model("a = Mul(x, two) y = Conv(a, w)", f"{name}[1, 1, 2] x", f"{name}[] y", constants)
    )
    assert find_chain(model.graph[-1]) is None


def test_numbers_that_a_caller_may_override() -> None:
    model = make_model(
        "a = Mul(x, half) y = Conv(a, w)", "float[1, 4, 7, 7] x, float half", "float[] y", CONSTANTS
    )
    assert find_chain(to_ir(model).graph[-1]) is None


def test_refusal_of_another_body() -> None:
    model = to_ir(
        make_model(
            """a = Mul(x, half)
               y = If (d) <
                 then_branch = t () => (q) { q = Conv(a, w) },
                 else_branch = e () => (r) { r = Relu(x) }
               >""",
            "float[1, 4, 7, 7] x, bool d",
            "float[] y",
            CONSTANTS,
        )
    )
    node = model.graph[1].attributes["then_branch"].as_graph()[0]
    assert find_chain(node) is None
