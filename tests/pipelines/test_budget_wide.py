"""Budgets that are met with blocks in 16 bits, where the target has them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxq
from onnxq.algorithms.mixes import Mixable
from onnxq.algorithms.mixing import Width
from onnxq.errors import BudgetError, UnsupportedModelError
from onnxq.pipelines import QuantizationResult
from onnxq.pipelines.budget import TradeOff
from onnxq.pipelines.workshop import Workshop
from tests.apply.calibrated_models import images, quantize_static, weights
from tests.apply.quantized import Quantized
from tests.models import make_model

IMAGE = "float[N, 24, 8, 8]"
LAYERS = ("a", "b", "c", "d")


def _build(opset: int = 17) -> onnx.ModelProto:
    """Four layers; one scale for the tensor cannot serve the second weight, which has outliers."""
    constants = weights(**dict.fromkeys(("w1", "w2", "w3", "w4"), (24, 24, 1, 1)))
    constants["w2"][0, :, 0, 0] *= 200.0
    return make_model(
        """[a] p = Conv(x, w1) r = Relu(p) [b] q = Conv(r, w2) s = Relu(q)
           [c] t = Conv(s, w3) u = Relu(t) [d] v = Conv(u, w4) y = Neg(v)""",
        f"{IMAGE} x",
        f"{IMAGE} y",
        constants,
        opset=opset,
    )


def _quantize(folder: Path, name: str = "one", *, opset: int = 17, **options: Any) -> Quantized:
    made = folder / name
    made.mkdir()
    options = {"target": "onnx", "per_channel": False, **options}
    return quantize_static(_build(opset), made, images(10), **options)


def _curve(result: QuantizationResult) -> tuple[TradeOff, ...]:
    assert result.calibration is not None
    return result.calibration.curve


def _find_best(result: QuantizationResult) -> TradeOff:
    return max((one for one in _curve(result) if one.is_met), key=lambda one: one.kept_gain)


def _measure_plainly(folder: Path, **options: Any) -> float:
    """SQNR in dB with everything in 8 bits."""
    result = _quantize(folder, "plain", **options).result
    assert result.verification is not None
    found = result.verification.outputs[0].sqnr_db
    assert found is not None
    return found


def _types(model: onnx.ModelProto) -> Counter[str]:
    """Element types of the integers that are stored."""
    kinds = (onnx.TensorProto.DataType.Name(one.data_type) for one in model.graph.initializer)
    return Counter(kind for kind in kinds if "INT" in kind)


@pytest.mark.parametrize("opset", [17, 21])
@pytest.mark.parametrize("accuracy", ["fast", "balanced"])
def test_the_loud_block_has_16_bits(opset: int, accuracy: str, tmp_path: Path) -> None:
    options = {"opset": opset, "accuracy": accuracy}
    wanted = _measure_plainly(tmp_path, **options) + 6.0
    found = _quantize(tmp_path, min_sqnr=wanted, **options)
    best = _find_best(found.result)
    assert "b" in best.wide and best.kept_float == ()
    assert best.kept_gain == pytest.approx(1.0 - 0.5 * len(best.wide) / 4, abs=0.02)
    assert best.sqnr_db is not None and best.sqnr_db >= wanted
    onnx.checker.check_model(str(found.path), full_check=True)
    assert found.model.opset_import[0].version == 21
    assert (found.result.float_opset, found.result.opset) == (opset, 21)
    plan = found.result.plan
    schemes = {one.name: str(one.scheme) for one in plan.changes}
    assert schemes == {
        f"w{at}": "int16 per tensor" if name in best.wide else "int8 per tensor"
        for at, name in enumerate(LAYERS, 1)
    }
    # What is reported of the file is what was measured of the best point.
    assert found.result.verification is not None
    (output,) = found.result.verification.outputs
    assert output.sqnr_db == pytest.approx(best.sqnr_db, abs=1e-6)


def test_16_bits_keep_more_than_floats_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = _measure_plainly(tmp_path) + 6.0
    wide = _find_best(_quantize(tmp_path, "wide", min_sqnr=wanted).result)
    monkeypatch.setattr(onnxq.plan.options.StaticOptions, "can_widen", lambda *_: False)
    without = _quantize(tmp_path, "without", min_sqnr=wanted)
    assert _find_best(without.result).wide == ()
    assert _find_best(without.result).kept_gain < wide.kept_gain
    assert without.model.opset_import[0].version == 17
    assert not {"UINT16", "INT16"} & _types(without.model).keys()


def test_a_target_without_16_bits_never_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its search does nothing for them."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("16 bits were prepared")

    wanted = _measure_plainly(tmp_path, target="ort-cpu") + 3.0
    monkeypatch.setattr(Mixable, "follow", refuse)
    monkeypatch.setattr(Workshop, "observe", refuse)
    found = _quantize(tmp_path, target="ort-cpu", min_sqnr=wanted)
    assert all(one.wide == () for one in _curve(found.result))
    assert _types(found.model).keys() <= {"UINT8", "INT8", "INT32", "INT64"}
    assert found.model.opset_import[0].version == 17


@pytest.mark.parametrize(
    "options",
    [{"activations": "uint16"}, {"weights": "int16"}, {"format": "qoperator"}],
    ids=lambda one: next(iter(one)),
)
def test_other_types_that_are_asked_for_get_no_16_bits_besides(
    options: dict[str, str], tmp_path: Path
) -> None:
    wanted = _measure_plainly(tmp_path, **options) + 3.0
    found = _quantize(tmp_path, min_sqnr=wanted, **options)
    assert all(one.wide == () for one in _curve(found.result))


def test_a_limit_that_needs_no_16_bits_keeps_the_operator_set(tmp_path: Path) -> None:
    found = _quantize(tmp_path, min_sqnr=1.0)
    assert (found.result.opset, _curve(found.result)) == (17, ())


def test_a_model_that_cannot_be_raised_is_searched_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise UnsupportedModelError("no")

    wanted = _measure_plainly(tmp_path) + 6.0
    monkeypatch.setattr("onnxq.algorithms.mixes.raise_copy", refuse)
    best = _find_best(_quantize(tmp_path, min_sqnr=wanted).result)
    assert best.kept_float and not best.wide


def test_what_16_bits_cannot_meet_either_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"with \d of 4 blocks in float, \d in 16 bits and \d+ %"):
        _quantize(tmp_path, min_sqnr=300.0)
    assert sorted(one.name for one in (tmp_path / "one").iterdir()) == ["model.onnx", "samples"]


def test_an_interrupted_search_keeps_the_best_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = _measure_plainly(tmp_path) + 6.0
    whole = _curve(_quantize(tmp_path, "whole", min_sqnr=wanted).result)
    assert len(whole) > 2
    original, tried = Mixable.mix, []

    def interrupt(mixable: Mixable, widths: tuple[Width, ...]) -> object:
        tried.append(widths)
        # Four blocks alone, all in 16 bits, and the first choices up to one that meets the limit.
        if len(tried) > 5 + next(at for at, one in enumerate(whole) if one.is_met):
            raise KeyboardInterrupt
        return original(mixable, widths)

    monkeypatch.setattr(Mixable, "mix", interrupt)
    found = _quantize(tmp_path, "interrupted", min_sqnr=wanted)
    assert _curve(found.result) == whole[: len(_curve(found.result))]
    assert _find_best(found.result).wide
    assert "UINT16" in _types(found.model)


def test_the_same_budget_gives_the_same_bytes(tmp_path: Path) -> None:
    wanted = _measure_plainly(tmp_path) + 6.0
    one, two = (
        _quantize(tmp_path, name, accuracy="balanced", min_sqnr=wanted) for name in ("one", "two")
    )
    assert "UINT16" in _types(one.model)
    assert one.model.SerializeToString() == two.model.SerializeToString()


def test_ranges_from_a_file_serve_16_bits_too(tmp_path: Path) -> None:
    wanted = _measure_plainly(tmp_path) + 6.0
    saved = tmp_path / "ranges.json"
    first = _quantize(tmp_path, "first", min_sqnr=wanted, save_ranges=saved)
    again = _quantize(tmp_path, "again", min_sqnr=wanted, ranges=saved, method="auto")
    assert _find_best(again.result).wide == _find_best(first.result).wide
    assert again.model.SerializeToString() == first.model.SerializeToString()


def test_plain_data_of_the_curve(tmp_path: Path) -> None:
    wanted = _measure_plainly(tmp_path) + 6.0
    data = _quantize(tmp_path, min_sqnr=wanted).result.to_json()
    points = data["calibration"]["trade_off"]
    assert points[0]["kept_float"] == points[0]["wide"] == []
    assert any("b" in point["wide"] for point in points)
    assert all(not set(point["wide"]) & set(point["kept_float"]) for point in points)
    assert np.all([0.0 <= point["kept_gain"] <= 1.0 + 1e-9 for point in points])


def test_bodies_and_attributes_that_became_inputs_follow_to_newer_operators(tmp_path: Path) -> None:
    """The axes of a ReduceMax are an attribute up to opset 17."""
    constants = weights(**dict.fromkeys(("w1", "w2", "w3", "w4"), (24, 24, 1, 1)))
    constants["w2"][0, :, 0, 0] *= 200.0
    constants["zero"] = np.zeros((), np.float32)
    model = make_model(
        """[a] p = Conv(x, w1) r = Relu(p) z = ReduceMax<axes = [0, 1, 2, 3], keepdims = 0>(r)
           g = Greater(z, zero)
           m = If (g) <then_branch = one () => (float[N, 24, 8, 8] t)
               {[b] q = Conv(r, w2) s = Relu(q) [c] t = Conv(s, w3)},
               else_branch = two () => (float[N, 24, 8, 8] f) {f = Identity(r)}>
           [d] v = Conv(m, w4) y = Neg(v)""",
        f"{IMAGE} x",
        f"{IMAGE} y",
        constants,
    )
    found = quantize_static(
        model, tmp_path, images(10), target="onnx", accuracy="balanced", min_sqnr=60.0
    )
    assert any("then_branch/b" in name for name in _find_best(found.result).wide)
    onnx.checker.check_model(str(found.path), full_check=True)
