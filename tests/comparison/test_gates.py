"""Gates: met, not met, and with nothing to measure."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.comparison.gates import GATE_RULES, check_gates, check_limits, read_limit
from onnxq.comparison.results import ComparisonReport, Footprint, Gate, Latency, TaskMetric
from onnxq.errors import UsageError
from onnxq.verification.comparison import OutputComparison

TOP_1 = TaskMetric(name="top-1", float_value=0.983, quantized_value=0.98, samples=1000)
OWN = TaskMetric(name="m:f", float_value=30.0, quantized_value=28.0, samples=9, is_share=False)
LATENCY = Latency(
    threads=2,
    rounds=5,
    samples=1,
    float_ms=6.0,
    quantized_ms=4.0,
    float_spread_ms=(5.0, 7.0),
    quantized_spread_ms=(3.0, 5.0),
)
SCORES = OutputComparison("scores", 20.0, 0.99, 0.1, None, 8, 0.9)
BOXES = OutputComparison("boxes", 15.0, 0.995, 0.1, None, 8)
IDS = OutputComparison("ids", None, None, None, 0.5, 8)


def make_report(**changes: Any) -> ComparisonReport:
    values: dict[str, Any] = {
        "float_path": Path("float.onnx"),
        "quantized_path": Path("quantized.onnx"),
        "data": "data",
        "samples": 8,
        "outputs": (SCORES, BOXES, IDS),
        "metrics": (TOP_1,),
        "latency": LATENCY,
        "float_footprint": Footprint(size_bytes=400),
        "quantized_footprint": Footprint(size_bytes=100),
    }
    return ComparisonReport(**(values | changes))


def check(name: str, limit: float, report: ComparisonReport | None = None) -> Gate:
    (gate,) = check_gates(report or make_report(), {name: limit})
    assert gate.name == name
    json.dumps(gate.to_json(), allow_nan=False)
    return gate


REACHED = {
    "min-sqnr": (15.0, 15.1, "boxes"),
    "min-cosine": (0.99, 0.991, "scores"),
    "min-agreement": (0.9, 0.91, "scores"),
    "min-accuracy": (0.98, 0.981, "top-1"),
    "max-accuracy-drop": (0.31, 0.29, "top-1"),
    "min-speedup": (1.5, 1.51, "2 threads"),
    "max-size-ratio": (0.25, 0.249, "quantized"),
    "max-latency-ms": (4.0, 3.99, "2 threads"),
}


def test_every_rule_is_tested() -> None:
    assert set(REACHED) == set(GATE_RULES)
    assert all(name == rule.name for name, rule in GATE_RULES.items())


@pytest.mark.parametrize("name", REACHED)
def test_limit_that_is_just_met(name: str) -> None:
    met, _, detail = REACHED[name]
    gate = check(name, met)
    assert gate.is_met
    assert gate.reached == pytest.approx(met, abs=0.02)
    assert gate.limit == met
    assert detail in gate.detail
    assert gate.unit == GATE_RULES[name].unit


@pytest.mark.parametrize("name", REACHED)
def test_limit_that_is_just_missed(name: str) -> None:
    assert not check(name, REACHED[name][1]).is_met


NOTHING = make_report(outputs=(IDS,), metrics=(), latency=None)


@pytest.mark.parametrize("name", sorted(set(REACHED) - {"max-size-ratio"}))
def test_nothing_to_measure_is_not_met(name: str) -> None:
    gate = check(name, 0.5, NOTHING)
    assert (gate.reached, gate.is_met) == (None, False)
    assert gate.detail


@pytest.mark.parametrize("name", ["min-agreement", "min-accuracy"])
@pytest.mark.parametrize(("limit", "share"), [(0.5, 0.5), (50.0, 0.5), (1.0, 1.0), (100.0, 1.0)])
def test_shares_in_percent(name: str, limit: float, share: float) -> None:
    assert check(name, limit).limit == share


@pytest.mark.parametrize("name", ["min-agreement", "min-accuracy"])
@pytest.mark.parametrize("limit", [-0.1, -5.0, 100.1, 1e9])
def test_shares_that_are_none(name: str, limit: float) -> None:
    with pytest.raises(UsageError, match="is no share"):
        check(name, limit)


def test_limits_of_a_metric_that_is_no_share() -> None:
    report = make_report(metrics=(OWN,))
    assert check("min-accuracy", 28.0, report).is_met
    assert not check("min-accuracy", 29.0, report).is_met
    assert not check("min-accuracy", 500.0, report).is_met
    assert check("min-accuracy", -3.0, report).is_met
    assert check("max-accuracy-drop", 5.0, report).reached is None


def test_labels_decide_the_drop_beside_an_own_metric() -> None:
    report = make_report(metrics=(OWN, TOP_1))
    assert check("max-accuracy-drop", 0.5, report).detail == "top-1"
    assert check("min-accuracy", 20.0, report).detail == "m:f"


@pytest.mark.parametrize("name", REACHED)
@pytest.mark.parametrize("limit", [math.nan, math.inf, -math.inf])
def test_limit_that_is_no_number(name: str, limit: float) -> None:
    for refuse in (lambda: check(name, limit), lambda: check_limits({name: limit})):
        with pytest.raises(UsageError, match=f"--{name}"):
            refuse()


def test_rule_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match="known gates: min-sqnr, "):
        check("min-sqrn", 1.0)


def test_gates_come_in_the_order_of_the_rules() -> None:
    limits = dict.fromkeys(reversed(GATE_RULES), 0.5)
    assert [gate.name for gate in check_gates(make_report(), limits)] == list(GATE_RULES)
    assert check_gates(make_report(), {}) == ()


def test_report_is_passed_where_every_gate_is_met() -> None:
    met, missed = check("min-sqnr", 1.0), check("min-sqnr", 99.0)
    assert make_report().is_passed
    assert make_report(gates=(met,)).is_passed
    assert not make_report(gates=(met, missed)).is_passed
    assert make_report(gates=(missed,)).to_json()["passed"] is False


def test_identical_outputs_meet_any_sqnr() -> None:
    same = OutputComparison("y", math.inf, 1.0, 0.0, None, 8)
    assert check("min-sqnr", 1e6, make_report(outputs=(same,))).is_met


def test_metric_that_is_nan_is_not_met() -> None:
    broken = TaskMetric(name="m:f", float_value=1.0, quantized_value=math.nan, samples=1)
    assert not check("min-accuracy", 0.0, make_report(metrics=(broken,))).is_met


def test_gain_in_accuracy_meets_any_drop() -> None:
    gain = TaskMetric(name="top-1", float_value=0.9, quantized_value=0.95, samples=20)
    gate = check("max-accuracy-drop", 0.0, make_report(metrics=(gain,)))
    assert gate.is_met
    assert gate.reached == pytest.approx(-5.0)


@given(hits=st.integers(0, 1000), limit=st.integers(0, 1000))
def test_accuracy_in_whole_samples(hits: int, limit: int) -> None:
    """A limit in percent of one digit decides as whole numbers do: no rounding in between."""
    metric = TaskMetric(name="top-1", float_value=1.0, quantized_value=hits / 1000, samples=1000)
    report = make_report(metrics=(metric,))
    if limit > 10:
        assert check("min-accuracy", float(f"{limit / 10:.1f}"), report).is_met == (hits >= limit)
    drop = 1000 - hits
    assert check("max-accuracy-drop", float(f"{limit / 10:.1f}"), report).is_met == (drop <= limit)


@given(share=st.floats(0.0, 1.0))
def test_shares_are_taken_as_they_are(share: float) -> None:
    assert read_limit(GATE_RULES["min-agreement"], share, is_share=True) == share
    assert read_limit(GATE_RULES["min-sqnr"], 100 * share, is_share=False) == 100 * share
