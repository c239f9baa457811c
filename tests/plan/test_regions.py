from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.plan.regions import find_regions
from onnxq.plan.types import CalibrationPlan
from onnxq.targets import Target
from tests.models import to_ir
from tests.plan.planning import ONNX, ORT
from tests.plan.static_planning import (
    between,
    calibrated,
    decide,
    groups,
    outputs_by_node,
    plan_ir,
    reasons,
    static_model,
)

NO_GAIN = "no gain: no layer large enough around it"
FLOAT_INPUT = "an input is a float tensor"
NOT_READ = "no integer node reads it"
MOVED = "moved, it is read in the body of another node, which onnxruntime cannot fuse"
AT_RUN_TIME = "quantized at run time: its input is a float tensor"
MODEL_OUTPUT = "an output of the model stays float"


class TestConvolutions:
    def test_a_convolution_is_calibrated(self) -> None:
        decisions = decide(static_model("[a] p = Conv(x, k1) [end] y = Neg(p)"))
        assert outputs_by_node(decisions) == {"a": "integer"}
        assert groups(decisions) == {"x": {"x"}, "p": {"p"}}
        assert decisions.skipped == ()

    @pytest.mark.parametrize(
        ("nodes", "outputs", "left"),
        [
            pytest.param("[a] y = Conv(x, k1)", "float[] y", {"a"}, id="itself"),
            pytest.param(
                "[a] p = Conv(x, k1) [r] y = Relu(p)", "float[] y", set(), id="its_relu_is_kept"
            ),
            pytest.param(
                "[a] p = Conv(x, k1) [r] y = Relu(p)", "float[] y, float[] p", {"a"}, id="both"
            ),
        ],
    )
    def test_outputs_of_the_model_stay_float(
        self, nodes: str, outputs: str, left: set[str]
    ) -> None:
        model = static_model(nodes, outputs=outputs)
        assert reasons(model) == dict.fromkeys(left, MODEL_OUTPUT)
        assert calibrated(model) == {"a"} - left

    def test_a_relu_that_is_an_output_is_not_absorbed(self) -> None:
        (node,) = decide(static_model("[a] p = Conv(x, k1) [r] y = Relu(p)")).nodes
        assert node.one.absorbed is None
        assert [value.name for value in node.one.outputs] == ["p"]

    @pytest.mark.parametrize(
        ("shape", "group", "gains"),
        [
            pytest.param((32, 20, 1, 1), 1, True, id="1x1_of_20_channels"),
            pytest.param((32, 19, 1, 1), 1, False, id="1x1_of_19_channels"),
            pytest.param((32, 12, 3, 3), 1, True, id="3x3_of_108"),
            pytest.param((32, 11, 3, 3), 1, False, id="3x3_of_99"),
            pytest.param((32, 4, 5, 5), 8, True, id="grouped_5x5_of_4_channels"),
            pytest.param((32, 3, 7, 7), 1, False, id="7x7_of_a_picture"),
            pytest.param((32, 1, 3, 3), 32, False, id="depthwise"),
            pytest.param((32, 1, 11, 11), 32, False, id="depthwise_11x11"),
            pytest.param((32, 1, 11), 32, True, id="along_one_axis_11"),
            pytest.param((32, 1, 10), 32, False, id="along_one_axis_10"),
            pytest.param((32, 20, 1, 1, 1), 1, True, id="three_axes"),
        ],
    )
    def test_a_region_needs_a_layer_that_is_large_enough(
        self, shape: tuple[int, ...], group: int, gains: bool, rng: np.random.Generator
    ) -> None:
        weight = rng.standard_normal(shape).astype(np.float32)
        nodes = f"[a] p = Conv<group = {group}>(x, w) [end] y = Neg(p)"
        model = static_model(nodes, "float[] x", extra={"w": weight})
        assert calibrated(model) == ({"a"} if gains else set())
        assert reasons(model) == ({} if gains else {"a": NO_GAIN})

    def test_one_large_layer_carries_its_region(self) -> None:
        chain = """[d] p = Conv<group = 32>(x, dw1) [r] r1 = Relu(p)
                   [e] q = Conv<group = 32>(r1, dw2) [s] t = Sigmoid(q) {last} [end] y = Neg(u)"""
        large = static_model(chain.replace("{last}", "[l] u = Conv(t, k1)"))
        assert calibrated(large) == {"d", "e", "s", "l"}
        small = static_model(chain.replace("{last}", "[l] u = Conv(t, thin1)"))
        assert calibrated(small) == set()
        assert reasons(small) == {
            "d": NO_GAIN,
            "e": NO_GAIN,
            "l": NO_GAIN,
        }

    def test_regions_are_weighed_one_by_one(self) -> None:
        """A float node in between separates them; an input that both read does not join them."""
        model = static_model(
            """[d] p = Conv<group = 32>(x, dw1) [n] n1 = Neg(p) [a] q = Conv(n1, k1)
               [e] r = Conv<group = 32>(x, dw2) [end] y = Sum(q, r)"""
        )
        assert calibrated(model) == {"a"}
        assert reasons(model) == {"d": NO_GAIN, "e": NO_GAIN}

    def test_a_product_whose_output_stays_float_carries_no_region(self) -> None:
        """Its reader d gets float values and quantizes them anew: no gain around d."""
        model = static_model(
            """[a] p = Conv(x, k1) [f] f1 = Flatten(p) [g] q = Gemm(f1, m1)
               [d] r = Conv<group = 32>(q, dw1) [end] y = Sum(q, r)"""
        )
        assert outputs_by_node(decide(model)) == {"a": "integer", "f": "integer", "g": "float"}


class TestAbsorbing:
    @pytest.mark.parametrize(
        ("middle", "bounds"),
        [
            pytest.param("[r] m = Relu(p)", (0.0, float("inf")), id="relu"),
            pytest.param("[r] m = Clip(p, zero, six)", (0.0, 6.0), id="relu6"),
            pytest.param("[r] m = Clip(p, below, one)", (-1.0, 1.0), id="around_zero"),
            pytest.param("[r] m = Clip(p, zero)", (0.0, float("inf")), id="no_maximum"),
            pytest.param("[r] m = Clip(p, , six)", (float("-inf"), 6.0), id="no_minimum"),
            pytest.param("[r] m = Clip(p)", (float("-inf"), float("inf")), id="no_bounds"),
            pytest.param("[r] m = Clip(p, below, zero)", (-1.0, 0.0), id="up_to_zero"),
        ],
    )
    def test_limits_become_bounds(self, middle: str, bounds: tuple[float, float]) -> None:
        decisions = decide(between(middle))
        first = decisions.nodes[0]
        assert first.one.absorbed is not None
        assert first.one.absorbed.name == "r"
        assert first.one.bounds == bounds
        assert groups(decisions) == {"x": {"x"}, "m": {"m"}, "q": {"q"}}
        assert {one.name: one.bounds for one in decisions.activations} == {
            "x": None,
            "m": bounds,
            "q": None,
        }

    @pytest.mark.parametrize(
        "middle",
        [
            pytest.param("[r] m = Clip(p, one, six)", id="above_zero"),
            pytest.param("[r] m = Clip(p, , below)", id="below_zero"),
            pytest.param("[r] m = Clip(p, zero, limit)", id="bound_not_constant"),
            pytest.param("[r] r1 = Relu(p) m = Sum(r1, p)", id="several_readers"),
            pytest.param("[r] m = Clip(six, zero, p)", id="as_the_limit"),
            pytest.param("[r] m = Tanh(p)", id="other_operator"),
            pytest.param("[r] m = LeakyRelu(p)", id="elementwise_operator"),
        ],
    )
    def test_what_is_not_absorbed(self, middle: str) -> None:
        model = between(middle, inputs="float[1, 32, 8, 8] x, float limit")
        decisions = decide(model)
        first = decisions.nodes[0]
        assert first.name == "a"
        assert (first.one.absorbed, first.one.bounds) == (None, None)
        assert "p" in groups(decisions)
        assert all(one.bounds is None for one in decisions.activations)

    def test_a_relu_with_several_readers_is_absorbed(self) -> None:
        """Only the tensor in front of it must have one."""
        model = between("[r] m = Relu(p) [n] u = Neg(m)", outputs="float[] y, float[] u")
        assert groups(decide(model)) == {"x": {"x"}, "m": {"m"}, "q": {"q"}}

    @pytest.mark.parametrize(
        "options", [{"exclude": ("r",)}, {"refused": {"r": "spoiled"}}], ids=str
    )
    def test_a_relu_that_must_stay_float_is_not_absorbed(self, options: dict[str, object]) -> None:
        decisions = decide(between("[r] m = Relu(p)"), **options)
        assert [node.one.absorbed for node in decisions.nodes] == [None, None]
        assert groups(decisions) == {"x": {"x"}, "p": {"p"}, "m": {"m"}, "q": {"q"}}

    def test_elementwise_nodes_absorb_movements_do_not(self) -> None:
        added = between("[c] c1 = Conv(x, k3) [add] s = Add(p, c1) [r] m = Relu(s)")
        decisions = decide(added)
        assert {n.name: n.one.absorbed.name for n in decisions.nodes if n.one.absorbed} == {
            "add": "r"
        }
        moved = between("[t] t1 = Transpose(p) [r] m = Relu(t1)")
        assert calibrated(moved) == {"a", "b"}

    def test_only_the_first_limit_is_absorbed(self) -> None:
        decisions = decide(between("[r] r1 = Relu(p) [c] m = Clip(r1, zero, six)"))
        assert groups(decisions) == {"x": {"x"}, "r1": {"r1"}, "m": {"m"}, "q": {"q"}}


ELEMENTWISE = {
    "Add": "m = Add(p, s)",
    "Mul": "m = Mul(p, s)",
    "Concat": "m = Concat<axis = 1>(p, s)",
    "Concat_of_three": "m = Concat<axis = 1>(p, s, p)",
    "Add_twice_the_same": "m = Add(s, s)",
    "Sigmoid": "m = Sigmoid(s)",
    "LeakyRelu": "m = LeakyRelu(s)",
    "GlobalAveragePool": "m = GlobalAveragePool(s)",
}

MOVEMENTS = {
    "MaxPool": "m = MaxPool<kernel_shape = [2, 2]>(p)",
    "Resize_nearest": "m = Resize(p, , , sizes)",
    "Reshape": "m = Reshape(p, shape)",
    "Flatten": "m = Flatten(p)",
    "Transpose": "m = Transpose(p)",
    "Squeeze": "m = Squeeze(p)",
    "Unsqueeze": "m = Unsqueeze(p, axis)",
    "Slice": "m = Slice(p, start, stop)",
    "Gather": "m = Gather(p, axis)",
    "Split": "m, o = Split(p)",
}

NEVER = {
    "Softmax": "m = Softmax(p)",
    "LayerNormalization": "m = LayerNormalization(p, b32)",
    "Gelu_in_pieces": "e = Erf(p) m = Mul(p, e)",
    "Pad": "m = Pad(p, pads)",
    "ConvTranspose": "m = ConvTranspose(p, k3)",
    "AveragePool": "m = AveragePool<kernel_shape = [2, 2]>(p)",
    "hard_swish_in_pieces": (
        "s = Add(p, three) c = Clip(s, zero, six) w = Mul(p, c) m = Div(w, six)"
    ),
    "HardSwish": "m = HardSwish(p)",
    "Resize_linear": 'm = Resize<mode = "linear">(p, , , sizes)',
    "Resize_cubic": 'm = Resize<mode = "cubic">(p, , , sizes)',
    "Resize_with_a_fill": (
        'm = Resize<coordinate_transformation_mode = "tf_crop_and_resize">(p, , , sizes)'
    ),
    "MaxPool_with_indices": "m, i = MaxPool<kernel_shape = [2, 2]>(p) j = Abs(i)",
    "Add_of_a_constant": "m = Add(p, one)",
    "Mul_of_a_constant": "m = Mul(three, p)",
    "Concat_of_a_constant": "m = Concat<axis = 1>(p, k3)",
    "Sub": "m = Sub(p, p)",
}


class TestNeighbourhoods:
    @pytest.mark.parametrize("name", sorted(ELEMENTWISE))
    def test_elementwise_between_integer_nodes(self, name: str) -> None:
        decisions = decide(between(f"[c] s = Conv(x, k3) [e] {ELEMENTWISE[name]}"))
        assert outputs_by_node(decisions) == dict.fromkeys("abce", "integer")
        # Each has a range of its own.
        assert set(groups(decisions)) == {"x", "p", "s", "m", "q"}
        assert all(len(members) == 1 for members in groups(decisions).values())

    @pytest.mark.parametrize("name", sorted(ELEMENTWISE))
    def test_elementwise_with_a_float_input(self, name: str) -> None:
        model = between(f"[c] s = Neg(x) [e] {ELEMENTWISE[name]}")
        assert calibrated(model) == {"a", "b"}
        # Far from integers nobody asks why.
        told = {"e": FLOAT_INPUT} if "(p" in ELEMENTWISE[name] else {}
        assert reasons(model) == told

    @pytest.mark.parametrize("name", sorted(ELEMENTWISE))
    def test_elementwise_without_an_integer_reader(self, name: str) -> None:
        model = static_model(
            f"[a] p = Conv(x, k1) [c] s = Conv(x, k3) [e] {ELEMENTWISE[name]} [end] y = Neg(m)"
        )
        assert calibrated(model) == {"a", "c"}
        assert reasons(model) == {"e": NOT_READ}

    def test_one_integer_reader_is_enough(self) -> None:
        model = between("[e] m = Sigmoid(p) [n] u = Neg(m)", outputs="float[] y, float[] u")
        assert calibrated(model) == {"a", "b", "e"}

    def test_an_elementwise_output_of_the_model_stays_float(self) -> None:
        model = between("[e] m = Sigmoid(p)", outputs="float[] y, float[] m")
        assert calibrated(model) == {"a", "b"}
        assert reasons(model) == {"e": MODEL_OUTPUT}

    @pytest.mark.parametrize("name", sorted(MOVEMENTS))
    def test_movements_share_parameters_with_their_input(self, name: str) -> None:
        decisions = decide(between(f"[e] {MOVEMENTS[name]}"))
        assert outputs_by_node(decisions) == {"a": "integer", "e": "integer", "b": "integer"}
        moved = {"p", "m", "o"} if name == "Split" else {"p", "m"}
        assert groups(decisions) == {"x": {"x"}, "p": moved, "q": {"q"}}

    @pytest.mark.parametrize("name", sorted(MOVEMENTS))
    def test_movements_of_floats_stay_float(self, name: str) -> None:
        model = between(f"[n] p2 = Neg(p) [e] {MOVEMENTS[name].replace('(p', '(p2')}")
        assert calibrated(model) == {"a", "b"}
        assert reasons(model) == {}

    @pytest.mark.parametrize("name", sorted(MOVEMENTS))
    def test_movements_that_no_integer_node_reads_stay_float(self, name: str) -> None:
        model = static_model(f"[a] p = Conv(x, k1) [e] {MOVEMENTS[name]} [end] y = Neg(m)")
        assert calibrated(model) == {"a"}
        assert reasons(model) == {}

    def test_a_split_of_which_one_part_is_an_output_stays_float(self) -> None:
        model = between("[e] m, o = Split(p)", outputs="float[] y, float[] o")
        assert calibrated(model) == {"a", "b"}

    def test_moved_copies_of_a_limited_range(self) -> None:
        decisions = decide(
            between("[r] r1 = Clip(p, zero, six) [t] t1 = Transpose(r1) [f] m = Flatten(t1)")
        )
        assert groups(decisions)["r1"] == {"r1", "t1", "m"}
        assert {one.name: one.bounds for one in decisions.activations}["r1"] == (0.0, 6.0)

    def test_only_the_first_input_of_a_movement_is_moved(self) -> None:
        """Indices of a Gather that come from integers are no activation."""
        model = between("[i] s = Cast<to = 7>(p) [e] m = Gather(p, s)")
        assert groups(decide(model))["p"] == {"p", "m"}

    @pytest.mark.parametrize("name", sorted(NEVER))
    def test_what_never_becomes_integer(self, name: str) -> None:
        assert calibrated(between(NEVER[name])) == {"a", "b"}

    def test_reasons_for_constant_operands(self) -> None:
        assert reasons(between("[e] m = Add(p, one)")) == {"e": "one operand is constant"}

    def test_indices_that_nobody_reads_do_no_harm(self) -> None:
        assert calibrated(between("[e] m, i = MaxPool<kernel_shape = [2, 2]>(p)")) == {
            "a",
            "b",
            "e",
        }

    def test_a_squeeze_and_excite_block(self) -> None:
        model = between(
            """[pool] g = GlobalAveragePool(p) [c1] h = Conv(g, k3, b32) [r] h1 = Relu(h)
               [c2] i = Conv(h1, k2) [s] j = Sigmoid(i) [mul] m = Mul(p, j)"""
        )
        assert calibrated(model) == {"a", "b", "pool", "c1", "c2", "s", "mul"}

    def test_a_long_chain_without_an_end_falls_apart(self) -> None:
        middle = " ".join(f"[s{i}] v{i + 1} = Sigmoid(v{i})" for i in range(40))
        model = static_model(f"[a] v0 = Conv(x, k1) {middle} [end] y = Neg(v40)")
        assert calibrated(model) == {"a"}

    def test_a_long_chain_between_integers_holds(self) -> None:
        middle = " ".join(f"[s{i}] v{i + 1} = Sigmoid(v{i})" for i in range(40))
        model = static_model(
            f"[a] v0 = Conv(x, k1) {middle} [b] v41 = Conv(v40, k2) [end] y = Neg(v41)"
        )
        assert len(calibrated(model)) == 42


class TestProducts:
    MATRIX = "float[N, 128] x"

    @pytest.mark.parametrize("operator", ["MatMul", "Gemm"])
    def test_between_float_tensors_the_dynamic_form_is_as_fast(self, operator: str) -> None:
        model = static_model(f"[mm] y = {operator}(x, m1)", self.MATRIX)
        assert calibrated(model) == set()
        assert reasons(model) == {"mm": AT_RUN_TIME}

    @pytest.mark.parametrize(
        ("target", "dynamic_matmul", "expected"),
        [
            pytest.param(ORT, None, set(), id="ort_default"),
            pytest.param(ORT, True, set(), id="ort_dynamic"),
            pytest.param(ORT, False, {"mm"}, id="ort_calibrated"),
            pytest.param(ONNX, None, {"mm"}, id="onnx_default"),
            pytest.param(ONNX, True, set(), id="onnx_dynamic"),
            pytest.param(ONNX, False, {"mm"}, id="onnx_calibrated"),
        ],
    )
    @pytest.mark.parametrize("operator", ["MatMul", "Gemm"])
    def test_who_decides(
        self, operator: str, target: Target, dynamic_matmul: bool | None, expected: set[str]
    ) -> None:
        model = static_model(f"[mm] y = {operator}(x, m1)", self.MATRIX)
        found = decide(model, target=target, dynamic_matmul=dynamic_matmul)
        assert outputs_by_node(found) == dict.fromkeys(expected, "float")
        assert groups(found) == ({"x": {"x"}} if expected else {})

    @pytest.mark.parametrize(
        ("tail", "expected"),
        [
            pytest.param("y = Neg(g)", "float", id="float_reader"),
            pytest.param("[h] r = Gemm(g, m2) y = Neg(r)", "integer", id="integer_reader"),
            pytest.param(
                "[h] r = Gemm(g, m2) y = Sum(r, g)", "float", id="integer_and_float_reader"
            ),
            pytest.param("g1 = Relu(g) [h] r = Gemm(g1, m2) y = Neg(r)", "integer", id="relu"),
            pytest.param("[h] y = Gemm(g, narrow)", "float", id="reader_too_small"),
        ],
    )
    def test_a_gemm_behind_integers(self, tail: str, expected: str) -> None:
        model = static_model(f"[a] p = Conv(x, k1) [f] f1 = Flatten(p) [g] g = Gemm(f1, m1) {tail}")
        decisions = outputs_by_node(decide(model))
        assert decisions["g"] == expected
        assert decisions["a"] == decisions["f"] == "integer"
        # What reads integers only is calibrated; what reads floats is left to the dynamic form.
        assert ("h" in decisions) is (expected == "integer")

    def test_an_output_of_the_model_is_no_obstacle(self) -> None:
        model = static_model("[a] p = Conv(x, k1) [f] f1 = Flatten(p) [g] y = Gemm(f1, m1)")
        assert outputs_by_node(decide(model)) == {"a": "integer", "f": "integer", "g": "float"}

    @pytest.mark.parametrize(
        ("tail", "outputs"),
        [
            pytest.param("[h] r = Gemm(g, m2) y = Neg(r)", "float[] y, float[] g", id="output"),
            pytest.param(
                "g1 = Relu(g) [h] r = Gemm(g1, m2) y = Neg(r)",
                "float[] y, float[] g",
                id="output_in_front_of_a_relu",
            ),
            pytest.param("y = Neg(p)", "float[] y", id="no_reader"),
            pytest.param(
                "[h] r = Gemm(g, m2) [s] t = Sigmoid(g) y = Sum(r, t)",
                "float[] y",
                id="a_reader_that_is_taken_out_later",
            ),
        ],
    )
    def test_a_gemm_whose_output_stays_float(self, tail: str, outputs: str) -> None:
        nodes = f"[a] p = Conv(x, k1) [f] f1 = Flatten(p) [g] g = Gemm(f1, m1) {tail}"
        decisions = outputs_by_node(decide(static_model(nodes, outputs=outputs)))
        assert decisions == {"a": "integer", "f": "integer", "g": "float"}

    def test_a_float_output_that_others_quantize_keeps_no_bounds(self) -> None:
        model = static_model(
            "[mm] p = MatMul(x, m1) [r] q = Relu(p) [h] t = MatMul(q, m2) y = Sum(q, t)",
            self.MATRIX,
        )
        decisions = decide(model, target=ONNX)
        assert outputs_by_node(decisions) == {"mm": "float", "h": "float"}
        assert {one.name: one.bounds for one in decisions.activations} == {"x": None, "q": None}

    def test_a_float_output_keeps_no_bounds(self) -> None:
        model = static_model("[mm] p = MatMul(x, m1) [r] q = Relu(p) y = Neg(q)", self.MATRIX)
        decisions = decide(model, target=ONNX)
        assert groups(decisions) == {"x": {"x"}}

    @pytest.mark.parametrize(
        ("weight", "reason"),
        [
            pytest.param("narrow", "no gain: only 10 output columns", id="ten_columns"),
            pytest.param("square", "no gain: only 4096 elements in the matrix", id="64x64"),
        ],
    )
    @pytest.mark.parametrize("target", [ORT, ONNX], ids=lambda one: one.name)
    def test_small_ones_stay_float(self, weight: str, reason: str, target: Target) -> None:
        model = static_model(f"[a] p = Conv(x, k1) [f] f1 = Flatten(p) [g] y = Gemm(f1, {weight})")
        assert calibrated(model, target=target) == {"a"}
        assert reasons(model, target=target) == {"g": reason}

    def test_columns_of_a_transposed_matrix(self, rng: np.random.Generator) -> None:
        weight = rng.standard_normal((1000, 11)).astype(np.float32)
        nodes = "[g] y = Gemm<transB = {t}>(x, w)"
        for t, expected in ((1, {"g"}), (0, {"g"})):
            model = static_model(nodes.replace("{t}", str(t)), "float[] x", extra={"w": weight})
            assert calibrated(model, target=ONNX) == expected
        wide = np.ascontiguousarray(weight.T[:10])
        model = static_model(nodes.replace("{t}", "1"), "float[] x", extra={"w": wide})
        assert reasons(model, target=ONNX) == {"g": "no gain: only 10 output columns"}


class TestBodies:
    def test_neighbours_in_another_body_do_not_count(self) -> None:
        """The Sigmoid reads an integer node of the outer graph, and is read by one of the body."""
        model = static_model(
            """[a] p = Conv(x, k1)
               [choose] z = If (c) <
                 then_branch = t () => (n) {
                   [s] s1 = Sigmoid(p) [b] q = Conv(s1, k2) [n] n = Neg(q) },
                 else_branch = e () => (o) { [o] o = Neg(p) }
               > [end] y = Neg(z)""",
            "bool c, float[1, 32, 8, 8] x",
        )
        assert calibrated(model) == {"a", "choose/then_branch/b"}
        assert reasons(model) == {"choose/then_branch/s": FLOAT_INPUT}

    def test_a_relu_in_a_body_is_not_absorbed_from_outside(self) -> None:
        model = static_model(
            """[a] p = Conv(x, k1)
               [choose] z = If (c) <
                 then_branch = t () => (n) { [r] r1 = Relu(p) [n] n = Neg(r1) },
                 else_branch = e () => (o) { [o] o = Neg(x) }
               > [end] y = Neg(z)""",
            "bool c, float[1, 32, 8, 8] x",
        )
        (node,) = decide(model).nodes
        assert (node.name, node.one.absorbed) == ("a", None)

    @pytest.mark.parametrize(
        ("middle", "name"),
        [
            pytest.param("[s] m = Sigmoid(p)", "s", id="elementwise"),
            pytest.param("[f] f1 = Flatten(p) [g] m = Gemm(f1, m1)", "g", id="product"),
        ],
    )
    def test_a_reader_in_another_body_does_not_count(self, middle: str, name: str) -> None:
        model = static_model(
            f"""[a] p = Conv(x, k1) {middle}
                [choose] z = If (c) <
                  then_branch = t () => (n) {{ [b] q = Conv(m, k2) [n] n = Neg(q) }},
                  else_branch = e () => (o) {{ [o] o = Neg(x) }}
                > [end] y = Neg(z)""",
            "bool c, float[1, 32, 8, 8] x",
        )
        decisions = outputs_by_node(decide(model))
        assert decisions["choose/then_branch/b"] == "integer"
        assert decisions.get(name, "float") == "float"

    BODY = """[choose] z = If (c) <
                then_branch = t () => (n) {{ [n] n = Neg({0}) }},
                else_branch = e () => (o) {{ [o] o = Neg(x) }}
              > [b] q = Conv({1}, k2) [end] y = Sum(z, q)"""
    """A body that reads one tensor, and a convolution that reads another."""

    @pytest.mark.parametrize(
        "middle",
        [
            pytest.param("[r] m = Relu(p)", id="limit"),
            pytest.param("[n] m = Exp(p)", id="float_node"),
            pytest.param("[s] t1 = Transpose(p) [n] m = Exp(t1)", id="float_node_behind_movement"),
        ],
    )
    def test_what_is_not_moved_may_be_read_in_a_body(self, middle: str) -> None:
        model = static_model(
            f"[a] p = Conv(x, k1) {middle} {self.BODY.format('m', 'p')}",
            "bool c, float[1, 32, 8, 8] x",
        )
        assert calibrated(model) == {"a", "b"}

    @pytest.mark.parametrize("name", sorted(MOVEMENTS))
    def test_what_is_moved_into_a_body_stays_float(self, name: str) -> None:
        """onnxruntime carries the pair along and crashes: no layer and no movement may make it."""
        # The convolution in the main graph reads what is not moved, or what is.
        for reader in ("p", "m"):
            model = static_model(
                f"[a] p = Conv(x, k1) [e] {MOVEMENTS[name]} {self.BODY.format('m', reader)}",
                "bool c, float[1, 32, 8, 8] x",
            )
            assert calibrated(model) == {"b"}
            assert reasons(model) == {"a": MOVED}

    @pytest.mark.parametrize(
        ("middle", "reader", "told"),
        [
            pytest.param("[t] t1 = Transpose(p) [f] m = Flatten(t1)", "p", "a", id="movements"),
            pytest.param("[r] r1 = Relu(p) [t] m = Transpose(r1)", "r1", "a", id="absorbed_relu"),
            pytest.param("[s] s1 = Sigmoid(p) [t] m = Transpose(s1)", "s1", "s", id="sigmoid"),
        ],
    )
    def test_all_movements_up_to_the_body_count(self, middle: str, reader: str, told: str) -> None:
        model = static_model(
            f"[a] p = Conv(x, k1) {middle} {self.BODY.format('m', reader)}",
            "bool c, float[1, 32, 8, 8] x",
        )
        assert calibrated(model) == {"a", "b"} - {told}
        assert reasons(model) == {told: MOVED}

    def test_indices_are_not_moved(self) -> None:
        """Of a Gather, the first input is."""
        model = static_model(
            f"""[a] p = Conv(x, k1) [i] s = Cast<to = 7>(p) [t] m = Gather(x, s)
                {self.BODY.format("m", "p")}""",
            "bool c, float[1, 32, 8, 8] x",
        )
        assert calibrated(model) == {"a", "b"}

    def test_a_product_with_a_float_output_may_be_moved(self) -> None:
        model = static_model(
            f"""[a] p = Conv(x, k1) [f] f1 = Flatten(p) [g] g = Gemm(f1, m1) [t] m = Transpose(g)
                {self.BODY.format("m", "p")}""",
            "bool c, float[1, 32, 8, 8] x",
        )
        assert outputs_by_node(decide(model)) == {
            **dict.fromkeys("afb", "integer"),
            "g": "float",
        }

    def test_graphs_that_are_not_given_are_not_looked_at(self) -> None:
        model = to_ir(between("[s] m = Sigmoid(p)"))
        found = find_regions([], target=ORT, refused={}, dynamic_matmul=True)
        assert (found.nodes, found.refused) == ({}, {})
        every = find_regions([model.graph], target=ORT, refused={}, dynamic_matmul=True)
        assert [node.name for node in every.nodes] == ["a", "s", "b"]


# Random graphs, and the rules written again.


@dataclass(frozen=True)
class _Kind:
    """A sort of node: its text, how many tensors it reads and gives, and what it may become."""

    text: str
    becomes: str
    reads: int = 1
    gives: int = 1


KINDS = {
    "conv": _Kind("Conv({0}, k1)", "conv"),
    "bias": _Kind("Conv({0}, k2, b32)", "conv"),
    "depthwise": _Kind("Conv<group = 32>({0}, dw1)", "weak conv"),
    "thin": _Kind("Conv({0}, thin1)", "weak conv"),
    "loose": _Kind("Conv({0}, {1})", "float", 2),
    "gemm": _Kind("Gemm({0}, m1, b128)", "product"),
    "matmul": _Kind("MatMul({0}, m2)", "product"),
    "little": _Kind("MatMul({0}, square)", "float"),
    "add": _Kind("Add({0}, {1})", "elementwise", 2),
    "mul": _Kind("Mul({0}, {1})", "elementwise", 2),
    "concat": _Kind("Concat<axis = 1>({0}, {1}, {2})", "elementwise", 3),
    "sigmoid": _Kind("Sigmoid({0})", "elementwise"),
    "leaky": _Kind("LeakyRelu({0})", "elementwise"),
    "pool": _Kind("GlobalAveragePool({0})", "elementwise"),
    "shift": _Kind("Add({0}, one)", "float"),
    "max": _Kind("MaxPool<kernel_shape = [2, 2]>({0})", "movement"),
    "resize": _Kind("Resize({0}, , , sizes)", "movement"),
    "linear": _Kind('Resize<mode = "linear">({0}, , , sizes)', "float"),
    "cubic": _Kind('Resize<mode = "cubic">({0}, , , sizes)', "float"),
    "flatten": _Kind("Flatten({0})", "movement"),
    "split": _Kind("Split({0})", "movement", 1, 2),
    "relu": _Kind("Relu({0})", "limit"),
    "relu6": _Kind("Clip({0}, zero, six)", "limit"),
    "clip": _Kind("Clip({0}, one, six)", "float"),
    "softmax": _Kind("Softmax({0})", "float"),
    "neg": _Kind("Neg({0})", "float"),
}


@dataclass(frozen=True)
class _Node:
    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def becomes(self) -> str:
        return KINDS[self.kind].becomes

    def __str__(self) -> str:
        text = KINDS[self.kind].text.format(*self.inputs)
        return f"[{self.name}] {', '.join(self.outputs)} = {text}"


@dataclass(frozen=True)
class _Graph:
    nodes: tuple[_Node, ...]
    outputs: tuple[str, ...]

    def model(self, order: tuple[int, ...] | None = None) -> onnx.ModelProto:
        chosen = self.nodes if order is None else [self.nodes[index] for index in order]
        return static_model(
            "\n".join(map(str, chosen)),
            outputs=", ".join(f"float[] {name}" for name in self.outputs),
        )


@st.composite
def graphs(draw: st.DrawFn) -> _Graph:
    values, nodes = ["x"], []
    for index in range(draw(st.integers(1, 14))):
        # Mostly what can be calibrated, and mostly reading what was made last.
        kind = draw(st.sampled_from(sorted(KINDS)))
        recent = values[-4:]
        inputs = [draw(st.sampled_from(recent)) for _ in range(KINDS[kind].reads)]
        outputs = [f"v{index}_{at}" for at in range(KINDS[kind].gives)]
        nodes.append(_Node(f"n{index}", kind, tuple(inputs), tuple(outputs)))
        values += outputs
    made = values[1:]
    read = {name for node in nodes for name in node.inputs}
    ends = [name for name in made if name not in read]
    # Ends are read by a float node, by an integer one, or given as they are.
    outputs = []
    for index, name in enumerate(ends):
        how = draw(st.sampled_from(["neg", "conv", "as it is"]))
        if how == "as it is":
            outputs.append(name)
            continue
        nodes.append(_Node(f"e{index}", how, (name,), (f"w{index}",)))
        if how == "conv":
            nodes.append(_Node(f"f{index}", "neg", (f"w{index}",), (f"u{index}",)))
        outputs.append(nodes[-1].outputs[0])
    outputs += draw(st.lists(st.sampled_from(made), max_size=1))
    return _Graph(tuple(nodes), tuple(dict.fromkeys(outputs)))


@dataclass
class _Oracle:
    """Who computes on integers, found by asking every node again and again."""

    graph: _Graph
    dynamic_matmul: bool
    inside: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.by_name = {node.name: node for node in self.graph.nodes}
        self.inside = {
            node.name
            for node in self.graph.nodes
            if node.becomes not in ("float", "limit")
            and (node.becomes == "product" or not set(self.gives(node)) & set(self.graph.outputs))
        }
        while gone := {name for name in self.inside if not self.holds(self.by_name[name])}:
            self.inside -= gone
        self.inside = {name for name in self.inside if self.has_large_layer(name)}

    def readers(self, tensor: str) -> list[_Node]:
        return [node for node in self.graph.nodes for name in node.inputs if name == tensor]

    def gives(self, node: _Node) -> tuple[str, ...]:
        """Its outputs, behind a Relu or Clip that nothing else reads in front of."""
        if node.becomes == "movement" or len(node.outputs) > 1:
            return node.outputs
        readers = self.readers(node.outputs[0])
        if len(readers) != 1 or readers[0].becomes != "limit":
            return node.outputs
        ends = {*node.outputs, *readers[0].outputs} & set(self.graph.outputs)
        return node.outputs if ends else readers[0].outputs

    def is_quantized_output(self, node: _Node) -> bool:
        if node.name not in self.inside:
            return False
        if node.becomes != "product":
            return True
        (tensor,) = self.gives(node)
        readers = self.readers(tensor)
        return (
            tensor not in self.graph.outputs
            and bool(readers)
            and all(reader.name in self.inside for reader in readers)
        )

    def integer_tensors(self) -> set[str]:
        return {
            tensor
            for node in self.graph.nodes
            if self.is_quantized_output(node)
            for tensor in self.gives(node)
        }

    def holds(self, node: _Node) -> bool:
        known = self.integer_tensors()
        from_integers = all(name in known for name in node.inputs)
        if node.becomes in ("conv", "weak conv"):
            return True
        if node.becomes == "product":
            return from_integers or not self.dynamic_matmul
        read = {reader.name for tensor in self.gives(node) for reader in self.readers(tensor)}
        return from_integers and bool(read & self.inside)

    def has_large_layer(self, start: str) -> bool:
        region, grown = set(), {start}
        while grown != region:
            region = grown
            grown = region | {
                other
                for name in region
                if self.is_quantized_output(self.by_name[name])
                for tensor in self.gives(self.by_name[name])
                for other in self.inside & {reader.name for reader in self.readers(tensor)}
            }
            grown = grown | {
                other
                for name in region
                for other in self.inside
                if self.is_quantized_output(self.by_name[other])
                and set(self.gives(self.by_name[other])) & set(self.by_name[name].inputs)
            }
        return any(self.by_name[name].becomes in ("conv", "product") for name in region)

    def root(self, tensor: str) -> str:
        """The tensor whose range another one has."""
        for node in self.graph.nodes:
            moved = node.name in self.inside and node.becomes == "movement"
            if moved and tensor in node.outputs:
                return self.root(node.inputs[0])
        return tensor

    def groups(self) -> dict[str, set[str]]:
        tensors = self.integer_tensors() | {
            tensor for name in self.inside for tensor in self.by_name[name].inputs
        }
        found: dict[str, set[str]] = {}
        for tensor in tensors:
            found.setdefault(self.root(tensor), set()).add(tensor)
        return found


def _check(decisions: CalibrationPlan, oracle: _Oracle) -> None:
    assert outputs_by_node(decisions) == {
        name: "integer" if oracle.is_quantized_output(oracle.by_name[name]) else "float"
        for name in oracle.inside
    }
    members = [value for one in decisions.activations for value in one.members]
    assert len(members) == len(set(members))
    assert groups(decisions) == oracle.groups()
    for one in decisions.activations:
        assert one.name == one.value.name
        assert one.value in one.members


FEW = settings(deadline=None, max_examples=40)
MANY = settings(deadline=None, max_examples=1000)

a_graph_and_target = given(graph=graphs(), dynamic_matmul=st.booleans())
a_graph_and_data = given(graph=graphs(), data=st.data())


@FEW
@a_graph_and_target
def test_the_rules_written_again_give_the_same_regions(graph: _Graph, dynamic_matmul: bool) -> None:
    decisions = decide(graph.model(), dynamic_matmul=dynamic_matmul)
    _check(decisions, _Oracle(graph, dynamic_matmul))


@pytest.mark.full
@MANY
@a_graph_and_target
def test_the_rules_written_again_on_many_graphs(graph: _Graph, dynamic_matmul: bool) -> None:
    decisions = decide(graph.model(), dynamic_matmul=dynamic_matmul)
    _check(decisions, _Oracle(graph, dynamic_matmul))


@FEW
@a_graph_and_data
def test_the_order_of_the_nodes_does_not_matter(graph: _Graph, data: st.DataObject) -> None:
    _check_another_order(graph, data)


@pytest.mark.full
@MANY
@a_graph_and_data
def test_the_order_of_the_nodes_of_many_graphs(graph: _Graph, data: st.DataObject) -> None:
    _check_another_order(graph, data)


def _check_another_order(graph: _Graph, data: st.DataObject) -> None:
    count = len(graph.nodes)
    wanted = data.draw(st.permutations(range(count)))
    known, order = {"x"}, []
    while len(order) < count:
        ready = next(i for i in wanted if i not in order and known >= set(graph.nodes[i].inputs))
        order.append(ready)
        known.update(graph.nodes[ready].outputs)
    one, other = decide(graph.model()), decide(graph.model(tuple(order)))
    assert outputs_by_node(one) == outputs_by_node(other)
    assert groups(one) == groups(other)
    assert {node.node for node in one.skipped} == {node.node for node in other.skipped}


@FEW
@a_graph_and_data
def test_a_refused_node_only_takes_others_with_it(graph: _Graph, data: st.DataObject) -> None:
    before = decide(graph.model())
    if not before.nodes:
        return
    name = data.draw(st.sampled_from([node.name for node in before.nodes]))
    after = decide(graph.model(), refused={name: "found in the data"})
    assert set(outputs_by_node(after)) < set(outputs_by_node(before))
    assert name not in outputs_by_node(after)


@FEW
@given(graph=graphs())
def test_planning_twice_gives_the_same_and_changes_nothing(graph: _Graph) -> None:
    model = to_ir(graph.model())
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    one, other = plan_ir(model), plan_ir(model)
    assert one == other
    assert one.to_json() == other.to_json()
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
