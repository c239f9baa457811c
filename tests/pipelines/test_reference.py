"""The float model that trials are compared with: run once for each sample, while that fits."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxq.pipelines import reference
from onnxq.pipelines.reference import Reference
from onnxq.runtime.session import Session
from onnxq.samples import Part, open_samples
from tests.models import make_model

COUNT = 6


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the sessions that are opened do."""
    done: list[str] = []

    class Counted(Session):
        def __init__(self, path: Path, **options: bool) -> None:
            done.append("load")
            super().__init__(path, **options)  # type: ignore[arg-type]

        def run(self, *given: object) -> object:  # type: ignore[override]
            done.append("run")
            return super().run(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(reference, "Session", Counted)
    return done


def _make(folder: Path) -> tuple[Path, Part]:
    path, samples = folder / "model.onnx", folder / "samples"
    onnx.save(make_model("y = Neg(x)", "float[N, 4] x", "float[N, 4] y", {}), path)
    samples.mkdir()
    for at in range(COUNT):
        np.savez(samples / f"{at}.npz", x=np.full((1, 4), at, np.float32))
    return path, Part(open_samples(samples), None, "all")


def _read(found: Reference, part: Part, limit: int | None = None) -> list[float]:
    return [float(outputs[0][0, 0]) for _, outputs in islice(found.read(part), limit)]


def test_each_sample_is_run_once(tmp_path: Path, runs: list[str]) -> None:
    path, part = _make(tmp_path)
    found = Reference(path)
    assert found.output_names == ("y",)
    expected = [-float(at) for at in range(COUNT)]
    assert _read(found, part, 2) == expected[:2]
    assert runs == ["load", "run", "run"]
    assert _read(found, part) == _read(found, part) == expected
    assert runs.count("run") == COUNT
    assert runs.count("load") == 2, "none while everything is known"


def test_parts_are_told_apart(tmp_path: Path) -> None:
    path, part = _make(tmp_path)
    found, odd = Reference(path), Part(part.samples, lambda at: at % 2 == 1, "odd")
    assert _read(found, part, 2) == [0.0, -1.0]
    assert _read(found, odd) == [-1.0, -3.0, -5.0]
    assert _read(found, part, 2) == [0.0, -1.0]


@pytest.mark.parametrize("fitting", [0, 2])
def test_what_does_not_fit_is_run_again(fitting: int, tmp_path: Path, runs: list[str]) -> None:
    path, part = _make(tmp_path)
    found = Reference(path, most_bytes=fitting * 16)
    assert _read(found, part) == _read(found, part)
    assert runs.count("run") == 2 * COUNT - fitting
