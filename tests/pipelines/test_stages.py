"""Stages: kept where they measure better on samples held back, dropped where they do not."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import onnxq
from onnxq.algorithms.recipe import Recipe
from onnxq.algorithms.visits import LayerChange, LayerSample, Visit
from onnxq.errors import ExecutionError, UsageError
from onnxq.pipelines import improve, stages
from onnxq.pipelines.stages import Stage, StageReport
from onnxq.pipelines.workshop import MOST_SAMPLES, Workshop
from onnxq.samples import held_back
from tests.apply.calibrated_models import images, quantize_static, weights
from tests.apply.quantized import Quantized
from tests.models import make_model

IMAGE = "float[N, 24, 8, 8]"
MODEL = make_model(
    "[a] p = Conv(x, w1, b1) r = Relu(p) [b] q = Conv(r, w2, b2) y = Neg(q)",
    f"{IMAGE} x",
    f"{IMAGE} y",
    weights(w1=(24, 24, 1, 1), b1=(24,), w2=(24, 24, 1, 1), b2=(24,)),
    opset=21,
)


def _reports(quantized: Quantized) -> dict[str, StageReport]:
    found = quantized.result.calibration
    assert found is not None
    return {one.name: one for one in found.stages}


def _use(monkeypatch: pytest.MonkeyPatch, *wanted: Stage) -> None:
    monkeypatch.setattr(improve, "LEVELS", {**stages.LEVELS, "best": wanted})


def _folder(parent: Path, name: str) -> Path:
    made = parent / name
    made.mkdir()
    return made


def _scale(recipe: Recipe, factor: float) -> Recipe:
    ranges = {value: (factor * low, factor * high) for value, (low, high) in recipe.ranges.items()}
    return replace(recipe, ranges=ranges)


def _widen(_workshop: Workshop, recipe: Recipe) -> Mapping[str, Recipe]:
    return {"wide": _scale(recipe, 4.0)}


def test_what_is_learnt_by_heart_is_dropped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ranges that fit the samples to learn from exactly, and clip those that are held back."""
    samples = images(10)
    for at in filter(held_back, range(10)):
        samples[at]["x"] *= np.float32(3)
    learnt: list[float] = []

    def fit(workshop: Workshop, recipe: Recipe) -> Mapping[str, Recipe]:
        proposal = _scale(recipe, 0.25)
        trials = replace(workshop.trials, evaluation=workshop.part)
        scores = trials.measure({"before": recipe, "after": proposal}, "")
        learnt.append(scores["after"].sqnr_db - scores["before"].sqnr_db)
        return {"fitted": proposal}

    wide, fitted = Stage("wide", _widen), Stage("fitted", fit)
    _use(monkeypatch, wide, fitted)
    found = quantize_static(MODEL, _folder(tmp_path, "both"), samples, accuracy="best")
    reports = _reports(found)
    assert reports["wide"].kept
    assert learnt[0] > 5.0, "on what it was learnt from it is better"
    gain_db = reports["fitted"].gain_db
    assert gain_db is not None and gain_db < 0.0
    assert not reports["fitted"].kept
    _use(monkeypatch, wide)
    alone = quantize_static(MODEL, _folder(tmp_path, "one"), samples, accuracy="best")
    assert found.model.SerializeToString() == alone.model.SerializeToString()


def test_the_best_of_several_proposals_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def propose(_workshop: Workshop, recipe: Recipe) -> Mapping[str, Recipe]:
        return {f"x{factor}": _scale(recipe, factor) for factor in (0.1, 0.5, 8.0)}

    # From ranges that are far too wide.
    _use(monkeypatch, Stage("wide", _widen), Stage("wide", _widen), Stage("narrow", propose))
    monkeypatch.setattr(stages, "BETTER_BY_DB", -1000.0)
    found = _reports(quantize_static(MODEL, tmp_path, images(10), accuracy="best"))
    assert found["narrow"].note == "x0.1"
    assert found["narrow"].kept


def test_steps_are_reported_and_kept_one_by_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def propose(_workshop: Workshop, recipe: Recipe) -> Mapping[str, Recipe]:
        return {f"x{factor}": _scale(recipe, factor) for factor in (0.5, 2.0, 0.25)}

    # From ranges that are four times too wide.
    _use(monkeypatch, Stage("wide", _widen), Stage("steps", propose, are_steps=True))
    monkeypatch.setattr(stages, "BETTER_BY_DB", -1000.0)
    found = quantize_static(MODEL, _folder(tmp_path, "steps"), images(10), accuracy="best")
    reports = _reports(found)
    assert list(reports) == ["wide", "x0.5", "x2.0", "x0.25"]
    assert [one.kept for one in reports.values()] == [True] * 4
    gains = [one.gain_db or 0.0 for one in reports.values()]
    assert gains[1] > 3.0 and gains[2] < -6.0 and gains[3] > 12.0
    monkeypatch.setattr(stages, "BETTER_BY_DB", 0.1)
    _use(monkeypatch, Stage("steps", propose, are_steps=True))
    found = quantize_static(MODEL, _folder(tmp_path, "narrow"), images(10), accuracy="best")
    kept = {name: one.kept for name, one in _reports(found).items()}
    assert not kept["x2.0"], "each is compared with the best before it"


@pytest.mark.parametrize(
    ("clips", "activations", "is_kept"),
    [(False, "uint8", True), (True, "uint8", False), (True, "uint4", True)],
    ids=["rounds", "clips", "clips-sixteen-levels"],
)
def test_more_is_asked_of_what_clips(
    clips: bool, activations: str, is_kept: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def narrow(_workshop: Workshop, recipe: Recipe) -> Mapping[str, Recipe]:
        return {"narrow": _scale(recipe, 0.95)}

    # From ranges that are far too wide, which are kept all the same.
    monkeypatch.setattr(stages, "BETTER_BY_DB", -1000.0)
    _use(monkeypatch, Stage("wide", _widen), Stage("narrow", narrow, clips=clips))
    found = quantize_static(MODEL, tmp_path, images(10), accuracy="best", activations=activations)
    report = _reports(found)["narrow"]
    assert report.gain_db is not None and 0.0 < report.gain_db < 1.0
    assert report.kept is is_kept


@pytest.mark.parametrize("pays", [True, False], ids=["pays", "never-pays"])
def test_with_sixteen_levels_clipping_is_judged_with_what_follows(
    pays: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ranges that are far too narrow by themselves, and right once the next stage widens them."""

    def clip(_workshop: Workshop, recipe: Recipe) -> Mapping[str, Recipe]:
        return {"clip": _scale(recipe, 0.05)}

    def widen(_workshop: Workshop, recipe: Recipe) -> Mapping[str, Recipe]:
        return {"then": _scale(recipe, 20.0 if pays else 0.5)}

    monkeypatch.setattr(stages, "BETTER_BY_DB", -1000.0)
    _use(monkeypatch, Stage("clip", clip, clips=True), Stage("then", widen))
    found = quantize_static(MODEL, tmp_path, images(10), accuracy="best", activations="uint4")
    reports = _reports(found)
    gain_db = reports["clip"].gain_db
    assert gain_db is not None and gain_db < -3.0
    assert reports["clip"].kept is pays
    assert re.fullmatch(
        r"judged at the end: -?[\d.]+ dB with it, -?[\d.]+ without", reports["clip"].note
    )
    assert list(reports) == ["clip", "then"]


def test_a_stage_that_cannot_run_is_told_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(_workshop: Workshop, _recipe: Recipe) -> Mapping[str, Recipe]:
        raise ExecutionError("model: cannot be run: because", reason="because")

    _use(monkeypatch, Stage("failing", fail))
    report = _reports(quantize_static(MODEL, tmp_path, images(10), accuracy="best"))["failing"]
    assert (report.kept, report.sqnr_db, report.note) == (False, None, "because")


@pytest.mark.parametrize("count", [9, 32, 35, 63, 64, 200])
def test_sweeps_look_at_as_many_samples_as_they_may(
    count: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[float] = []

    def look(workshop: Workshop, recipe: Recipe) -> Mapping[str, Recipe]:
        seen.extend(float(feeds["x"].max()) for feeds in workshop.read_feeds(recipe))
        return {}

    total = count + count // 4  # every fifth one is held back
    samples = [{"x": np.full((1, 24, 8, 8), at, np.float32)} for at in range(total)]
    _use(monkeypatch, Stage("looking", look))
    quantize_static(MODEL, tmp_path, samples, accuracy="best")
    learnt = [at for at in range(total) if not held_back(at)]
    assert len(seen) == min(len(learnt), MOST_SAMPLES)
    assert seen == sorted(set(seen)), "each one once"
    assert set(seen) <= set(learnt)
    # From all over: of two that follow each other at most a double share is left out.
    gaps = np.diff([learnt.index(int(one)) for one in (*seen, learnt[-1])])
    assert gaps.max() <= -(-len(learnt) // MOST_SAMPLES)


def test_extra_samples_tune_layers_and_choose_no_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, int] = {}

    def count(name: str) -> Visit:
        def visit(sample: LayerSample) -> LayerChange:
            seen[name] = len(set(sample.floats.samples.tolist()))
            return LayerChange()

        return visit

    def look(workshop: Workshop, recipe: Recipe) -> Mapping[str, Recipe]:
        part = workshop.part
        more = replace(workshop, extra=part)
        more.sweep(recipe, {"tuned": count("tuned")}, "")
        more.sweep(recipe, {"ranges": count("ranges")}, "", uses_extra=False)
        return {}

    _use(monkeypatch, Stage("look", look))
    quantize_static(MODEL, tmp_path, images(10), accuracy="best")
    assert seen["tuned"] == 2 * seen["ranges"] > 0


def test_every_level_runs_where_nothing_is_integer(tmp_path: Path) -> None:
    """Too few output channels for integers to gain: all weights are only stored small."""
    model = make_model(
        "[a] p = Conv<pads = [2, 2, 2, 2]>(x, w1, b1) r = Relu(p)"
        " [b] q = Conv<pads = [2, 2, 2, 2]>(r, w2, b2) y = Neg(q)",
        f"{IMAGE} x",
        "float[N, 8, 8, 8] y",
        weights(w1=(8, 24, 5, 5), b1=(8,), w2=(8, 8, 5, 5), b2=(8,)),
        opset=21,
    )
    found = quantize_static(model, tmp_path, images(10), accuracy="best")
    calibration = found.result.plan.calibration
    assert calibration is not None and not calibration.nodes
    assert _reports(found)["cross-layer equalization"].note != "nothing to do"


@pytest.mark.parametrize("count", [1, 4])
def test_without_samples_held_back_no_stage_runs(count: int, tmp_path: Path) -> None:
    found = quantize_static(MODEL, _folder(tmp_path, "best"), images(count), accuracy="best")
    plain = quantize_static(MODEL, _folder(tmp_path, "fast"), images(count), accuracy="fast")
    assert _reports(found) == {}
    assert found.model.SerializeToString() == plain.model.SerializeToString()


def test_figures_that_are_infinite_are_null(tmp_path: Path) -> None:
    """All samples are zeros, so that everything is identical to float."""
    samples = [{"x": np.zeros((1, 24, 8, 8), np.float32)} for _ in range(10)]
    model = make_model(
        "[a] p = Conv(x, w1) r = Relu(p) [b] q = Conv(r, w2) y = Neg(q)",
        f"{IMAGE} x",
        f"{IMAGE} y",
        weights(w1=(24, 24, 1, 1), w2=(24, 24, 1, 1)),
        opset=21,
    )
    found = quantize_static(model, tmp_path, samples, accuracy="balanced")
    assert not any(one.kept for one in _reports(found).values())
    json.dumps(found.result.to_json(), allow_nan=False)


@pytest.mark.parametrize("level", ["balanced", "best"])
def test_the_same_input_gives_the_same_bytes(level: str, tmp_path: Path) -> None:
    one, two = (
        quantize_static(MODEL, _folder(tmp_path, name), images(10), accuracy=level, weights="int4")
        for name in ("one", "two")
    )
    assert any(report.kept for report in _reports(one).values())
    assert one.model.SerializeToString() == two.model.SerializeToString()


def test_an_unknown_level_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no accuracy 'perfect'; known levels: fast, balanced"):
        quantize_static(MODEL, tmp_path, accuracy="perfect")


@pytest.mark.parametrize(
    "options",
    [{"accuracy": "best"}, {"accuracy": None, "min_sqnr": 20.0}],
    ids=["accuracy", "budget"],
)
def test_saved_ranges_alone_cannot_be_improved(options: dict[str, object], tmp_path: Path) -> None:
    ranges = tmp_path / "ranges.json"
    quantize_static(MODEL, tmp_path, save_ranges=ranges)
    with pytest.raises(UsageError, match="needs samples to measure on"):
        onnxq.quantize_static(
            tmp_path / "model.onnx",
            output=tmp_path / "again.onnx",
            ranges=ranges,
            **options,  # type: ignore[arg-type]
        )
    assert not (tmp_path / "again.onnx").exists()


def _leave_second_in_float(_workshop: Workshop, recipe: Recipe) -> Recipe:
    second = next(node for node in recipe.model.graph if node.name == "b")
    planner = recipe.planner.keep_float({second: "for accuracy"})
    plan = planner.plan()
    ranges = {one.value: recipe.ranges[one.value] for one in plan.decisions.activations}
    return replace(recipe, planner=planner, plan=plan, ranges=ranges)


@pytest.mark.parametrize("are_steps", [False, True])
def test_no_stage_buys_accuracy_with_a_layer_in_float(
    are_steps: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def propose(workshop: Workshop, recipe: Recipe) -> Mapping[str, Recipe]:
        slow = _leave_second_in_float(workshop, recipe)
        scores = workshop.trials.measure({"before": recipe, "slow": slow}, "")
        assert scores["slow"].sqnr_db > scores["before"].sqnr_db + 1.0
        return {"slow": slow, "wide": _scale(recipe, 0.99)}

    monkeypatch.setattr(stages, "BETTER_BY_DB", -1000.0)
    _use(monkeypatch, Stage("several", propose, are_steps=are_steps))
    found = quantize_static(MODEL, tmp_path, images(10), accuracy="best")
    assert len(found.result.plan.integer_layers) == 2
    kept = next(one for one in _reports(found).values() if one.kept)
    note = "slow would leave 1 more layer in float"
    assert note in _reports(found)["several"].note
    assert kept.sqnr_db is not None


def test_a_stage_whose_only_proposal_is_slower_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def propose(workshop: Workshop, recipe: Recipe) -> Mapping[str, Recipe]:
        return {"slow": _leave_second_in_float(workshop, recipe)}

    _use(monkeypatch, Stage("one", propose))
    report = _reports(quantize_static(MODEL, tmp_path, images(10), accuracy="best"))["one"]
    expected = (False, None, "slow would leave 1 more layer in float")
    assert (report.kept, report.sqnr_db, report.note) == expected
