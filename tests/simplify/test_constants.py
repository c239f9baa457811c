from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxq.simplify.constants import (
    GROWTH_ALLOWANCE_BYTES,
    MOVEMENTS,
    SHAPE_ELEMENTS,
    fold_constants,
)
from onnxq.simplify.initializers import lift_constants
from onnxq.simplify.unused import remove_unused
from tests.models import float_weight, make_model
from tests.simplify.equality import assert_equal, change, operators

INTS = {
    "zero": np.array([0], np.int64),
    "one": np.array([1], np.int64),
    "two": np.array([2], np.int64),
    "four": np.array([4], np.int64),
    "shape": np.array([3, -1], np.int64),
    "sizes": np.array([1, 3], np.int64),
}

MOVED = {
    "Concat": ("m = Concat<axis = 0>(w, w2)", "m"),
    "Flatten": ("m = Flatten<axis = 1>(w)", "m"),
    "Identity": ("m = Identity(w)", "m"),
    "Reshape": ("m = Reshape(w, shape)", "m"),
    "Slice": ("m = Slice(w, one, four, zero)", "m"),
    "Split": ("m, m2 = Split<axis = 0>(w, sizes)", "m"),
    "Squeeze": ("m = Squeeze(w3, zero)", "m"),
    "Transpose": ("m = Transpose<perm = [1, 0]>(w)", "m"),
    "Unsqueeze": ("m = Unsqueeze(w, zero)", "m"),
}


def _weights(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return INTS | {
        "w": float_weight(rng, (4, 6)),
        "w2": float_weight(rng, (2, 6)),
        "w3": float_weight(rng, (1, 4, 6)),
    }


def _fold(model: onnx.ModelProto) -> onnx.ModelProto:
    return change(model, lift_constants, fold_constants, remove_unused)


def _initializers(model: onnx.ModelProto) -> list[str]:
    return [tensor.name for tensor in model.graph.initializer]


def _stored_bytes(model: onnx.ModelProto) -> int:
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def test_every_movement_has_a_case() -> None:
    assert set(MOVED) == MOVEMENTS


@pytest.mark.parametrize("operator", sorted(MOVEMENTS))
def test_a_movement_of_a_constant_becomes_a_constant(
    operator: str, rng: np.random.Generator
) -> None:
    nodes, output = MOVED[operator]
    weights = _weights(rng)
    other = "z = Add(y1, m2)" if operator == "Split" else "z = Identity(y1)"
    model = make_model(f"{nodes} y1 = Mul(x, {output}) {other}", "float[1] x", "float[] z", weights)
    folded = _fold(model)
    assert operators(folded) == ["Mul", "Add" if operator == "Split" else "Identity"]
    assert_equal(model, folded, {"x": rng.standard_normal(1).astype(np.float32)})


def test_chains_are_folded_to_the_end(rng: np.random.Generator) -> None:
    """As an exporter reorders the gates of an LSTM."""
    model = make_model(
        """a = Slice(w, zero, one, zero)
           b = Slice(w, one, four, zero)
           c = Concat<axis = 0>(b, a)
           d = Unsqueeze(c, zero)
           y = Mul(x, d)""",
        "float[1] x",
        "float[] y",
        _weights(rng),
    )
    folded = _fold(model)
    assert operators(folded) == ["Mul"]
    assert _initializers(folded) == ["d"]
    assert_equal(model, folded, {"x": np.ones(1, np.float32)})


@pytest.mark.parametrize(
    ("kind", "array"),
    [
        pytest.param("float16", np.arange(24, dtype=np.float16), id="float16"),
        pytest.param("bfloat16", np.arange(24).astype(ml_dtypes.bfloat16), id="bfloat16"),
        pytest.param("double", np.arange(24, dtype=np.float64), id="double"),
        pytest.param("int8", np.arange(24, dtype=np.int8), id="int8"),
        pytest.param("int64", np.arange(24, dtype=np.int64), id="int64"),
        pytest.param("bool", np.arange(24) % 5 == 0, id="bool"),
    ],
)
def test_every_type_of_element_can_be_moved(kind: str, array: np.ndarray) -> None:
    model = make_model(
        "m = Transpose(w) k = Gather(m, i) y = Equal(k, k)",
        "int64[N] i",
        f"bool[N, 4] y, {kind}[N, 4] k",
        {"w": array.reshape(4, 6)},
        opset=19,
    )
    folded = _fold(model)
    assert operators(folded) == ["Gather", "Equal"]
    (tensor,) = folded.graph.initializer
    assert np.array_equal(numpy_helper.to_array(tensor), array.reshape(4, 6).T)


def test_texts_stay_where_they_are() -> None:
    words = np.array([[f"word {row} {column}" for column in range(6)] for row in range(4)], object)
    model = make_model(
        "m = Transpose(w) y = Gather(m, i)", "int64[N] i", "string[N, 4] y", {"w": words}
    )
    folded = _fold(model)
    assert operators(folded) == ["Transpose", "Gather"]
    assert_equal(model, folded, {"i": np.array([5, 0])})


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 18, 21])
def test_operators_are_read_in_the_version_of_the_model(
    opset: int, rng: np.random.Generator
) -> None:
    """Slice, Squeeze and Unsqueeze had attributes before they had inputs; Split has both."""
    slice_node = (
        "s = Slice<axes = [0], starts = [1], ends = [3]>(w)"
        if opset < 10
        else "s = Slice(w, one, four, zero)"
    )
    unsqueeze = "u = Unsqueeze<axes = [0]>(s)" if opset < 13 else "u = Unsqueeze(s, zero)"
    outputs = ", num_outputs = 2" if opset >= 18 else ""
    model = make_model(
        f"""{slice_node} {unsqueeze}
            p, q = Split<axis = 2{outputs}>(u)
            a = Mul(x, p)
            y = Add(a, q)""",
        "float[1] x",
        "float[] y",
        _weights(rng),
        opset=opset,
        ir_version=4 if opset < 18 else 8,
    )
    folded = _fold(model)
    assert operators(folded) == ["Mul", "Add"]
    assert_equal(model, folded, {"x": np.full(1, 3, np.float32)})


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param("m = Transpose(x) y = Mul(m, w)", id="of_an_activation"),
        pytest.param("m = Neg(w) y = Mul(m, x)", id="arithmetic"),
        pytest.param("m = Concat<axis = 0>(w, x) y = Neg(m)", id="of_a_constant_and_an_activation"),
        pytest.param("y = Transpose(w)", id="that_is_the_output"),
        pytest.param("m = Transpose(w) n = Mul(x, m) y = MatMul(n, w)", id="beside_another_reader"),
    ],
)
def test_other_nodes_stay(nodes: str, rng: np.random.Generator) -> None:
    weights = {"w": float_weight(rng, (4, 4))}
    model = make_model(nodes, "float[4, 4] x", "float[] y", weights)
    folded = _fold(model)
    assert operators(folded) == operators(model)
    assert_equal(model, folded, {"x": float_weight(rng, (4, 4))})


def test_a_constant_that_is_an_output_stays(rng: np.random.Generator) -> None:
    model = make_model(
        "m = Transpose(w) y = Mul(x, m)",
        "float[1] x",
        "float[] y, float[4, 4] w",
        {"w": float_weight(rng, (4, 4))},
    )
    assert operators(_fold(model)) == ["Transpose", "Mul"]


def test_a_constant_that_a_caller_may_override_stays(rng: np.random.Generator) -> None:
    model = make_model(
        "m = Transpose(w) y = Mul(x, m)",
        "float[1] x, float[4, 4] w",
        "float[] y",
        {"w": float_weight(rng, (4, 4))},
    )
    folded = _fold(model)
    assert operators(folded) == ["Transpose", "Mul"]
    feeds = {"x": np.ones(1, np.float32), "w": float_weight(rng, (4, 4))}
    assert_equal(model, folded, feeds)


class TestSize:
    """The file never grows by more than a few tiny constants."""

    ELEMENTS = GROWTH_ALLOWANCE_BYTES  # four times the allowance, in bytes

    def _model(self, rng: np.random.Generator, copies: int) -> onnx.ModelProto:
        shapes = {f"s{index}": np.array([index + 1, -1], np.int64) for index in range(copies)}
        nodes = " ".join(f"m{index} = Reshape(w, s{index})" for index in range(copies))
        sums = " ".join(f"y{index} = Neg(m{index})" for index in range(copies))
        outputs = ", ".join(f"float[] y{index}" for index in range(copies))
        weights = shapes | {"w": float_weight(rng, (self.ELEMENTS,))}
        return make_model(f"{nodes} {sums}", "", outputs, weights)

    def test_one_shape_replaces_the_weight(self, rng: np.random.Generator) -> None:
        assert "Reshape" not in operators(_fold(self._model(rng, 1)))

    def test_two_shapes_would_store_it_twice(self, rng: np.random.Generator) -> None:
        model = self._model(rng, 2)
        folded = _fold(model)
        assert operators(folded).count("Reshape") == 2
        assert _stored_bytes(folded) <= _stored_bytes(model)

    def test_a_weight_with_another_reader_is_not_stored_twice(
        self, rng: np.random.Generator
    ) -> None:
        model = make_model(
            "m = Transpose(w) y = MatMul(x, m) z = MatMul(y, w)",
            "float[N, 32] x",
            "float[N, 32] z",
            {"w": float_weight(rng, (32, 32))},
        )
        assert "Transpose" in operators(_fold(model))

    def test_equal_readers_share_one_result(self, rng: np.random.Generator) -> None:
        model = make_model(
            "m = Transpose(w) m2 = Transpose(w) a = Mul(x, m) y = Mul(a, m2)",
            "float[1] x",
            "float[] y",
            {"w": float_weight(rng, (16, 32))},
        )
        folded = _fold(model)
        assert operators(folded) == ["Mul", "Mul"]
        assert _initializers(folded) == ["m"]
        assert_equal(model, folded, {"x": np.ones(1, np.float32)})

    def test_parts_together_are_as_large_as_the_whole(self, rng: np.random.Generator) -> None:
        model = make_model(
            "a = Slice(w, zero, two, zero) b = Slice(w, two, four, zero) c = Mul(x, a) "
            "y = Add(c, b)",
            "float[1] x",
            "float[] y",
            INTS | {"w": float_weight(rng, (4, 512))},
        )
        folded = _fold(model)
        assert operators(folded) == ["Mul", "Add"]
        assert _stored_bytes(folded) <= _stored_bytes(model)
        assert_equal(model, folded, {"x": np.ones(1, np.float32)})


class TestShapeMakers:
    """What exporters compute shapes and pads with, before they move their elements."""

    def test_the_pads_of_an_exporter(self) -> None:
        """As PyTorch writes pads that it was given as a list, last axis first."""
        model = make_model(
            """rest = ConstantOfShape<value = int64[1] {0}>(four)
               all = Concat<axis = 0>(given, rest)
               pairs = Reshape(all, pair)
               turned = Slice(pairs, last, first, zero, last)
               swapped = Transpose<perm = [1, 0]>(turned)
               flat = Reshape(swapped, last)
               pads = Cast<to = 7>(flat)
               y = Pad<mode = "constant">(x, pads)""",
            "float[1, 1, 3, 4] x",
            "float[] y",
            {
                "four": np.array([4]),
                "given": np.array([0, 1, 2, 3]),
                "pair": np.array([-1, 2]),
                "last": np.array([-1]),
                "first": np.array([-(2**63) + 1]),
                "zero": np.array([0]),
            },
        )
        folded = _fold(model)
        assert operators(folded) == ["Pad"]
        x = np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4)
        assert_equal(model, folded, {"x": x})

    @pytest.mark.parametrize("to", ["BOOL", "INT32", "INT64", "FLOAT", "DOUBLE"])
    @pytest.mark.parametrize("dtype", ["bool", "int8", "int64"])
    def test_casts_of_integers(self, dtype: str, to: str) -> None:
        kind = getattr(onnx.TensorProto, to)
        model = make_model(
            f"c = Cast<to = {kind}>(k) z = Expand(c, shape)",
            "int64[1] shape",
            "float[N] z".replace("float", to.lower()),
            {"k": np.array([0, 1, 100]).astype(dtype)},
        )
        folded = _fold(model)
        assert operators(folded) == ["Expand"]
        assert_equal(model, folded, {"shape": np.array([3])})

    @pytest.mark.parametrize(
        "nodes",
        [
            pytest.param("m = Cast<to = 10>(ints)", id="to_a_type_that_rounds_twice"),
            pytest.param("m = Cast<to = 6>(floats)", id="of_floats_that_may_not_fit"),
            pytest.param("m = Cast<to = 9>(many)", id="of_many"),
            pytest.param("m = ConstantOfShape(wide)", id="to_a_large_shape"),
            pytest.param("m = ConstantOfShape(endless)", id="to_a_shape_that_fits_no_memory"),
        ],
    )
    def test_others_are_left_to_the_runtime(self, nodes: str) -> None:
        constants = {
            "ints": np.array([1, 2]),
            "floats": np.array([1e20], np.float32),
            "many": np.zeros(SHAPE_ELEMENTS + 1, np.int32),
            "wide": np.array([SHAPE_ELEMENTS + 1]),
            "endless": np.array([10**6, 10**6, 10**6]),
        }
        model = make_model(
            f"{nodes} s = Shape(m) z = Add(x, s)", "int64[1] x", "int64[N] z", constants
        )
        assert operators(_fold(model))[0] in ("Cast", "ConstantOfShape")


class TestBodies:
    def test_branches_that_move_alike_share_the_result(self, rng: np.random.Generator) -> None:
        model = make_model(
            """y = If (c) <
                 then_branch = t () => (a) { m = Transpose(w) a = Mul(x, m) },
                 else_branch = e () => (b) { n = Transpose(w) b = Add(x, n) }
               >""",
            "bool c, float[1] x",
            "float[] y",
            {"w": float_weight(rng, (16, 32))},
        )
        folded = _fold(model)
        assert len(folded.graph.initializer) == 1
        for choice in (True, False):
            feeds = {"c": np.array(choice), "x": np.full(1, 3, np.float32)}
            assert_equal(model, folded, feeds)

    def test_branches_that_name_different_parts_alike(self, rng: np.random.Generator) -> None:
        """Names need to differ only within a body; the results all go to the one around it."""
        model = make_model(
            """y = If (c) <
                 then_branch = t () => (a) { m = Slice(w, zero, two, zero) a = Mul(x, m) },
                 else_branch = e () => (b) { m = Slice(w, two, four, zero) b = Mul(x, m) }
               >""",
            "bool c, float[1] x",
            "float[] y",
            INTS | {"w": float_weight(rng, (4, 512))},
        )
        folded = _fold(model)
        for choice in (True, False):
            feeds = {"c": np.array(choice), "x": np.full(1, 3, np.float32)}
            assert_equal(model, folded, feeds)

    def test_constants_of_a_body_are_folded_in_it(self, rng: np.random.Generator) -> None:
        model = make_model(
            """y = If (c) <
                 then_branch = t () => (a) { a = Neg(x) },
                 else_branch = e () => (b) <float[2, 2] k = {1, 2, 3, 4}> {
                   m = Transpose(k)
                   b = MatMul(x, m)
                 }
               >""",
            "bool c, float[2, 2] x",
            "float[2, 2] y",
        )
        folded = _fold(model)
        (branch,) = (one.g for one in folded.graph.node[0].attribute if one.name == "else_branch")
        assert [node.op_type for node in branch.node] == ["MatMul"]
        assert_equal(model, folded, {"c": np.array(False), "x": float_weight(rng, (2, 2))})

    def test_functions_have_no_initializers_and_stay(self, rng: np.random.Generator) -> None:
        model = make_model(
            "y = local.f(x)",
            "float[2, 2] x",
            "float[2, 2] y",
            functions="""<domain: "local", opset_import: ["" : 17]> f (p) => (q) {
                k = Constant<value = float[2, 2] {1, 2, 3, 4}>()
                m = Transpose(k)
                q = MatMul(p, m)
            }""",
        )
        folded = _fold(model)
        assert [node.op_type for node in folded.functions[0].node] == [
            "Constant",
            "Transpose",
            "MatMul",
        ]
        assert_equal(model, folded, {"x": float_weight(rng, (2, 2))})
