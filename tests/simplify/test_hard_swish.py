from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.simplify import simplify
from onnxq.simplify.hard_swish import find_pieces, recognize_hard_swish, refuse_hard_swish
from onnxq.simplify.unused import remove_unused
from tests.models import float_weight, make_model, to_ir
from tests.simplify.equality import UNIT_ROUNDOFF, assert_close, change, operators, run

CONSTANTS = {
    "zero": np.float32(0),
    "one": np.float32(1),
    "three": np.float32(3),
    "six": np.float32(6),
    "sixth": np.float32(1 / 6),
    "near_sixth": np.nextafter(np.float32(1 / 6), np.float32(0)),
    "rough_sixth": np.float32(0.16667),
    "seven": np.float32(7),
    "minus": np.float32(-1),
    "infinite": np.float32(np.inf),
    "not_a_number": np.float32(np.nan),
    "row_three": np.full(1, 3, np.float32),
    "row_six": np.full(1, 6, np.float32),
    "matrix_three": np.full((1, 1), 3, np.float32),
    "block_three": np.full((1, 1, 1), 3, np.float32),
    "threes": np.full(4, 3, np.float32),
    "sixes": np.full(4, 6, np.float32),
}
X = np.concatenate(
    [np.linspace(-9, 9, 397), [0, -3, 3, -1e-30, 1e-6, -3e5, 1e30]], dtype=np.float32
).reshape(-1, 4)

SIGMOIDS = {
    "divided": "a = Add(x, three) b = Clip(a, zero, six) y = Div(b, six)",
    "multiplied": "a = Add(x, three) b = Clip(a, zero, six) y = Mul(b, sixth)",
    "multiplied_by_what_was_cut_off": (
        "a = Add(x, three) b = Clip(a, zero, six) y = Mul(b, near_sixth)"
    ),
    "other_order": "a = Add(three, x) b = Clip(a, zero, six) y = Mul(sixth, b)",
    "relu_then_min": "a = Add(x, three) r = Relu(a) b = Min(r, six) y = Div(b, six)",
    "min_then_relu": "a = Add(x, three) r = Min(six, a) b = Relu(r) y = Div(b, six)",
    "max_then_min": "a = Add(x, three) r = Max(a, zero) b = Min(r, six) y = Div(b, six)",
    "relu_then_clip": "a = Add(x, three) r = Relu(a) b = Clip(r, , six) y = Div(b, six)",
    "wider_first": "a = Add(x, three) r = Clip(a, minus, seven) b = Clip(r, zero, six) "
    "y = Div(b, six)",
    "rows": "a = Add(x, row_three) b = Clip(a, zero, six) y = Div(b, row_six)",
    "other_numbers": "a = Add(x, one) b = Clip(a, zero, three) y = Div(b, three)",
    "no_shift": "a = Add(x, zero) b = Clip(a, zero, six) y = Div(b, six)",
}
SWISHES = {
    "multiplied_then_divided": (
        "a = Add(x, three) b = Clip(a, zero, six) p = Mul(x, b) y = Div(p, six)"
    ),
    "multiplied_twice": (
        "a = Add(x, three) b = Clip(a, zero, six) p = Mul(b, x) y = Mul(sixth, p)"
    ),
    "divided_then_multiplied": (
        "a = Add(x, three) b = Clip(a, zero, six) p = Div(b, six) y = Mul(x, p)"
    ),
    "divided_then_multiplied_in_the_other_order": (
        "a = Add(three, x) b = Clip(a, zero, six) p = Mul(b, sixth) y = Mul(p, x)"
    ),
    "relu_and_min": "a = Add(x, three) r = Relu(a) b = Min(r, six) p = Mul(x, b) y = Div(p, six)",
}


def _recognize(model: onnx.ModelProto) -> onnx.ModelProto:
    return change(model, recognize_hard_swish, remove_unused)


def _model(
    nodes: str, *, opset: int = 17, inputs: str = "float[N, 4] x", outputs: str = "float[] y"
) -> onnx.ModelProto:
    return make_model(nodes, inputs, outputs, CONSTANTS, opset=opset)


def _assert_near(before: onnx.ModelProto, after: onnx.ModelProto, *, swish: bool) -> None:
    """Equal up to rounding.

    With u the unit roundoff, a is in [0, c], so x / c is at most 2 where nothing is clipped.
    HardSigmoid rounds 1 / c, the product with x, a / c and the sum: at most 2 + 2 + 1 + 1 units;
    the pieces round the sum, the division, and the inverse of c by two: at most 4 of them. All are
    of one; a HardSwish multiplies that by x, and rounds that and one more product: 13 units of x.
    """
    (expected,), (actual,) = run(before, {"x": X}), run(after, {"x": X})
    assert (expected.shape, expected.dtype) == (actual.shape, actual.dtype)
    size = np.abs(X) if swish else np.ones_like(X)
    assert np.all(np.abs(expected.astype(np.float64) - actual) <= 14 * UNIT_ROUNDOFF * size)


@pytest.mark.parametrize("case", sorted(SIGMOIDS))
def test_hard_sigmoids(case: str) -> None:
    model = _model(SIGMOIDS[case])
    changed = _recognize(model)
    assert operators(changed) == ["HardSigmoid"]
    assert not changed.graph.initializer
    _assert_near(model, changed, swish=False)


@pytest.mark.parametrize("case", sorted(SWISHES))
def test_hard_swishes(case: str) -> None:
    model = _model(SWISHES[case])
    changed = _recognize(model)
    assert operators(changed) == ["HardSigmoid", "Mul"]
    assert not changed.graph.initializer
    _assert_near(model, changed, swish=True)


def test_the_numbers_of_a_hard_swish() -> None:
    changed = _recognize(_model(SWISHES["multiplied_then_divided"]))
    numbers = {one.name: one.f for one in changed.graph.node[0].attribute}
    assert numbers == {"alpha": np.float32(1 / 6), "beta": 0.5}


@settings(max_examples=50, deadline=None)
@given(
    highest=st.floats(2.0**-4, 2.0**4, width=32),
    part=st.floats(0, 1),
    divides=st.booleans(),
    swish=st.booleans(),
)
def test_any_numbers(highest: float, part: float, divides: bool, swish: bool) -> None:
    product, scaled = ("p = Mul(x, b)", "p") if swish else ("", "b")
    scaling = f"Div({scaled}, c)" if divides else f"Mul({scaled}, inverse)"
    model = make_model(
        f"a = Add(x, shift) b = Clip(a, zero, c) {product} y = {scaling}",
        "float[N, 4] x",
        "float[] y",
        {
            "zero": np.float32(0),
            "c": np.float32(highest),
            "inverse": np.float32(1 / highest),
            "shift": min(np.float32(highest * part), np.float32(highest)),
        },
    )
    changed = _recognize(model)
    assert operators(changed) == ["HardSigmoid", *["Mul"] * swish]
    _assert_near(model, changed, swish=swish)


def test_limits_as_attributes() -> None:
    model = _model(
        "a = Add(x, three) b = Clip<min = 0.0, max = 6.0>(a) y = Div(b, six)",
        opset=10,
        inputs="float[101, 4] x",
    )
    assert operators(_recognize(model)) == ["HardSigmoid"]
    _assert_near(model, _recognize(model), swish=False)


def test_names_of_outputs_stay() -> None:
    model = _model(
        f"{SWISHES['multiplied_then_divided']} y_gate = Neg(x) z = Relu(y)",
        outputs="float[] y, float[] z, float[] y_gate",
    )
    changed = _recognize(model)
    assert operators(changed) == ["HardSigmoid", "Mul", "Neg", "Relu"]
    for one, other in zip(run(model, {"x": X}), run(changed, {"x": X}), strict=True):
        assert np.allclose(one, other)


CONVOLUTIONS = {
    "plain": "h = Conv(x, w)",
    "normalized": "c = Conv(x, w) h = BatchNormalization(c, k, k, k, k)",
    "biased": "c = Conv(x, w) h = Add(c, b)",
    "shifted": "c = Conv(x, w) h = Add(c, one)",
    "relu": "c = Conv(x, w) h = Relu(c)",
}


@pytest.mark.parametrize("case", sorted(CONVOLUTIONS))
@pytest.mark.parametrize("swish", [True, False])
def test_after_a_convolution_of_unknown_shape(
    case: str, swish: bool, rng: np.random.Generator
) -> None:
    """The shift is not folded into the bias, and constants of rank 1 add no axes."""
    product = "p = Mul(h, g)" if swish else "p = Relu(g)"
    nodes = f"a = Add(h, row_three) g = Clip(a, zero, six) {product} y = Div(p, row_six)"
    weights = {
        "w": float_weight(rng, (4, 3, 3, 3)),
        "k": rng.uniform(0.5, 2, 4).astype(np.float32),
        "b": rng.uniform(0.5, 2, (1, 4, 1, 1)).astype(np.float32),
    }
    model = make_model(
        f"{CONVOLUTIONS[case]} {nodes}",
        "float[1, 3, 8, 8] x",
        "float[] y",
        CONSTANTS | weights,
    )
    changed = change(model, simplify)
    own = ["Conv", *["Relu"] * (case == "relu")]
    assert operators(changed) == [*own, "HardSigmoid", *["Mul"] * swish]
    # Larger than every kind: no factor, shift or bias above is larger than 2.
    sizes = make_model(
        "c = Conv(x, w) d = Add(c, k) e = Mul(d, k) h = Add(e, k) f = Add(h, six) y = Mul(f, f)",
        "float[1, 3, 8, 8] x",
        "float[] y",
        CONSTANTS | {"w": np.abs(weights["w"]), "k": np.full((1, 4, 1, 1), 2, np.float32)},
    )
    x = rng.standard_normal((1, 3, 8, 8)).astype(np.float32)
    assert_close(model, changed, {"x": x}, sizes=sizes, terms=27)


@pytest.mark.parametrize("index", range(4), ids=["shift", "clamp", "product", "scaling"])
def test_kept_nodes_stay(index: int) -> None:
    model = to_ir(_model(SWISHES["multiplied_then_divided"]))
    recognize_hard_swish(model, [model.graph[index]])
    assert [node.op_type for node in model.graph] == ["Add", "Clip", "Mul", "Div"]


def test_within_a_body() -> None:
    model = make_model(
        f"""y = If (d) <
              then_branch = t () => (q) {{
                {SWISHES["multiplied_then_divided"].replace("y =", "q =")}
              }},
              else_branch = e () => (r) {{ r = Relu(x) }}
            >""",
        "float[101, 4] x, bool d",
        "float[] y",
        CONSTANTS,
    )
    changed = _recognize(model)
    (branch,) = (one.g for one in changed.graph.node[0].attribute if one.name == "then_branch")
    assert [one.op_type for one in branch.node] == ["HardSigmoid", "Mul"]
    (expected,), (actual,) = (run(one, {"x": X, "d": np.array(True)}) for one in (model, changed))
    assert np.allclose(expected, actual)


def test_functions_stay() -> None:
    model = to_ir(
        make_model(
            "y = local.f(x)",
            "float[N, 4] x",
            "float[] y",
            functions="""<domain: "local", opset_import: ["" : 17]> f (v) => (q) {
                three = Constant<value = float {3}>() six = Constant<value = float {6}>()
                zero = Constant<value = float {0}>()
                a = Add(v, three) b = Clip(a, zero, six) q = Div(b, six)
            }""",
        )
    )
    recognize_hard_swish(model)
    (function,) = model.functions.values()
    assert [node.op_type for node in function][3:] == ["Add", "Clip", "Div"]


NOTHING = "does not scale what was shifted and clipped"
NO_INTERVAL = "does not clip to an interval from zero"
NOT_ONE = "does not scale the interval to one"
REFUSALS = {
    "other_domain": ("a = Add(x, three) b = Clip(a, zero, six) y = local.Div(b, six)", NOTHING),
    "inverted": ("a = Add(x, three) b = Clip(a, zero, six) y = Div(six, b)", NOTHING),
    "no_clip": ("a = Add(x, three) y = Div(a, six)", NOTHING),
    "no_shift": ("b = Clip(x, zero, six) y = Div(b, six)", NOTHING),
    "other_shift": ("a = Sub(three, x) b = Clip(a, zero, six) y = Div(b, six)", NOTHING),
    "shift_by_what_is_computed": (
        "a = Add(x, x) b = Clip(a, zero, six) y = Div(b, six)",
        NOTHING,
    ),
    "computed_limit": (
        "k = Neg(six) a = Add(x, three) b = Clip(a, zero, k) y = Div(b, six)",
        NOTHING,
    ),
    "computed_minimum": (
        "k = Neg(six) a = Add(x, three) r = Relu(a) b = Min(r, k) y = Div(b, six)",
        NOTHING,
    ),
    "limits_of_columns": (
        "a = Add(x, three) r = Relu(a) b = Min(r, sixes) y = Div(b, six)",
        NOTHING,
    ),
    "product_with_another": (
        "k = Neg(x) a = Add(x, three) b = Clip(a, zero, six) p = Mul(k, b) y = Div(p, six)",
        NOTHING,
    ),
    "product_with_the_shifted": (
        "a = Add(x, three) b = Clip(a, zero, six) p = Mul(a, b) y = Div(p, six)",
        NOTHING,
    ),
    "clip_is_read": (
        "a = Add(x, three) b = Clip(a, zero, six) z = Neg(b) y = Div(b, six)",
        "a piece has another reader",
    ),
    "shift_is_read": (
        "a = Add(x, three) z = Neg(a) b = Clip(a, zero, six) y = Div(b, six)",
        "a piece has another reader",
    ),
    "product_is_read": (
        "a = Add(x, three) b = Clip(a, zero, six) p = Mul(x, b) z = Neg(p) y = Div(p, six)",
        "a piece has another reader",
    ),
    "clip_is_an_output": (
        "a = Add(x, three) z = Clip(a, zero, six) y = Div(z, six)",
        "a piece has another reader",
    ),
    "columns": (
        "a = Add(x, threes) b = Clip(a, zero, six) y = Div(b, six)",
        "a constant has more than one value",
    ),
    "scales_of_columns": (
        "a = Add(x, three) b = Clip(a, zero, six) y = Div(b, sixes)",
        "a constant has more than one value",
    ),
    "adds_an_axis": (
        "a = Add(x, block_three) b = Clip(a, zero, six) y = Div(b, six)",
        "a constant may add axes",
    ),
    "may_add_an_axis": (
        "v = Neg(x) a = Add(v, row_three) b = Clip(a, zero, six) y = Div(b, six)",
        "a constant may add axes",
    ),
    "not_above": ("a = Add(x, three) b = Relu(a) y = Div(b, six)", NO_INTERVAL),
    "not_below": ("a = Add(x, three) b = Min(a, six) y = Div(b, six)", NO_INTERVAL),
    "from_another": ("a = Add(x, three) b = Clip(a, one, six) y = Div(b, six)", NO_INTERVAL),
    "to_nothing": ("a = Add(x, zero) b = Clip(a, zero, zero) y = Div(b, zero)", NO_INTERVAL),
    "to_infinity": (
        "a = Add(x, three) b = Clip(a, zero, infinite) y = Div(b, infinite)",
        NO_INTERVAL,
    ),
    "not_a_number": (
        "a = Add(x, three) b = Clip(a, zero, not_a_number) y = Div(b, not_a_number)",
        NO_INTERVAL,
    ),
    "nothing_in_common": (
        "a = Add(x, three) r = Clip(a, six, seven) b = Clip(r, zero, one) y = Div(b, one)",
        NO_INTERVAL,
    ),
    "divided_by_another": ("a = Add(x, three) b = Clip(a, zero, six) y = Div(b, seven)", NOT_ONE),
    "multiplied_by_another": (
        "a = Add(x, three) b = Clip(a, zero, six) y = Mul(b, rough_sixth)",
        NOT_ONE,
    ),
    "multiplied_by_no_number": (
        "a = Add(x, three) b = Clip(a, zero, six) y = Mul(b, not_a_number)",
        NOT_ONE,
    ),
    "shifted_below": (
        "a = Add(x, minus) b = Clip(a, zero, six) y = Div(b, six)",
        "zero is shifted out of the interval",
    ),
    "shifted_above": (
        "a = Add(x, seven) b = Clip(a, zero, six) y = Div(b, six)",
        "zero is shifted out of the interval",
    ),
    "shifted_by_no_number": (
        "a = Add(x, not_a_number) b = Clip(a, zero, six) y = Div(b, six)",
        "zero is shifted out of the interval",
    ),
}


@pytest.mark.parametrize("case", sorted(REFUSALS))
def test_refusals(case: str) -> None:
    nodes, reason = REFUSALS[case]
    model = to_ir(_model(nodes, outputs="float[] y, float[] z" if "z =" in nodes else "float[] y"))
    before = [node.op_type for node in model.graph]
    assert refuse_hard_swish(model.graph[-1]) == reason
    recognize_hard_swish(model)
    assert [node.op_type for node in model.graph] == before


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_refusal_of_another_type(dtype: str) -> None:
    name = {"float16": "float16", "float64": "double"}[dtype]
    constants = {one: CONSTANTS[one].astype(dtype) for one in ("zero", "three", "six")}
    model = to_ir(make_model(SIGMOIDS["divided"], f"{name}[4] x", f"{name}[] y", constants))
    assert refuse_hard_swish(model.graph[-1]) == "is not computed in float32"


def test_refusal_of_old_broadcasting() -> None:
    model = _model(
        "a = Add<broadcast = 1>(x, three) b = Clip<min = 0.0, max = 6.0>(a) "
        "y = Div<broadcast = 1>(b, six)",
        opset=6,
    )
    assert refuse_hard_swish(to_ir(model).graph[-1]) == "broadcasts as before operator set 7"


def test_refusal_of_a_limit_that_the_caller_sets() -> None:
    model = to_ir(_model("a = Add(x, three) b = Relu(a) c = Min(b, six) y = Div(c, six)"))
    scaling = model.graph[-1]
    scaling.attributes["own"] = ir.RefAttr("own", "outer", ir.AttributeType.FLOAT)
    reason = "has an attribute that the caller of its function sets"
    assert refuse_hard_swish(scaling) == reason


def test_refusal_of_another_body() -> None:
    model = to_ir(
        make_model(
            """a = Add(x, three) b = Clip(a, zero, six)
               y = If (d) <
                 then_branch = t () => (q) { q = Div(b, six) },
                 else_branch = e () => (r) { r = Relu(x) }
               >""",
            "float[N, 4] x, bool d",
            "float[] y",
            CONSTANTS,
        )
    )
    node = model.graph[2].attributes["then_branch"].as_graph()[0]
    assert refuse_hard_swish(node) == "a piece is in another body"
    recognize_hard_swish(model)
    assert [one.op_type for one in model.graph] == ["Add", "Clip", "If"]


def test_constants_that_a_caller_may_override() -> None:
    model = _model(SIGMOIDS["divided"], inputs="float[N, 4] x, float three")
    assert find_pieces(to_ir(model).graph[-1]) is None
