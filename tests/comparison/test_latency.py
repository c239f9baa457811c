"""Latency: what is measured and how often; how long it took is nothing that a test can know."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from onnxq.comparison import latency
from onnxq.comparison.latency import FEWEST_ROUNDS, MOST_SAMPLES, measure_latency
from onnxq.errors import DataError, ExecutionError
from onnxq.runtime.session import Feeds
from tests.models import float_weight, make_model, matmul_model, save

FEEDS: list[Feeds] = [{"x": np.full((2, 16), index, np.float32)} for index in range(6)]


@pytest.fixture
def model(tmp_path: Path, rng: np.random.Generator) -> Path:
    return save(matmul_model(float_weight(rng, (16, 8))), tmp_path / "model.onnx")


class Clock:
    """Time that passes only where a model runs."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.runs: list[tuple[str, float]] = []

    def install(self, patch: pytest.MonkeyPatch, times_s: dict[str, Callable[[], float]]) -> None:
        clock = self

        class FakeSession:
            def __init__(self, path: Path, *, threads: int, spinning: bool) -> None:
                assert spinning
                self.name = path.name
                self.threads = threads

            def run(self, _feeds: Feeds) -> None:
                clock.runs.append((self.name, clock.now_s))
                clock.now_s += times_s[self.name]()

        patch.setattr(latency, "Session", FakeSession)
        patch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda: clock.now_s))


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_structure(model: Path) -> None:
    found = measure_latency(model, model, FEEDS, threads=1, rounds=5)
    assert (found.threads, found.samples) == (1, MOST_SAMPLES)
    assert FEWEST_ROUNDS <= found.rounds <= 5
    for middle, (low, high) in (
        (found.float_ms, found.float_spread_ms),
        (found.quantized_ms, found.quantized_spread_ms),
    ):
        assert 0.0 < low <= middle <= high
    assert found.speedup == found.float_ms / found.quantized_ms
    json.dumps(found.to_json(), allow_nan=False)


def test_budget_leaves_the_fewest_rounds(model: Path) -> None:
    found = measure_latency(model, model, FEEDS, threads=1, rounds=50, budget_s=0.0)
    assert found.rounds == FEWEST_ROUNDS


@pytest.mark.parametrize(("asked", "made"), [(0, 3), (1, 3), (3, 3), (4, 4)])
def test_rounds(asked: int, made: int, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    clock.install(monkeypatch, {"f": lambda: 0.001, "q": lambda: 0.001})
    assert measure_latency(Path("f"), Path("q"), FEEDS, threads=1, rounds=asked).rounds == made


def test_times_are_of_one_inference(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    clock.install(monkeypatch, {"f": lambda: 0.003, "q": lambda: 0.001})
    found = measure_latency(Path("f"), Path("q"), FEEDS, threads=2, rounds=7)
    assert found.float_ms == pytest.approx(3.0)
    assert found.quantized_ms == pytest.approx(1.0)
    assert found.float_spread_ms == pytest.approx((3.0, 3.0))
    assert found.speedup == pytest.approx(3.0)
    assert (found.threads, found.rounds, found.samples) == (2, 7, MOST_SAMPLES)


def test_median_and_quartiles_over_the_rounds(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 0.02 s is long enough for one pass; per round a run that is not timed, and one that is.
    slow = itertools.chain([0.02, 0.02], *([0.02, 0.01 * index] for index in (2, 6, 3, 5, 4)))
    clock.install(monkeypatch, {"f": lambda: next(slow), "q": lambda: 0.02})
    found = measure_latency(Path("f"), Path("q"), FEEDS[:1], threads=1, rounds=5)
    assert found.float_ms == pytest.approx(40.0)
    assert found.float_spread_ms == pytest.approx((30.0, 50.0))


def test_measurements_are_long_enough_and_take_turns(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.install(monkeypatch, {"f": lambda: 0.0007, "q": lambda: 0.0001})
    measure_latency(Path("f"), Path("q"), FEEDS, threads=1, rounds=4)
    blocks = [
        (name, [at for _, at in runs])
        for name, runs in itertools.groupby(clock.runs, key=lambda run: run[0])
    ]
    # A change of the order joins the last block of a round with the first of the next.
    assert [name for name, _ in blocks[-5:]] == ["f", "q", "f", "q", "f"]
    assert all(times[-1] - times[1] >= 0.009 for _, times in blocks[-5:])


def test_slow_models_run_one_sample(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    clock.install(monkeypatch, {"f": lambda: 0.2, "q": lambda: 0.001})
    found = measure_latency(Path("f"), Path("q"), FEEDS, threads=1, rounds=3)
    assert found.samples == 1


def test_budget_stops_before_it_is_passed(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    clock.install(monkeypatch, {"f": lambda: 0.5, "q": lambda: 0.5})
    found = measure_latency(Path("f"), Path("q"), FEEDS, threads=1, rounds=99, budget_s=11.5)
    # Warm-up 1 s, then 2 s a round: after the fifth the next one would end at 13 s.
    assert found.rounds == 5
    assert clock.now_s == pytest.approx(11.0)


def test_no_samples(model: Path) -> None:
    with pytest.raises(DataError, match="no sample"):
        measure_latency(model, model, [], threads=1, rounds=3)


def test_model_that_rejects_the_sample(model: Path, tmp_path: Path) -> None:
    other = save(make_model("y = Neg(z)", "float[2] z", "float[2] y"), tmp_path / "other.onnx")
    with pytest.raises(ExecutionError, match=r"other\.onnx"):
        measure_latency(model, other, FEEDS, threads=1, rounds=3)


def test_samples_of_other_shapes(model: Path) -> None:
    feeds: list[Feeds] = [{"x": np.ones((rows, 16), np.float32)} for rows in (1, 7)]
    assert measure_latency(model, model, feeds, threads=1, rounds=3).samples == 2
