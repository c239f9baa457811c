"""Whose fault it is where work on a model fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnxq
from onnxq.errors import InvalidModelError, OutputError
from onnxq.runtime.damage import explain_damage
from tests.models import float_weight, make_model, matmul_model, save


def test_a_failure_on_a_good_model_passes(rng: np.random.Generator, tmp_path: Path) -> None:
    path = save(matmul_model(float_weight(rng, (3, 4))), tmp_path / "model.onnx")
    with pytest.raises(IndexError), explain_damage(path):
        raise IndexError


def test_a_refusal_passes_without_a_look_at_the_model(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="full"), explain_damage(tmp_path / "gone.onnx"):
        raise OutputError("full")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        pytest.param("y = NoSuchOperator(x)", "NoSuchOperator", id="checker"),
        pytest.param("y = Conv(x, w)", "onnxruntime cannot load it", id="runtime"),
    ],
)
def test_a_failure_on_a_bad_model_is_its_fault(
    text: str, part: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    model = make_model(text, "float[1, 4, 6, 6] x", "float[N] y", {"w": float_weight(rng, (8,))})
    path = save(model, tmp_path / "model.onnx")
    expected = f"model.onnx: not a valid model: .*{part}"
    with pytest.raises(InvalidModelError, match=expected), explain_damage(path):
        raise IndexError


def test_a_kernel_that_is_a_vector_is_the_fault_of_the_model(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    """The checker of onnx finds nothing in it."""
    samples = tmp_path / "samples"
    samples.mkdir()
    np.savez(samples / "0.npz", x=np.ones((1, 4, 6, 6), np.float32))
    model = make_model(
        "y = Conv(x, w)", "float[1, 4, 6, 6] x", "float[N] y", {"w": float_weight(rng, (80,))}
    )
    with pytest.raises(InvalidModelError, match="not a valid model"):
        onnxq.quantize_static(save(model, tmp_path / "model.onnx"), samples)
