"""Rows of a convolution against the convolution of onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from onnxq.algorithms.rows import read_window, take_convolution_rows
from tests.models import float_weight, make_model, to_ir

Array = npt.NDArray[Any]


def _every(count: int) -> Array:
    return np.arange(count)


@st.composite
def convolutions(draw: st.DrawFn) -> dict[str, Any]:
    """Attributes and shapes of a convolution that onnxruntime can run."""
    axes = draw(st.integers(1, 2))
    groups = draw(st.sampled_from([1, 2, 3]))
    small = st.lists(st.integers(1, 3), min_size=axes, max_size=axes)
    kernel, strides = draw(small), draw(small)
    automatic = draw(st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    # onnxruntime refuses dilations together with SAME.
    dilations = [1] * axes if automatic.startswith("SAME") else draw(small)
    least = max((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    attributes: dict[str, Any] = {"strides": strides, "dilations": dilations, "group": groups}
    if automatic == "NOTSET":
        attributes["pads"] = draw(st.lists(st.integers(0, 2), min_size=2 * axes, max_size=2 * axes))
    else:
        attributes["auto_pad"] = automatic
    return {
        "kernel": kernel,
        "attributes": attributes,
        "space": draw(st.lists(st.integers(least, least + 4), min_size=axes, max_size=axes)),
        "batch": draw(st.integers(1, 2)),
        "inputs": groups * draw(st.integers(1, 2)),
        "outputs": groups * draw(st.integers(1, 2)),
    }


@given(case=convolutions())
@settings(max_examples=60, deadline=None)
def test_rows_times_the_weight_are_the_convolution(case: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    groups, inputs, outputs = case["attributes"]["group"], case["inputs"], case["outputs"]
    # Whole numbers: sums of their products are exact in float32.
    shape = (outputs, inputs // groups, *case["kernel"])
    weight = rng.integers(-8, 9, shape).astype(np.float32)
    x = rng.integers(-8, 9, (case["batch"], inputs, *case["space"])).astype(np.float32)
    dimensions = ", ".join(map(str, x.shape))
    model = make_model("y = Conv(x, w)", f"float[{dimensions}] x", "float[] y", {"w": weight})
    for name, value in case["attributes"].items():
        model.graph.node[0].attribute.append(helper.make_attribute(name, value))
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (expected,) = session.run(None, {"x": x})
    (node,) = to_ir(model).graph
    window = read_window(node)
    assert window is not None
    rows = take_convolution_rows(x, window, groups, _every)
    products = np.matmul(rows, weight.reshape(groups, outputs // groups, -1).transpose(0, 2, 1))
    found = products.transpose(1, 0, 2).reshape(x.shape[0], -1, outputs)
    np.testing.assert_array_equal(
        found.transpose(0, 2, 1).reshape(expected.shape), np.asarray(expected)
    )


def test_places_are_those_that_are_kept(rng: np.random.Generator) -> None:
    model = make_model(
        "y = Conv(x, w)",
        "float[1, 2, 5, 5] x",
        "float[1, 3, 3, 3] y",
        {"w": np.ones((3, 2, 3, 3), np.float32)},
    )
    window = read_window(to_ir(model).graph[0])
    assert window is not None
    x = rng.standard_normal((1, 2, 5, 5)).astype(np.float32)
    whole = take_convolution_rows(x, window, 1, _every)
    some = take_convolution_rows(x, window, 1, lambda count: np.array([0, count - 1, 4]))
    np.testing.assert_array_equal(some, whole[:, [0, 8, 4]])


@pytest.mark.parametrize("groups", [1, 4])
def test_an_empty_activation_has_no_rows(groups: int) -> None:
    model = make_model(
        f"y = Conv<group = {groups}>(x, w)",
        "float[N, 4, 5, 5] x",
        "float[N, 4, 3, 3] y",
        {"w": np.ones((4, 4 // groups, 3, 3), np.float32)},
    )
    window = read_window(to_ir(model).graph[0])
    assert window is not None
    rows = take_convolution_rows(np.zeros((0, 4, 5, 5), np.float32), window, groups, _every)
    assert rows.shape == (groups, 0, 36 // groups)


def test_an_attribute_of_a_function_is_not_known() -> None:
    model = make_model(
        "y = local.f<s = [2, 2]>(x, w)",
        "float[1, 4, 5, 5] x",
        "float[1, 4, 5, 5] y",
        {"w": float_weight(np.random.default_rng(0), (4, 4, 1, 1))},
        functions='<opset_import: ["" : 17], domain: "local"> f<s>(a, b) => (c) '
        "{ c = Conv<strides: ints = @s>(a, b) }",
    )
    (function,) = to_ir(model).functions.values()
    (node,) = function.graph
    assert read_window(node) is None
