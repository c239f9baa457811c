from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxq.simplify.initializers import close_initializers, lift_constants, share_small_constants
from tests.models import FloatArray, constant_node, float_weight, make_model, matmul_model
from tests.simplify.equality import assert_equal, change, operators


def _with_input(model: onnx.ModelProto, name: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    model.graph.input.append(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
    )
    return model


class TestClosing:
    def test_an_old_model_names_its_initializers_as_inputs(self, rng: np.random.Generator) -> None:
        model = matmul_model(float_weight(rng, (3, 4)), opset=8, ir_version=3)
        closed = change(_with_input(model, "w", (3, 4)), close_initializers)
        assert [one.name for one in closed.graph.input] == ["x"]
        assert closed.ir_version == 4
        assert_equal(model, closed, {"x": float_weight(rng, (2, 3))})

    @pytest.mark.parametrize("ir_version", [4, 8])
    def test_a_newer_model_means_it(self, ir_version: int, rng: np.random.Generator) -> None:
        model = matmul_model(float_weight(rng, (3, 4)), opset=9, ir_version=ir_version)
        closed = change(_with_input(model, "w", (3, 4)), close_initializers)
        assert [one.name for one in closed.graph.input] == ["x", "w"]
        assert closed.ir_version == ir_version


class TestLifting:
    @pytest.mark.parametrize(
        "attribute",
        [
            pytest.param("value = float[2] {1, 2}", id="tensor"),
            pytest.param("value_float = 1.5", id="float"),
            pytest.param("value_floats = [1.5, 2.5]", id="floats"),
        ],
    )
    def test_every_form_of_constant_node(self, attribute: str) -> None:
        model = make_model(f"k = Constant<{attribute}>() y = Add(x, k)", "float[2] x", "float[2] y")
        lifted = change(model, lift_constants)
        assert operators(lifted) == ["Add"]
        assert [one.name for one in lifted.graph.initializer] == ["k"]
        assert_equal(model, lifted, {"x": np.array([3, 4], np.float32)})

    def test_constants_of_a_body_stay_in_it(self) -> None:
        model = make_model(
            """y = If (c) <
                 then_branch = t () => (a) {
                   k = Constant<value = float[2] {1, 2}>() a = Add(x, k) },
                 else_branch = e () => (b) {
                   k = Constant<value = float[2] {3, 4}>() b = Add(x, k) }
               >""",
            "bool c, float[2] x",
            "float[2] y",
        )
        lifted = change(model, lift_constants)
        for choice in (True, False):
            feeds = {"c": np.array(choice), "x": np.zeros(2, np.float32)}
            assert_equal(model, lifted, feeds)

    def test_a_constant_that_is_the_output(self) -> None:
        model = make_model("y = Constant<value = float[2] {1, 2}>()", "float[2] x", "float[2] y")
        assert_equal(model, change(model, lift_constants), {"x": np.zeros(2, np.float32)})


def _sum_of(arrays: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Each constant added to an input of its own."""
    nodes = " ".join(f"y_{name} = Add(x_{name}, {name})" for name in arrays)
    shapes = {name: f"float{list(array.shape) or ''}" for name, array in arrays.items()}
    inputs = ", ".join(f"{shape} x_{name}" for name, shape in shapes.items())
    outputs = ", ".join(f"{shape} y_{name}" for name, shape in shapes.items())
    return make_model(nodes, inputs, outputs, arrays)


class TestSharing:
    @staticmethod
    def _left(arrays: dict[str, np.ndarray]) -> list[str]:
        model = _sum_of(arrays)
        shared = change(model, share_small_constants)
        assert_equal(model, shared, {f"x_{name}": array for name, array in arrays.items()})
        return [tensor.name for tensor in shared.graph.initializer]

    def test_equal_constants_become_the_first(self) -> None:
        six = np.array(6, np.float32)
        assert self._left({"a": six, "b": six, "c": six}) == ["a"]

    @pytest.mark.parametrize(
        "other",
        [
            pytest.param(np.array([6.5], np.float32), id="another_value"),
            pytest.param(np.array([[6.0]], np.float32), id="another_shape"),
            pytest.param(np.array(6.0, np.float32), id="another_rank"),
        ],
    )
    def test_other_constants_stay(self, other: FloatArray) -> None:
        assert self._left({"a": np.array([6.0], np.float32), "b": other}) == ["a", "b"]

    def test_zeros_of_both_signs_differ(self) -> None:
        """1 / x tells them apart."""
        assert self._left({"a": np.array(0.0, np.float32), "b": np.array(-0.0, np.float32)}) == [
            "a",
            "b",
        ]

    def test_the_same_bits_of_other_types_differ(self) -> None:
        model = make_model(
            "y = Add(x, a) z = Add(i, b)",
            "float[1] x, int32[1] i",
            "float[1] y, int32[1] z",
            {"a": np.zeros(1, np.float32), "b": np.zeros(1, np.int32)},
        )
        assert len(change(model, share_small_constants).graph.initializer) == 2

    @pytest.mark.parametrize(("elements", "left"), [(64, ["a"]), (65, ["a", "b"])])
    def test_large_constants_are_not_compared(self, elements: int, left: list[str]) -> None:
        array = np.ones(elements, np.float32)
        assert self._left({"a": array, "b": array}) == left

    def test_inputs_and_outputs_keep_their_names(self) -> None:
        array = np.ones(4, np.float32)
        model = make_model(
            "y = Add(x, a) z = Add(y, b) u = Add(z, c)",
            "float[4] x, float[4] a",
            "float[4] u, float[4] b",
            {"a": array, "b": array, "c": array},
        )
        shared = change(model, share_small_constants)
        assert [tensor.name for tensor in shared.graph.initializer] == ["a", "b", "c"]

    def test_bodies_keep_their_own(self) -> None:
        model = make_model(
            """y = If (c) <
                 then_branch = t () => (a) <float[1] k = {6}> { a = Add(x, k) },
                 else_branch = e () => (b) <float[1] k = {6}, float[1] l = {6}> {
                   m = Add(x, k) b = Add(m, l) }
               >""",
            "bool c, float[1] x",
            "float[1] y",
        )
        shared = change(model, share_small_constants)
        for choice in (True, False):
            assert_equal(model, shared, {"c": np.array(choice), "x": np.ones(1, np.float32)})

    def test_constant_nodes_are_left_to_the_lifting(self) -> None:
        model = make_model("y = Add(x, k) z = Add(y, l)", "float[1] x", "float[1] z")
        for name in ("k", "l"):
            model.graph.node.insert(0, constant_node(np.ones(1, np.float32), name))
        assert operators(change(model, share_small_constants)).count("Constant") == 2
        lifted = change(model, lift_constants, share_small_constants)
        assert len(lifted.graph.initializer) == 1
