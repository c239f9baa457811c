"""What a worker does with one model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxq
from onnxq.runs.reading import read_pipeline
from onnxq.runs.work import run_job
from tests.models import float_weight, make_model, save

K = 96
PIPELINE = """
[[model]]
source = "model.onnx"
mode = "dynamic"
weights = "int4"
output = "q.onnx"
calib = "samples"
"""


def test_4_bit_weights_are_rounded_with_the_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    model = make_model(
        "y = MatMul(x, w)", f"float[M, {K}] x", f"float[M, {K}] y", {"w": float_weight(rng, (K, K))}
    )
    save(model, tmp_path / "model.onnx")
    (tmp_path / "samples").mkdir()
    mix = rng.standard_normal((K, K)) / 4
    for index in range(10):
        x = (rng.standard_normal((40, K)) @ mix + 0.5).astype(np.float32)
        np.savez(tmp_path / "samples" / f"{index}.npz", x=x)
    (tmp_path / "onnxq.toml").write_text(PIPELINE, "utf-8")
    (job,) = read_pipeline(tmp_path / "onnxq.toml").jobs
    monkeypatch.chdir(tmp_path)
    seen: list[str] = []

    def progress(label: str) -> Callable[[Iterable[Any], int | None], Iterable[Any]]:
        seen.append(label)
        return lambda items, _count: items

    finished = run_job(job, None, force=False, progress=progress, announce=seen.append)
    assert {"quantizing", "observing layers", "choosing a rounding"} <= set(seen)
    expected = tmp_path / "expected.onnx"
    onnxq.quantize_dynamic("model.onnx", expected, weights="int4", calib="samples")
    assert (tmp_path / "q.onnx").read_bytes() == expected.read_bytes()
    again = run_job(job, finished.entry, force=False, progress=progress, announce=seen.append)
    assert not again.is_changed
    # Other samples are another result.
    np.savez(tmp_path / "samples" / "more.npz", x=np.ones((40, K), np.float32))
    assert run_job(
        job, finished.entry, force=False, progress=progress, announce=seen.append
    ).is_changed
