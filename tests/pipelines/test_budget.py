"""Budgets: met with little in float, or refused with what was reached."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxq.algorithms.mixes import Mixable
from onnxq.errors import BudgetError, UsageError
from onnxq.pipelines.budget import Budget, TradeOff
from onnxq.pipelines.trials import Score
from tests.apply.calibrated_models import images, quantize_static, weights
from tests.apply.quantized import TARGETS, Quantized
from tests.models import make_model

IMAGE = "float[N, 24, 8, 8]"


def _build() -> onnx.ModelProto:
    """Four layers; one scale for the tensor cannot serve the second weight, which has outliers."""
    constants = weights(**dict.fromkeys(("w1", "w2", "w3", "w4"), (24, 24, 1, 1)))
    constants["w2"][0, :, 0, 0] *= 200.0
    return make_model(
        """[a] p = Conv(x, w1) r = Relu(p) [b] q = Conv(r, w2) s = Relu(q)
           [c] t = Conv(s, w3) u = Relu(t) [d] v = Conv(u, w4) y = Neg(v)""",
        f"{IMAGE} x",
        f"{IMAGE} y",
        constants,
        opset=21,
    )


def _curve(quantized: Quantized) -> tuple[TradeOff, ...]:
    found = quantized.result.calibration
    assert found is not None
    return found.curve


def _quantize(folder: Path, name: str = "one", **options: Any) -> Quantized:
    made = folder / name
    made.mkdir()
    return quantize_static(_build(), made, images(10), per_channel=False, **options)


def test_a_budget_that_is_met_costs_nothing(tmp_path: Path) -> None:
    plain = _quantize(tmp_path, "plain")
    found = _quantize(tmp_path, "budget", min_sqnr=1.0)
    assert _curve(found) == ()
    assert found.model.SerializeToString() == plain.model.SerializeToString()


def test_the_result_keeps_the_most_of_what_met_the_budget(tmp_path: Path) -> None:
    result = sqnr_db_of(_quantize(tmp_path, "plain"))
    wanted = result + 3.0
    found = _quantize(tmp_path, "budget", min_sqnr=wanted)
    curve = _curve(found)
    assert not curve[0].is_met and curve[0].kept_float == ()
    meeting = [one for one in curve if one.is_met]
    best = max(meeting, key=lambda one: one.kept_gain)
    assert 0.0 < best.kept_gain < 1.0
    assert best.sqnr_db is not None and best.sqnr_db >= wanted
    # What is reported of the file itself is what was measured of the best point.
    assert sqnr_db_of(found) == pytest.approx(best.sqnr_db, abs=1e-6)
    convolutions = [one for one in found.model.graph.node if one.op_type == "Conv"]
    assert len(convolutions) == 4
    calibration = found.result.plan.calibration
    assert calibration is not None
    assert 0 < len([one for one in calibration.nodes if one.operator == "Conv"]) < 4


def sqnr_db_of(quantized: Quantized) -> float:
    verification = quantized.result.verification
    assert verification is not None
    (output,) = verification.outputs
    assert output.sqnr_db is not None
    return output.sqnr_db


def test_what_cannot_be_met_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"cannot be met .* dB of 300 dB, with \d of \d blocks"):
        _quantize(tmp_path, min_sqnr=300.0)
    assert sorted(one.name for one in (tmp_path / "one").iterdir()) == ["model.onnx", "samples"]
    assert BudgetError.exit_code == 1


def test_a_plan_without_calibrated_nodes_is_refused_likewise(tmp_path: Path) -> None:
    """Only what is stored small: there are no blocks of integers to choose among."""
    rng = np.random.default_rng(0)
    samples = [{"i": rng.integers(0, 50, 8)} for _ in range(10)]
    model = make_model(
        "e = Gather(t, i) y = Neg(e)", "int64[N] i", "float[N, 96] y", weights(t=(50, 96)), opset=21
    )
    with pytest.raises(BudgetError, match="cannot be met"):
        quantize_static(model, tmp_path, samples, min_sqnr=300.0)


def test_weights_that_are_only_stored_small_are_refused_likewise(tmp_path: Path) -> None:
    """There are no blocks of integers to choose among."""
    model = make_model(
        "h = Mul(x, w) y = Neg(h)",
        "float[N, 96] x",
        "float[N, 96] y",
        weights(w=(80, 96)),
        opset=21,
    )
    rng = np.random.default_rng(0)
    samples = [{"x": rng.standard_normal((80, 96)).astype(np.float32)} for _ in range(10)]
    with pytest.raises(BudgetError, match="cannot be met"):
        quantize_static(model, tmp_path, samples, min_sqnr=300.0)


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({"min_sqnr": 20.0}, "no output holds floats, so --min-sqnr has nothing to measure"),
        ({"min_agreement": 90.0}, "no output holds scores, so --min-agreement has nothing"),
        ({"max_accuracy_drop": 9.0}, "no output holds scores, so --max-accuracy-drop has nothing"),
    ],
    ids=["sqnr", "agreement", "drop"],
)
def test_a_limit_that_nothing_measures_is_not_met(
    limit: dict[str, float], said: str, tmp_path: Path
) -> None:
    """The output holds integers, which are equal in both models."""
    model = make_model(
        "[a] p = Conv(x, w1) r = Relu(p) [b] q = Conv(r, w2) m = Mul(q, big) y = Cast<to = 6>(m)",
        f"{IMAGE} x",
        "int32[N, 24, 8, 8] y",
        {**weights(w1=(24, 24, 1, 1), w2=(24, 24, 1, 1)), "big": np.float32(0)},
        opset=21,
    )
    with pytest.raises(BudgetError, match=said):
        quantize_static(model, tmp_path, images(10), **limit)


def test_no_choice_is_measured_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = _quantize(tmp_path, min_sqnr=sqnr_db_of(_quantize(tmp_path, "plain")) + 3.0)
    kept = [one.kept_float for one in _curve(found)]
    assert len(kept) > 2
    assert len(set(kept)) == len(kept)


def test_the_same_budget_gives_the_same_bytes(tmp_path: Path) -> None:
    wanted = sqnr_db_of(_quantize(tmp_path, "plain")) + 3.0
    one, two = (
        _quantize(tmp_path, name, accuracy="balanced", min_sqnr=wanted) for name in ("one", "two")
    )
    assert one.model.SerializeToString() == two.model.SerializeToString()


@pytest.mark.parametrize("target", TARGETS)
def test_time_that_is_up_ends_the_search(
    target: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tried: list[object] = []
    original = Mixable.mix
    monkeypatch.setattr(Mixable, "mix", lambda *given: tried.append(given) or original(*given))
    with pytest.raises(BudgetError, match="or more time"):
        _quantize(tmp_path, target=target, min_sqnr=300.0, time_limit=1e-9)
    assert tried == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"min_agreement": 101.0}, "--min-agreement 101 is no share in percent"),
        ({"min_agreement": 0.0}, "--min-agreement 0 is no share in percent"),
        ({"min_sqnr": math.nan}, "--min-sqnr nan is no number of dB"),
        ({"min_sqnr": 9.0, "time_limit": 0.0}, "--time-limit 0 is no time in seconds"),
        ({"time_limit": 9.0}, "--time-limit is for the search"),
        ({"max_accuracy_drop": -1.0}, "--max-accuracy-drop -1 is no number of points"),
        ({"labels": "y.json"}, "--labels has no meaning without --max-accuracy-drop"),
    ],
    ids=["over", "zero", "nan", "no-time", "no-limit", "negative", "labels"],
)
def test_limits_without_a_meaning_are_refused(
    options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        quantize_static(_build(), tmp_path, images(1), **options)


@pytest.mark.parametrize(
    ("limits", "score", "is_met"),
    [
        ({"min_sqnr_db": 30.0}, Score(30.0), True),
        ({"min_sqnr_db": 30.0}, Score(29.9), False),
        ({"min_sqnr_db": 30.0}, Score(-math.inf), False),
        ({"min_sqnr_db": 30.0}, Score(math.inf), True),
        ({"min_agreement": 0.9}, Score(5.0, 0.9), True),
        ({"min_agreement": 0.9}, Score(90.0, 0.8), False),
        ({"min_agreement": 0.9}, Score(90.0), False),
        ({"max_accuracy_drop": 1.0}, Score(5.0, 0.9, 1.0), True),
        ({"max_accuracy_drop": 1.0}, Score(5.0, 0.9, 1.1), False),
        ({"max_accuracy_drop": 1.0}, Score(5.0), False),
        ({"min_sqnr_db": 30.0, "min_agreement": 0.9}, Score(31.0, 0.8), False),
    ],
)
def test_when_a_budget_is_met(limits: dict[str, float], score: Score, is_met: bool) -> None:
    assert Budget(**limits).is_met(score) is is_met
