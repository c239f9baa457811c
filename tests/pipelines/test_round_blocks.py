"""``onnxq.quantize_dynamic`` with samples for 4-bit weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxq
from onnxq.errors import DataError, UsageError
from onnxq.pipelines import round_blocks
from tests.models import float_weight, make_model, save

K = 96


@pytest.fixture
def model(tmp_path: Path, rng: np.random.Generator) -> Path:
    weights = {"a": float_weight(rng, (K, K)), "b": float_weight(rng, (K, K))}
    return save(
        make_model(
            "h = MatMul(x, a) r = Relu(h) y = MatMul(r, b)",
            f"float[M, {K}] x",
            f"float[M, {K}] y",
            weights,
        ),
        tmp_path / "model.onnx",
    )


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    generator = np.random.default_rng(1)
    mix = generator.standard_normal((K, K)) / 4
    folder = tmp_path / "samples"
    folder.mkdir()
    for index in range(10):
        x = (generator.standard_normal((40, K)) @ mix + 0.5).astype(np.float32)
        np.savez(folder / f"{index}.npz", x=x)
    return folder


def test_samples_make_the_result_better(model: Path, samples: Path, tmp_path: Path) -> None:
    result = onnxq.quantize_dynamic(
        model, tmp_path / "q.onnx", weights="int4", calib=samples, block_size=32
    )
    report = result.rounding
    assert report is not None
    assert report.method == "second order"
    assert (report.samples, report.layers) == (8, 2)
    assert report.nearest_db is not None
    assert report.second_order_db is not None
    assert report.second_order_db > report.nearest_db + 1.5
    assert result.verification is not None
    assert result.verification.samples == 2
    assert result.verification.outputs[0].sqnr_db == pytest.approx(report.second_order_db, abs=1e-6)


def test_what_is_not_better_is_not_kept(
    model: Path, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(*arguments: Any) -> Any:
        found = original(*arguments)
        return {key: (0 * one[0], one[1]) for key, one in found.items()}

    original = round_blocks.round_block_layers
    monkeypatch.setattr(round_blocks, "round_block_layers", spoil)
    plain, spoiled = tmp_path / "plain.onnx", tmp_path / "spoiled.onnx"
    onnxq.quantize_dynamic(model, plain, weights="int4", block_size=32)
    result = onnxq.quantize_dynamic(model, spoiled, weights="int4", calib=samples, block_size=32)
    assert result.rounding is not None
    assert result.rounding.method == "nearest"
    assert plain.read_bytes() == spoiled.read_bytes()


def test_nothing_is_left_behind(model: Path, samples: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    onnxq.quantize_dynamic(model, folder / "q.onnx", weights="uint4", calib=samples)
    assert [path.name for path in folder.iterdir()] == ["q.onnx"]
    operators = {node.op_type for node in onnx.load(folder / "q.onnx").graph.node}
    assert "MatMulNBits" in operators


@pytest.mark.parametrize("weights", ["int8", "fp16"])
def test_other_weights_need_no_samples(
    weights: str, model: Path, samples: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="--calib is for 4-bit weights"):
        onnxq.quantize_dynamic(model, tmp_path / "q.onnx", weights=weights, calib=samples)
    assert not (tmp_path / "q.onnx").exists()


def test_samples_that_do_not_fit_are_refused(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    np.savez(folder / "0.npz", x=np.zeros((4, K + 1), np.float32))
    with pytest.raises(DataError):
        onnxq.quantize_dynamic(model, tmp_path / "q.onnx", weights="int4", calib=folder)
    assert not (tmp_path / "q.onnx").exists()
