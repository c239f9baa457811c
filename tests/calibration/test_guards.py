"""Tensors that one scale cannot carry stay float, and so does what reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxq.calibration.guards import WIDEST_RATIO
from tests.apply.calibrated_models import (
    IMAGE,
    calibrated_operators,
    images,
    quantize_static,
    reasons,
    weights,
)
from tests.apply.quantized import count_operators
from tests.models import make_model


def joined(operator: str, factor: float):
    """Two branches of which one is ``factor`` times the other, joined, and read by a layer."""
    constants = weights(w1=(24, 24, 1, 1), w2=(24, 24, 1, 1), w4=(24, 48, 1, 1))
    constants["w2"] = constants["w1"] * np.float32(factor)
    if operator == "Add":
        constants["w4"] = constants["w4"][:, :24]
    call = f"{operator}<axis = 1>(a, e)" if operator == "Concat" else f"{operator}(a, e)"
    return make_model(
        f"[first] a = Conv(x, w1) [side] e = Conv(x, w2) [join] c = {call} "
        "[reader] d = Conv(c, w4) [after] f = Conv(d, w1) y = Neg(f)",
        f"{IMAGE} x",
        f"{IMAGE} y",
        constants,
        opset=21,
    )


@pytest.mark.parametrize("operator", ["Concat", "Add"])
@pytest.mark.parametrize(
    ("factor", "calibrated"), [(1, True), (60, True), (70, False), (1000, False), (1e-3, False)]
)
def test_parts_that_are_far_apart(
    operator: str, factor: float, calibrated: bool, tmp_path: Path
) -> None:
    assert 60 < WIDEST_RATIO < 70
    quantized = quantize_static(joined(operator, factor), tmp_path)
    assert (operator in calibrated_operators(quantized)) is calibrated
    found = reasons(quantized)
    assert ("join" in found) is not calibrated
    if calibrated:
        return
    assert "one scale for" in found["join"]
    assert "would lose the latter" in found["join"]
    small, large = ("e", "a") if factor < 1 else ("a", "e")
    assert f"'{large}' (up to" in found["join"]
    assert f"and '{small}'" in found["join"]
    # The sum can be quantized; the concatenation cannot, and its reader stays float, too.
    assert ("reader" in found) is (operator == "Concat")
    assert "after" not in found


@pytest.mark.parametrize("operator", ["Concat", "Add"])
def test_part_that_is_always_zero_decides_nothing(operator: str, tmp_path: Path) -> None:
    quantized = quantize_static(joined(operator, 0.0), tmp_path)
    assert operator in calibrated_operators(quantized)


def test_small_part_survives(tmp_path: Path) -> None:
    """Boxes in pixels beside scores of 0 to 1, which a layer reads."""
    constants = weights(w1=(24, 24, 1, 1), w2=(24, 24, 1, 1), w4=(24, 48, 1, 1))
    constants["w2"] *= 1000
    constants["w4"][:, 24:] = 0
    model = make_model(
        "[first] a = Conv(x, w1) s = Sigmoid(a) [side] e = Conv(x, w2) "
        "c = Concat<axis = 1>(s, e) [reader] d = Conv(c, w4) [after] f = Conv(d, w1) y = Neg(f)",
        f"{IMAGE} x",
        f"{IMAGE} y",
        constants,
        opset=21,
    )
    quantized = quantize_static(model, tmp_path)
    feeds = images(1)[0]
    expected, actual = quantized.run_float(feeds)[0], quantized.run(feeds)[0]
    # In one scale with values of 3000 a score would have no level but 0. Three tensors of 8 bits
    # leave 30 dB of it, half of which is far from none.
    assert np.linalg.norm(actual - expected) < 10 ** (-15 / 20) * np.linalg.norm(expected)
    assert "QLinearConcat" not in count_operators(quantized.optimized)


def test_movement_of_an_overloaded_tensor_stays_float(tmp_path: Path) -> None:
    constants = weights(w1=(24, 24, 1, 1), w2=(24, 24, 1, 1), w4=(24, 48, 1, 1))
    constants["w2"] = constants["w1"] * 1000
    model = make_model(
        "[first] a = Conv(x, w1) [side] e = Conv(x, w2) [join] c = Concat<axis = 1>(a, e) "
        "[pool] p = MaxPool<kernel_shape = [2, 2]>(c) [reader] d = Conv(p, w4) y = Neg(d)",
        f"{IMAGE} x",
        "float[N, 24, 7, 7] y",
        constants,
        opset=21,
    )
    quantized = quantize_static(model, tmp_path)
    found = reasons(quantized)
    assert {"join", "reader"} <= set(found)
    assert "MaxPool" not in calibrated_operators(quantized)
    names = {one.name for one in quantized.result.plan.calibration.activations}
    assert "c" not in names


def test_overload_is_seen_through_nested_concatenations(tmp_path: Path) -> None:
    constants = weights(w1=(24, 24, 1, 1), w2=(24, 24, 1, 1), w4=(24, 72, 1, 1))
    constants["w2"] = constants["w1"] * 1000
    model = make_model(
        "[first] a = Conv(x, w1) [side] e = Conv(x, w2) [more] g = Conv(x, w1) "
        "[join] c = Concat<axis = 1>(a, e) [outer] h = Concat<axis = 1>(g, c) "
        "[reader] d = Conv(h, w4) y = Neg(d)",
        f"{IMAGE} x",
        f"{IMAGE} y",
        constants,
        opset=21,
    )
    quantized = quantize_static(model, tmp_path)
    assert {"join", "outer", "reader"} <= set(reasons(quantized))
    assert "Concat" not in calibrated_operators(quantized)
