from __future__ import annotations

from pathlib import Path

import numpy as np

from onnxq.graph.check import find_fault
from tests.models import float_weight, make_model, matmul_model, save


def test_a_valid_model_has_no_fault(rng: np.random.Generator, tmp_path: Path) -> None:
    path = save(matmul_model(float_weight(rng, (3, 4))), tmp_path / "model.onnx")
    assert find_fault(path) is None


def test_a_fault_is_one_line(tmp_path: Path) -> None:
    model = make_model("y = NoSuchOperator(x)", "float[2] x", "float[2] y")
    fault = find_fault(save(model, tmp_path / "model.onnx"))
    assert fault is not None
    assert "NoSuchOperator" in fault
    assert "\n" not in fault


def test_a_file_that_is_no_model_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("nothing")
    assert find_fault(path)
