"""What the integer kernels do on the processor that runs the tests."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxq.runtime.processor import adds_products_exactly
from tests.apply.quantized import run

K = 96
"""Neither the size of the probe nor a power of two."""


def largest_sums(rows: int, weight: int) -> np.ndarray:
    """QLinearMatMul of the largest activations; 250 if it is exact."""
    constants = {
        "one": np.float32(1),
        "scale": np.float32(K * 255 * weight / 250),
        "zx": np.uint8(0),
        "zw": np.int8(0),
        "w": np.full((K, 40), weight, np.int8),
    }
    graph = helper.make_graph(
        [
            helper.make_node(
                "QLinearMatMul", ["x", "one", "zx", "w", "one", "zw", "scale", "zx"], ["y"]
            )
        ],
        "sums",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [rows, K])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [rows, 40])],
        [numpy_helper.from_array(np.asarray(one), name) for name, one in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return run(model, {"x": np.full((rows, K), 255, np.uint8)})[0]


@pytest.mark.parametrize("rows", [1, 5, 32])
def test_it_tells_what_another_kernel_does(rows: int) -> None:
    assert bool(np.all(largest_sums(rows, 127) == 250)) is adds_products_exactly()


@pytest.mark.parametrize("rows", [1, 5, 32])
def test_seven_bits_are_exact_everywhere(rows: int) -> None:
    np.testing.assert_array_equal(largest_sums(rows, 63), np.uint8(250))


def test_it_agrees_with_the_kernel_of_the_operating_system() -> None:
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text(encoding="utf-8").split() if cpu.is_file() else []
    if "avx2" not in flags:
        pytest.skip("no x86 under Linux, or a very old one")
    assert adds_products_exactly() is ("avx512_vnni" in flags or "avx_vnni" in flags)


def test_it_is_quick_and_asked_once() -> None:
    seconds = []
    for _ in range(5):
        adds_products_exactly.cache_clear()
        start = time.process_time()
        first = adds_products_exactly()
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.05
    assert adds_products_exactly() is first
    assert adds_products_exactly.cache_info().misses == 1
