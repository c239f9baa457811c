"""``onnxq inspect``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

from tests.cli.running import SAMPLE_MODELS

Run = Callable[..., CompletedProcess[str]]


def test_text_names_what_is_in_the_model(tmp_path: Path, run_here: Run) -> None:
    result = run_here("inspect", SAMPLE_MODELS / "lstm.onnx", "--plan", "dynamic", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stderr == ""
    assert "input   rows: float[batch, 16, 16]" in result.stdout
    assert "output  logits: float[batch, 10]" in result.stdout
    assert "opset ai.onnx 17" in result.stdout
    assert "no gain: hidden size 96 is under 128" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_json_holds_the_plan_only_when_asked(tmp_path: Path, run_here: Run) -> None:
    model = SAMPLE_MODELS / "transformer.onnx"
    plain = json.loads(run_here("inspect", model, "--json", cwd=tmp_path).stdout)
    planned = json.loads(
        run_here("inspect", model, "--json", "--plan", "dynamic", cwd=tmp_path).stdout
    )
    assert plain["plan"] is None
    assert planned.pop("plan")["mode"] == "dynamic"
    plain.pop("plan")
    assert plain["notes"] == []
    assert planned | {"notes": []} == plain
    assert plain["size_bytes"] == model.stat().st_size
    assert plain["operators"]["MatMul"] == 16
    assert plain["quantized"] is None
