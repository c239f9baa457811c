"""``--in-place``: the input is replaced by a verified result, or left as it was."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import onnx

from onnxq.graph.files import load_model
from onnxq.rules.quantized import find_quantization
from tests.cli.running import SAMPLE_MODELS, assert_refused, list_files
from tests.models import float_weight, make_model, save_external

Run = Callable[..., CompletedProcess[str]]

MLP = SAMPLE_MODELS / "mlp.onnx"


def test_replaces_the_model(tmp_path: Path, run_here: Run) -> None:
    model = tmp_path / "model.onnx"
    shutil.copy(MLP, model)
    assert run_here("dynamic", model, "--in-place", cwd=tmp_path).returncode == 0
    assert list(list_files(tmp_path)) == ["model.onnx"]
    assert model.stat().st_size < MLP.stat().st_size
    assert find_quantization(load_model(model).model) is not None


def test_a_refused_model_is_left_alone(tmp_path: Path, run_here: Run) -> None:
    model = tmp_path / "model.onnx"
    shutil.copy(MLP, model)
    assert run_here("dynamic", model, "--in-place", cwd=tmp_path).returncode == 0
    content = model.read_bytes()
    done = run_here("dynamic", model, "--in-place", cwd=tmp_path)
    assert_refused(done, 3, "already quantized")
    assert model.read_bytes() == content


def test_takes_no_other_output(tmp_path: Path, run_here: Run) -> None:
    done = run_here("dynamic", MLP, "--in-place", "-o", "other.onnx", cwd=tmp_path)
    assert_refused(done, 2, "--in-place replaces the input; leave out -o")


def test_replaces_external_data_of_the_same_name(
    tmp_path: Path, rng: np.random.Generator, run_here: Run
) -> None:
    weight = float_weight(rng, (128, 64))
    model = make_model("y = MatMul(x, w)", "float[2, 128] x", "float[2, 64] y", {"w": weight})
    path = tmp_path / "model.onnx"
    save_external(model, path, location="model.onnx.data")
    before = (tmp_path / "model.onnx.data").stat().st_size
    assert run_here("dynamic", path, "--in-place", cwd=tmp_path).returncode == 0
    assert (tmp_path / "model.onnx.data").stat().st_size < before / 3
    onnx.checker.check_model(str(path))
