from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

from onnxq.errors import SelectorError, UsageError
from onnxq.plan import Plan, StaticOptions, TensorPlan, parse_activation_type
from onnxq.plan.static import find_observable_graphs
from onnxq.rules.roles import Form
from onnxq.schemes import ActivationScheme, ActivationType, Scheme, WeightType
from onnxq.targets import Target
from tests.models import constant_node, float_weight, make_model, to_ir
from tests.plan.planning import INEXACT, ONNX, ORT, forms
from tests.plan.static_planning import (
    IMAGE,
    between,
    calibrated,
    decide,
    groups,
    plan_ir,
    reasons,
    static_model,
    static_plan,
)

INT8_CHANNELS = Scheme(type=WeightType.INT8, axes=(0,))
SIXTEEN_BITS = ActivationScheme(type=ActivationType.UINT16)
IN_BODY = "in the body of a Loop or Scan, whose activations cannot be observed"
IN_FUNCTION = "in a model-local function, whose activations cannot be observed"
CONDITION = f"bool c, {IMAGE}"


one_conv = static_model("[a] p = Conv(x, k1) [end] y = Neg(p)")


def _tensor(plan: Plan, name: str) -> TensorPlan:
    (found,) = (tensor for tensor in plan.tensors if tensor.name == name)
    return found


class TestWeights:
    def test_a_weight_is_stored_for_integers(self) -> None:
        (found,) = static_plan(one_conv).tensors
        assert found.scheme == INT8_CHANNELS
        assert found.best_form is Form.CALIBRATED
        assert forms(found) == {"a": "calibrated"}
        assert found.explanation == ""
        assert found.expected_sqnr_db is not None
        assert found.channel_axes == (0,)
        assert static_plan(one_conv).mode == "static"

    @pytest.mark.parametrize(
        ("options", "scheme"),
        [
            pytest.param({}, INT8_CHANNELS, id="int8"),
            pytest.param({"per_channel": False}, Scheme(type=WeightType.INT8), id="per_tensor"),
            pytest.param(
                {"reduce_range": True}, replace(INT8_CHANNELS, reduce_range=True), id="reduce_range"
            ),
            pytest.param(
                {"weights": "uint8", "symmetric_weights": True},
                Scheme(type=WeightType.UINT8, axes=(0,)),
                id="symmetric_uint8",
            ),
            pytest.param(
                {"weights": "uint8", "per_channel": False},
                Scheme(type=WeightType.UINT8, symmetric=False),
                id="uint8_per_tensor",
            ),
            pytest.param(
                {"weights": "int4", "symmetric_weights": True},
                Scheme(type=WeightType.INT4, axes=(0,)),
                id="symmetric_int4",
            ),
            pytest.param(
                {"weights": "int4", "symmetric_weights": False},
                Scheme(type=WeightType.INT4, axes=(0,), symmetric=False),
                id="asymmetric_int4",
            ),
        ],
    )
    @pytest.mark.parametrize("target", [ORT, ONNX], ids=lambda target: target.name)
    def test_options_become_the_scheme(
        self, options: dict[str, Any], scheme: Scheme, target: Target
    ) -> None:
        (found,) = static_plan(one_conv, target=target, **options).tensors
        assert found.scheme == scheme

    @pytest.mark.parametrize(
        ("target", "symmetric"), [(ORT, False), (ONNX, True)], ids=["ort-cpu", "onnx"]
    )
    def test_4_bits_have_zero_points_where_they_are_subtracted_at_load(
        self, target: Target, symmetric: bool
    ) -> None:
        (found,) = static_plan(one_conv, target=target, weights="int4").tensors
        assert found.scheme == Scheme(type=WeightType.INT4, axes=(0,), symmetric=symmetric)
        assert found.explanation == ""

    @pytest.mark.parametrize(
        "options",
        [{"weights": "uint8"}, {"symmetric_weights": False}],
        ids=["uint8", "asymmetric"],
    )
    def test_convolutions_have_one_zero_point_where_more_are_slow(
        self, options: dict[str, Any]
    ) -> None:
        for target, symmetric in ((ORT, True), (ONNX, False)):
            (found,) = static_plan(one_conv, target=target, **options).tensors
            assert found.scheme is not None
            assert found.scheme.symmetric is symmetric
            assert ("zero points for each channel" in found.explanation) is symmetric

    @pytest.mark.parametrize(
        ("options", "is_exact", "scheme"),
        [
            ({}, True, "int8 per channel"),
            ({}, False, "int8 per channel in pairs"),
            ({"reduce_range": False}, False, "int8 per channel"),
            ({"reduce_range": True}, True, "int8 per channel 7-bit"),
            ({"weights": "uint8"}, False, "uint8 per channel asymmetric"),
            ({"weights": "int4"}, False, "int4 per channel"),
            ({"weights": "int16"}, False, "int16 per channel"),
            ({"activations": SIXTEEN_BITS}, False, "int8 per channel"),
        ],
    )
    def test_limited_pairs_where_products_are_added_inexactly(
        self, options: dict[str, Any], is_exact: bool, scheme: str
    ) -> None:
        target = replace(ONNX, adds_products_exactly=is_exact)
        (found,) = static_plan(one_conv, target=target, **options).tensors
        assert str(found.scheme) == scheme

    def test_seven_bits_are_for_weights_whose_products_are_added_in_pairs(self) -> None:
        """Not for depthwise convolutions, nor for what is only stored."""
        nodes = (
            "[a] p = Conv(x, k1) [dw] q = Conv<group = 32>(p, dw1) [c] r = Conv(q, k2) "
            "[free] s = Conv(r, k3) [end] y = Neg(s)"
        )
        asked: tuple[tuple[dict[str, Any], str], ...] = (
            ({"target": INEXACT}, "int8 per channel in pairs"),
            ({"reduce_range": True}, "int8 per channel 7-bit"),
        )
        for options, scheme in asked:
            plan = static_plan(static_model(nodes), refused={"free": "for the test"}, **options)
            assert {one.name: str(one.scheme) for one in plan.tensors} == {
                "k1": scheme,
                "dw1": "int8 per channel",
                "k2": scheme,
                "k3": "int8 per channel",
            }

    def test_limited_pairs_of_what_is_not_calibrated(self) -> None:
        """Also beside types that have no 7-bit form."""
        model = static_model("[mm] y = MatMul(x, m1)", "float[N, 128] x")
        for weights in ("int8", "int4", "uint8"):
            (found,) = static_plan(model, target=INEXACT, weights=weights).tensors
            assert found.best_form is Form.INTEGER_MATMUL
            assert str(found.scheme) == "int8 per channel in pairs"

    @pytest.mark.parametrize(
        ("transposed", "axes"), [(0, (1,)), (1, (0,))], ids=["plain", "transposed"]
    )
    def test_scales_run_along_the_columns_of_a_matrix(
        self, transposed: int, axes: tuple[int, ...]
    ) -> None:
        model = static_model(f"[g] y = Gemm<transB = {transposed}>(x, m1)", "float[] x")
        (found,) = static_plan(model, target=ONNX).tensors
        assert found.scheme == Scheme(type=WeightType.INT8, axes=axes)

    @pytest.mark.parametrize(
        ("model", "reason"),
        [
            pytest.param(
                static_model("[a] p = Conv(x, k) [end] y = Neg(p)", "float[] x, float[] k"),
                None,
                id="an_input",
            ),
            pytest.param(
                static_model(
                    "[a] p = Conv(x, k1) [end] y = Neg(p)", f"{IMAGE}, float[32, 32, 1, 1] k1"
                ),
                None,
                id="an_overridable_initializer",
            ),
            pytest.param(
                static_model("k = Neg(k1) [a] p = Conv(x, k) [end] y = Neg(p)"),
                None,
                id="computed",
            ),
            pytest.param(
                static_model(
                    "[a] p = Conv(x, w) [end] y = Neg(p)",
                    extra={"w": np.ones((32, 32, 1, 1), np.float16)},
                ),
                "integer kernels take float32 models; the weight is float16",
                id="float16",
            ),
            pytest.param(
                static_model(
                    "[a] p = Conv(x, w) [end] y = Neg(p)",
                    extra={"w": np.ones((32, 32, 1, 1), np.float64)},
                ),
                "integer kernels take float32 models; the weight is double",
                id="double",
            ),
            pytest.param(
                static_model(
                    "[a] p = Conv(x, w) [end] y = Neg(p)",
                    extra={"w": np.full((32, 32, 1, 1), np.nan, np.float32)},
                ),
                "holds NaN or infinity",
                id="nan",
            ),
            pytest.param(
                static_model(
                    "[a] p = Conv(x, w) [end] y = Neg(p)",
                    extra={"w": np.full((32, 32, 1, 1), np.inf, np.float32)},
                ),
                "holds NaN or infinity",
                id="infinity",
            ),
            pytest.param(
                static_model(
                    "[a] p = Conv(x, k1) [end] y = Neg(p)",
                    outputs="float[] y, float[32, 32, 1, 1] k1",
                ),
                "is an output of the model",
                id="an_output",
            ),
            pytest.param(
                static_model("[a] p = Conv(x, k1, b) [end] y = Neg(p)", f"{IMAGE}, float[32] b"),
                "its bias is not a constant vector",
                id="bias_an_input",
            ),
            pytest.param(
                static_model(
                    "[a] p = Conv(x, k1, b) [end] y = Neg(p)",
                    extra={"b": np.ones(32, np.float16)},
                ),
                "its bias is not a constant vector",
                id="bias_float16",
            ),
            pytest.param(
                static_model("[a] p = Conv(x, k1, b) [end] y = Neg(p)", extra={"b": np.float32(1)}),
                "its bias is not a constant vector",
                id="bias_a_number",
            ),
        ],
    )
    def test_what_cannot_be_calibrated_says_why(
        self, model: onnx.ModelProto, reason: str | None
    ) -> None:
        assert calibrated(model) == set()
        assert reasons(model) == ({} if reason is None else {"a": reason})

    @pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=["float32", "float16"])
    def test_weights_in_constant_nodes(self, dtype: type, rng: np.random.Generator) -> None:
        model = make_model("[a] p = Conv(x, w) [end] y = Neg(p)", IMAGE, "float[] y")
        weight = float_weight(rng, (32, 32, 1, 1)).astype(dtype)
        model.graph.node.insert(0, constant_node(weight, "w"))
        assert calibrated(model) == ({"a"} if dtype is np.float32 else set())

    def test_one_bad_weight_takes_out_what_depends_on_it(self) -> None:
        nodes = "[a] p = Conv(x, k1) [s] t = Sigmoid(p) [b] q = Conv(t, w) [end] y = Neg(q)"
        bad = np.full((32, 32, 1, 1), np.nan, np.float32)
        model = static_model(nodes, extra={"w": bad})
        assert calibrated(model) == {"a"}
        assert reasons(model) == {"s": "no integer node reads it", "b": "holds NaN or infinity"}
        assert _tensor(static_plan(model), "w").scheme is None

    def test_a_region_that_loses_its_only_large_layer_is_dissolved(self) -> None:
        nodes = "[a] p = Conv(x, w) [d] q = Conv<group = 32>(p, dw1) [end] y = Neg(q)"
        bad = np.full((32, 32, 1, 1), np.nan, np.float32)
        model = static_model(nodes, extra={"w": bad})
        assert reasons(model) == {
            "a": "holds NaN or infinity",
            "d": "no gain: no layer large enough around it",
        }

    def test_layers_that_stay_float_are_stored_as_without_calibration(self) -> None:
        model = static_model("[a] p = Conv(x, k1) s = Softmax(p) [mm] y = MatMul(s, m1)")
        plan = static_plan(model)
        assert forms(_tensor(plan, "k1")) == {"a": "calibrated"}
        assert forms(_tensor(plan, "m1")) == {"mm": "integer matmul"}

    def test_no_storage_holds_for_the_rest_only(self) -> None:
        nodes = "[a] p = Conv(x, k1) s = Softmax(p) [b] y = Conv(s, k2)"
        plan = static_plan(static_model(nodes), storage=False)
        assert _tensor(plan, "k1").scheme == INT8_CHANNELS
        assert _tensor(plan, "k2").scheme is None

    def test_the_rest_is_int8_whatever_calibrated_weights_are(self) -> None:
        nodes = "[a] p = Conv(x, k1) s = Softmax(p) [b] y = Conv(s, k2)"
        plan = static_plan(static_model(nodes), weights="int4")
        four_bit = Scheme(type=WeightType.INT4, axes=(0,), symmetric=False)
        assert _tensor(plan, "k1").scheme == four_bit
        assert _tensor(plan, "k2").scheme == INT8_CHANNELS

    def test_a_weight_of_few_elements_is_a_row(self, rng: np.random.Generator) -> None:
        """Fewer than the 64 under which weights are otherwise left alone."""
        nodes = "[a] p = Conv(x, k1) [d] q = Conv<group = 4>(p, w) [end] y = Neg(q)"
        weight = rng.standard_normal((4, 1, 3, 3)).astype(np.float32)
        plan = static_plan(static_model(nodes, extra={"w": weight}))
        assert forms(_tensor(plan, "w")) == {"d": "calibrated"}
        assert plan.ignored_tensors == 0
        alone = static_plan(
            static_model(nodes.replace("Conv(x, k1)", "Neg(x)"), extra={"w": weight})
        )
        assert (alone.tensors, alone.ignored_tensors) == ((), 1)

    def test_large_biases_are_no_rows(self, rng: np.random.Generator) -> None:
        weights = {
            "w": rng.standard_normal((2048, 32, 1, 1)).astype(np.float32),
            "b": rng.standard_normal(2048).astype(np.float32),
        }
        model = static_model("[a] p = Conv(x, w, b) [end] y = Neg(p)", extra=weights)
        plan = static_plan(model)
        assert [tensor.name for tensor in plan.tensors] == ["w"]
        assert (plan.ignored_tensors, plan.ignored_bytes) == (0, 0)
        left = static_plan(model, exclude=("a",))
        assert {tensor.name for tensor in left.tensors} == {"w", "b"}

    def test_the_bias_of_a_float_layer_is_counted(self) -> None:
        nodes = "[a] p = Conv(x, k1, b32) [b] y = Conv(p, k2, b32_too)"
        plan = static_plan(static_model(nodes))
        assert (plan.ignored_tensors, plan.ignored_bytes) == (1, 32 * 4)

    def test_a_bias_that_a_float_node_reads_too_is_counted(self) -> None:
        nodes = "[a] p = Conv(x, k1, b32) [end] y = Sum(p, b32)"
        plan = static_plan(static_model(nodes))
        assert (plan.ignored_tensors, plan.ignored_bytes) == (1, 32 * 4)
        assert calibrated(static_model(nodes)) == {"a"}


class TestTiedWeights:
    def test_two_convolutions(self) -> None:
        model = static_model("[a] p = Conv(x, k1) [b] q = Conv(p, k1) [end] y = Neg(q)")
        (found,) = static_plan(model).tensors
        assert found.scheme == INT8_CHANNELS
        assert forms(found) == {"a": "calibrated", "b": "calibrated"}

    def test_a_calibrated_and_a_float_convolution(self) -> None:
        model = static_model("[a] p = Conv(x, k1) [b] y = Conv(p, k1)")
        (found,) = static_plan(model).tensors
        assert found.scheme == INT8_CHANNELS
        assert forms(found) == {"a": "calibrated", "b": "storage"}
        assert reasons(model) == {"b": "an output of the model stays float"}

    def test_a_convolution_and_an_excluded_one(self) -> None:
        model = static_model("[a] p = Conv(x, k1) [b] q = Conv(p, k1) [end] y = Neg(q)")
        assert calibrated(model, exclude=("b",)) == set()
        assert reasons(model, exclude=("b",)) == {
            "a": "left out by --exclude b (read by b)",
            "b": "left out by --exclude b",
        }

    def test_a_convolution_and_something_else(self) -> None:
        model = static_model("[a] p = Conv(x, k1) [e] y = Sum(p, k1)")
        (found,) = static_plan(model).tensors
        assert found.scheme == INT8_CHANNELS
        assert forms(found) == {"a": "calibrated", "e": "storage"}

    def test_a_matrix_read_by_a_calibrated_and_a_dynamic_layer(self) -> None:
        nodes = """[a] p = Conv(x, k1) [f] f1 = Flatten(p) [g] r = Gemm(f1, m1)
                   [n] s = Neg(r) [mm] y = MatMul(s, m1)"""
        found = _tensor(static_plan(static_model(nodes)), "m1")
        assert forms(found) == {"g": "calibrated", "mm": "integer matmul"}
        turned = nodes.replace("Gemm", "Gemm<transB = 1>")
        found = _tensor(static_plan(static_model(turned)), "m1")
        assert forms(found) == {"g": "calibrated", "mm": "storage"}

    @pytest.mark.parametrize(
        ("reader", "form"),
        [("MatMul(s, m1)", "integer matmul"), ("Gather(m1, i)", "lookup")],
        ids=["matmul", "gather"],
    )
    @pytest.mark.parametrize(
        ("weights", "target"), [("int4", ORT), ("int16", ONNX)], ids=["int4", "int16"]
    )
    def test_forms_of_8_bits_do_not_get_others(
        self, weights: str, target: Target, reader: str, form: str
    ) -> None:
        model = static_model(
            f"""[a] p = Conv(x, k1) [f] f1 = Flatten(p) [g] r = Gemm(f1, m1)
                [n] s = Neg(r) [o] y = {reader}""",
            f"{IMAGE}, int64[3] i",
        )
        plan = static_plan(model, weights=weights, target=target, dynamic_matmul=True)
        found = _tensor(plan, "m1")
        assert found.scheme is None or found.scheme.type.bits == 8 or forms(found)["o"] != form


class TestActivationTypes:
    @pytest.mark.parametrize("name", ["int8", "uint16", "int16"])
    def test_what_the_runtime_has_no_kernel_for(self, name: str) -> None:
        scheme = ActivationScheme(type=parse_activation_type(name))
        with pytest.raises(
            UsageError,
            match=rf"--activations {name}: target 'ort-cpu' .* has: uint8, uint4; .*onnx",
        ):
            static_plan(one_conv, activations=scheme)
        decisions = decide(one_conv, target=ONNX, activations=scheme)
        assert {one.scheme for one in decisions.activations} == {scheme}

    def test_int16_weights(self) -> None:
        with pytest.raises(
            UsageError, match=r"--weights int16: target 'ort-cpu' .* has: int8, uint8, int4; "
        ):
            static_plan(one_conv, weights="int16")
        (found,) = static_plan(one_conv, weights="int16", target=ONNX).tensors
        assert found.scheme == Scheme(type=WeightType.INT16, axes=(0,))

    @pytest.mark.parametrize("name", ["fp16", "bf16", "uint4"])
    @pytest.mark.parametrize("target", [ORT, ONNX], ids=lambda target: target.name)
    def test_weights_that_cannot_be_calibrated(self, name: str, target: Target) -> None:
        with pytest.raises(
            UsageError, match=f"--weights {name} cannot be .* int8, uint8, int4, int16$"
        ):
            static_plan(one_conv, weights=name, target=target)

    def test_seven_bits_of_four(self) -> None:
        for weights in (WeightType.INT4, WeightType.INT16):
            with pytest.raises(UsageError, match=f"is for 8-bit weights, not {weights.value}"):
                StaticOptions(weights=weights, reduce_range=True)
            assert not StaticOptions(weights=weights).weight_scheme(INEXACT).reduce_range

    @pytest.mark.parametrize("name", ["uint3", "UINT8", "", "fp16"])
    def test_unknown_names(self, name: str) -> None:
        with pytest.raises(UsageError, match="known types: uint8, int8, uint16, int16"):
            parse_activation_type(name)

    def test_the_default(self) -> None:
        decisions = decide(one_conv)
        assert {str(one.scheme) for one in decisions.activations} == {"uint8"}
        symmetric = ActivationScheme(symmetric=True)
        decisions = decide(one_conv, activations=symmetric)
        assert {one.scheme for one in decisions.activations} == {symmetric}
        assert parse_activation_type("uint8") is ActivationType.UINT8


class TestSelection:
    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            pytest.param({"exclude": ("a",)}, "left out by --exclude a", id="exclude"),
            pytest.param({"include": ("b", "s")}, "left out by --include", id="include"),
        ],
    )
    def test_a_layer_left_out_takes_what_stood_on_it(
        self, options: dict[str, Any], reason: str
    ) -> None:
        model = between("[s] m = Sigmoid(p)")
        assert calibrated(model) == {"a", "s", "b"}
        assert calibrated(model, **options) == {"b"}
        assert reasons(model, **options) == {"a": reason}

    def test_operator_types(self) -> None:
        model = between("[s] m = Sigmoid(p)")
        assert calibrated(model, op_types=("Conv",)) == {"a", "b"}
        assert reasons(model, op_types=("Conv",)) == {"s": "left out by --op-types"}
        assert calibrated(model, op_types=("Sigmoid",)) == set()

    def test_a_selector_that_matches_nothing(self) -> None:
        with pytest.raises(SelectorError, match="matches no node"):
            static_plan(one_conv, exclude=("nothing",))

    def test_refused_nodes_carry_the_reason(self) -> None:
        model = between("[s] m = Sigmoid(p)")
        found = {"refused": {"a": "its range is not finite"}}
        assert calibrated(model, **found) == {"b"}
        assert reasons(model, **found) == {"a": "its range is not finite"}
        assert forms(_tensor(static_plan(model, **found), "k1")) == {"a": "storage"}

    def test_without_anything_to_calibrate(self) -> None:
        model = static_model("[end] y = Neg(x)")
        plan = static_plan(model)
        assert plan.calibration is not None
        assert plan.calibration.to_json() == {"nodes": [], "activations": [], "skipped_nodes": []}
        assert plan.changes == ()


class TestScopes:
    def test_bodies_of_if_are_calibrated_nested_ones_too(self) -> None:
        model = static_model(
            """[first] z = If (c) <
                 then_branch = t () => (n) {
                   [a] p = Conv(x, k1) [s] s1 = Sigmoid(p) [b] q = Conv(s1, k2) [n] n = Neg(q) },
                 else_branch = e () => (o) {
                   [second] o1 = If (c) <
                     then_branch = u () => (v) { [d] r = Conv(x, k3) [v] v = Neg(r) },
                     else_branch = f () => (w) { [w] w = Neg(x) }
                   > [o] o = Neg(o1) }
               > [end] y = Neg(z)""",
            CONDITION,
        )
        inner = "first/else_branch/second/then_branch"
        decisions = decide(model)
        assert {node.name for node in decisions.nodes} == {
            "first/then_branch/a",
            "first/then_branch/s",
            "first/then_branch/b",
            f"{inner}/d",
        }
        # The input is one activation, whoever reads it.
        assert groups(decisions) == {
            "x": {"x"},
            "first/then_branch/p": {"p"},
            "first/then_branch/s1": {"s1"},
            "first/then_branch/q": {"q"},
            f"{inner}/r": {"r"},
        }
        assert decisions.skipped == ()

    def test_the_output_of_a_body_stays_float(self) -> None:
        model = static_model(
            """[first] z = If (c) <
                 then_branch = t () => (p) { [a] p = Conv(x, k1) },
                 else_branch = e () => (o) { [o] o = Neg(x) }
               > [end] y = Neg(z)""",
            CONDITION,
        )
        assert calibrated(model) == set()
        assert reasons(model) == {"first/then_branch/a": "an output of the model stays float"}

    @pytest.mark.parametrize(
        ("nodes", "inputs", "scope"),
        [
            pytest.param(
                """[loop] y = Loop (n, c, x) <
                     body = b (int64 i, bool k, float[] h) => (k2, r) {
                       k2 = Identity(k) [a] p = Conv(h, k1) [r] r = Neg(p) }
                   >""",
                f"int64 n, {CONDITION}",
                "loop/body",
                id="loop",
            ),
            pytest.param(
                """[scan] y = Scan <num_scan_inputs = 1,
                     body = b (float[] h) => (r) { [a] p = Conv(h, k1) [r] r = Neg(p) }
                   > (x)""",
                IMAGE,
                "scan/body",
                id="scan",
            ),
            pytest.param(
                """[loop] y = Loop (n, c, x) <
                     body = b (int64 i, bool k, float[] h) => (k2, r) {
                       k2 = Identity(k)
                       [if] r = If (k) <
                         then_branch = t () => (q) { [a] p = Conv(h, k1) [q] q = Neg(p) },
                         else_branch = e () => (o) { [o] o = Neg(h) }
                       > }
                   >""",
                f"int64 n, {CONDITION}",
                "loop/body/if/then_branch",
                id="if_in_a_loop",
            ),
        ],
    )
    def test_bodies_of_loops_stay_float(self, nodes: str, inputs: str, scope: str) -> None:
        model = static_model(nodes, inputs)
        assert calibrated(model) == set()
        assert reasons(model) == {f"{scope}/a": IN_BODY}

    def test_functions_stay_float(self) -> None:
        weight = ", ".join(["0.5"] * 400)
        model = static_model(
            "[call] y = local.f(x)",
            functions=f"""<domain: "local", opset_import: ["" : 17]> f (h) => (r) {{
                [w] k = Constant<value = float[20, 20, 1, 1] {{{weight}}}>()
                [a] p = Conv(h, k)
                [r] r = Neg(p)
            }}""",
        )
        assert calibrated(model) == set()
        assert reasons(model) == {"f()/a": IN_FUNCTION}

    def test_a_loop_that_reads_an_integer_node_changes_nothing_outside(self) -> None:
        model = static_model(
            """[a] p = Conv(x, k1)
               [loop] y = Loop (n, c, x) <
                 body = b (int64 i, bool k, float[] h) => (k2, r) {
                   k2 = Identity(k) [r] r = Sum(h, p) }
               >""",
            f"int64 n, {CONDITION}",
        )
        assert calibrated(model) == {"a"}

    def test_observable_graphs(self) -> None:
        model = to_ir(
            static_model(
                """[first] z = If (c) <
                     then_branch = t () => (n) { [n] n = Neg(x) },
                     else_branch = e () => (o) { [o] o = Neg(x) }
                   >
                   [loop] y = Loop (n, c, x) <
                     body = b (int64 i, bool k, float[] h) => (k2, r) {
                       k2 = Identity(k) r = Identity(h) }
                   >""",
                f"int64 n, {CONDITION}",
            )
        )
        assert [graph.name for graph in find_observable_graphs(model)] == ["main", "t", "e"]


class TestPlansAsValues:
    def test_json(self) -> None:
        data = static_plan(between("[r] r1 = Relu(p) [f] m = Flatten(r1)")).to_json()
        assert json.loads(json.dumps(data)) == data
        assert data["calibration"] == {
            "nodes": [
                {"node": "a", "operator": "Conv", "output": "integer"},
                {"node": "f", "operator": "Flatten", "output": "integer"},
                {"node": "b", "operator": "Conv", "output": "integer"},
            ],
            "activations": [
                {"tensor": "x", "type": "uint8", "members": 1},
                {"tensor": "r1", "type": "uint8", "members": 2},
                {"tensor": "q", "type": "uint8", "members": 1},
            ],
            "skipped_nodes": [],
        }

    def test_planning_twice_gives_equal_plans(self) -> None:
        model = to_ir(between("[s] m = Sigmoid(p)"))
        one, other = plan_ir(model), plan_ir(model)
        assert one == other
        assert hash(one) == hash(other)
        assert one != plan_ir(model, target=ONNX)
        assert one != plan_ir(model, refused={"s": "for once"})

    def test_equal_models_give_equal_plans(self) -> None:
        assert static_plan(between("m = Relu(p)")) == static_plan(between("m = Relu(p)"))
