"""Which kernels add pairs of products, in the rules and in the runtime."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxq.graph.constants import iterate_constants
from onnxq.rules.products import adds_pairs_of_products
from onnxq.rules.roles import Form
from onnxq.runtime.processor import adds_products_exactly
from tests.apply.quantized import run
from tests.models import make_model, to_ir

CONVOLUTIONS = {
    # outputs, inputs a group, kernel..., and groups
    "1x1": ((64, 64, 1, 1), 1),
    "3x3": ((32, 32, 3, 3), 1),
    "one-axis": ((64, 32, 3), 1),
    "three-axes": ((16, 16, 3, 3, 3), 1),
    "16-groups-of-4": ((64, 4, 3, 3), 16),
    "32-groups-of-2": ((64, 2, 3, 3), 32),
    "two-outputs-a-group": ((64, 1, 3, 3), 32),
    "depthwise-3x3": ((64, 1, 3, 3), 64),
    "depthwise-5x5": ((67, 1, 5, 5), 67),
    "depthwise-one-axis": ((64, 1, 9), 64),
    "depthwise-three-axes": ((16, 1, 3, 3, 3), 16),
    "one-channel": ((1, 1, 3, 3), 1),
}

convolutions = pytest.mark.parametrize("name", CONVOLUTIONS)


def adds_pairs(shape: tuple[int, ...], group: int, form: Form = Form.CALIBRATED) -> bool:
    sizes = ", ".join(["16"] * (len(shape) - 2))
    model = make_model(
        f"y = Conv<group = {group}>(x, w)",
        f"float[1, {shape[1] * group}, {sizes}] x",
        "float[] y",
        {"w": np.ones(shape, np.float32)},
    )
    (constant,) = iterate_constants(to_ir(model))
    return adds_pairs_of_products(constant.uses[0], form, constant.tensor)


@pytest.fixture
def largest_sums() -> Callable[[tuple[int, ...], int], np.ndarray]:
    """QLinearConv of the largest integers; 250 if it is exact."""

    def call(shape: tuple[int, ...], group: int) -> np.ndarray:
        image = np.full((1, shape[1] * group, *(size + 3 for size in shape[2:])), 255, np.uint8)
        constants = {
            "one": np.float32(1),
            "scale": np.float32(np.prod(shape[1:]) * 255 * 127 / 250),
            "zx": np.uint8(0),
            "zw": np.int8(0),
            "w": np.full(shape, 127, np.int8),
        }
        names = ["x", "one", "zx", "w", "one", "zw", "scale", "zx"]
        graph = helper.make_graph(
            [helper.make_node("QLinearConv", names, ["y"], group=group)],
            "sums",
            [helper.make_tensor_value_info("x", TensorProto.UINT8, image.shape)],
            [helper.make_tensor_value_info("y", TensorProto.UINT8, None)],
            [numpy_helper.from_array(np.asarray(one), name) for name, one in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        return run(model, {"x": image})[0]

    return call


@convolutions
def test_only_depthwise_kernels_do_not(name: str) -> None:
    assert adds_pairs(*CONVOLUTIONS[name]) is not name.startswith(("depthwise", "one-channel"))


@convolutions
def test_the_runtime_agrees(
    name: str, largest_sums: Callable[[tuple[int, ...], int], np.ndarray]
) -> None:
    is_exact = bool(np.all(largest_sums(*CONVOLUTIONS[name]) == 250))
    assert is_exact is (adds_products_exactly() or not adds_pairs(*CONVOLUTIONS[name]))


@pytest.mark.parametrize("form", list(Form), ids=lambda form: form.value)
def test_forms(form: Form) -> None:
    reads_8_bits = {"calibrated", "integer matmul", "integer lstm", "integer attention"}
    assert adds_pairs((8, 8, 1, 1), 1, form) is (form.value in reads_8_bits)
