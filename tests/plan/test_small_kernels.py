from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from onnxq.graph.constants import Constant, iterate_constants
from onnxq.plan.small_kernels import (
    HALF_BUDGET,
    INTEGER_BUDGET,
    MOST_ELEMENTS_PER_CHANNEL,
    elements_per_channel,
    is_small_kernel,
)
from onnxq.rules.roles import Form
from onnxq.schemes import Scheme, WeightType
from tests.models import float_weight, make_model, to_ir
from tests.plan.planning import conv_model, plan_tensor

KERNEL_ELEMENTS = 32 * 9


def _constant(nodes: str, inputs: str, weights: Mapping[str, np.ndarray]) -> Constant:
    model = to_ir(make_model(nodes, inputs, "float[] y", weights))
    (found,) = (one for one in iterate_constants(model) if one.name == "w")
    return found


@pytest.mark.parametrize(
    ("nodes", "inputs", "shape", "expected"),
    [
        pytest.param(
            "y = Conv<group = 8>(x, w)", "float[1, 8, 9, 9] x", (8, 1, 3, 3), 9, id="depthwise"
        ),
        pytest.param("y = Conv(x, w)", "float[1, 4, 9, 9] x", (8, 4, 3, 3), 36, id="full"),
        pytest.param(
            "y = ConvTranspose(x, w)", "float[1, 4, 9, 9] x", (4, 8, 3, 3), 36, id="transposed"
        ),
        pytest.param("y = Gather(w, i)", "int64[N] i", (100, 8), 8, id="table"),
        pytest.param("y = MatMul(x, w)", "float[N, 8] x", (8, 100), None, id="integer_kernel"),
        pytest.param("y = Add(x, w)", "float[8, 8] x", (8, 8), None, id="no_weight"),
        pytest.param(
            "y = Gather(w, i) z = Add(y, w)", "int64[N] i", (8, 8), None, id="a_reader_more"
        ),
    ],
)
def test_elements_per_channel(
    nodes: str, inputs: str, shape: tuple[int, ...], expected: int | None, rng: np.random.Generator
) -> None:
    constant = _constant(nodes, inputs, {"w": float_weight(rng, shape)})
    assert elements_per_channel(constant) == expected


@pytest.mark.parametrize("taps", [MOST_ELEMENTS_PER_CHANNEL, MOST_ELEMENTS_PER_CHANNEL + 1])
def test_the_limit(taps: int, rng: np.random.Generator) -> None:
    weight = float_weight(rng, (8, 1, taps))
    constant = _constant("y = Conv<group = 8>(x, w)", "float[1, 8, 99] x", {"w": weight})
    assert is_small_kernel(constant) is (taps == MOST_ELEMENTS_PER_CHANNEL)


# 32 kernels of 9 elements. fp16 takes a byte more for each than int8, float32 two more than fp16;
# what they may cost is a share of the bytes of all weights, 4 (32 * 9 + others).
@pytest.mark.parametrize(
    ("others", "within"),
    [(3328, True), (3296, False), (0, False)],
    ids=["within_the_budget", "beyond_the_budget", "the_whole_model"],
)
class TestBudget:
    def test_an_int8_model_keeps_them_in_fp16(
        self, others: int, within: bool, rng: np.random.Generator
    ) -> None:
        assert within is (INTEGER_BUDGET * 4 * (KERNEL_ELEMENTS + others) >= KERNEL_ELEMENTS)
        model = conv_model(float_weight(rng, (32, 1, 3, 3)), group=32, extra=others)
        found = plan_tensor(model, "k")
        if within:
            assert found.scheme == Scheme(type=WeightType.FP16)
            assert "int8 saves little with 9 elements a scale" in found.reason
        else:
            assert found.scheme == Scheme(type=WeightType.INT8, axes=(0,))

    @pytest.mark.parametrize("weights", ["fp16", "bf16"])
    def test_a_half_model_keeps_them_in_float(
        self, others: int, within: bool, weights: str, rng: np.random.Generator
    ) -> None:
        assert within is (HALF_BUDGET * 4 * (KERNEL_ELEMENTS + others) >= 2 * KERNEL_ELEMENTS)
        model = conv_model(float_weight(rng, (32, 1, 3, 3)), group=32, extra=others)
        found = plan_tensor(model, "k", weights=weights)
        if within:
            assert found.best_form is Form.FLOAT
            assert "a small kernel" in found.reason
        else:
            assert found.scheme == Scheme(type=WeightType(weights))


def test_larger_kernels_do_not_count_as_small(rng: np.random.Generator) -> None:
    model = conv_model(float_weight(rng, (32, 1, 3, 11)), group=32, extra=16 * 4000)
    assert plan_tensor(model, "k").scheme == Scheme(type=WeightType.INT8, axes=(0,))


def test_without_a_scale_for_each_kernel_there_is_no_small_kernel(rng: np.random.Generator) -> None:
    model = conv_model(float_weight(rng, (32, 1, 3, 3)), group=32, extra=16 * 4000)
    assert plan_tensor(model, "k", per_channel=False).scheme == Scheme(type=WeightType.INT8)
