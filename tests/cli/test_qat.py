"""``onnxq qat`` as a user calls it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

pytest.importorskip("torch")

from tests.apply.calibrated_models import save_samples
from tests.cli.running import COMMAND, assert_refused, list_files, onnxq
from tests.training.quantized_models import quantize, samples

Run = Callable[..., CompletedProcess[str]]

SHORT = ("--epochs", "3", "--batch-size", "4", "--learning-rate", "1", "--threads", "1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source, start = quantize()
    (tmp_path / "net.onnx").write_bytes(source)
    (tmp_path / "start.onnx").write_bytes(start)
    save_samples(samples(15), tmp_path / "samples")
    return tmp_path


def test_a_run_with_reports(folder: Path) -> None:
    result = onnxq(
        *("qat", "net.onnx", "--train", "samples", "--init", "start.onnx", *SHORT),
        *("--json", "--report", "out.html", "--report", "out.json"),
        cwd=folder,
    )
    assert result.returncode == 0, result.stderr
    data = json.loads(result.stdout)
    assert data == json.loads((folder / "out.json").read_text())
    assert data["mode"] == "qat"
    assert data["sqnr_db"] > data["start_sqnr_db"]
    assert [point["epoch"] for point in data["training"]["curve"]] == [0, 1, 2, 3]
    assert (folder / "net.qat.onnx").is_file()
    page = (folder / "out.html").read_text()
    assert page.count("<polyline") == 2
    assert "best" in result.stderr


def test_the_report_in_a_terminal(folder: Path, run_here: Run) -> None:
    result = run_here(
        "qat", "net.onnx", "--train", "samples", "--init", "start.onnx", *SHORT, cwd=folder
    )
    assert result.returncode == 0, result.stderr
    assert "trained: 3 weights" in result.stdout and " biases" in result.stdout
    assert "from start.onnx ->" in result.stdout
    assert "integer QLinearConv" in result.stdout


def test_without_torch_one_line_says_how_to_install_it(folder: Path) -> None:
    before = list_files(folder)
    code = "import sys; sys.modules['torch'] = None; from onnxq.cli import main; main()"
    result = onnxq(
        "qat", "net.onnx", "--train", "samples", cwd=folder, command=(sys.executable, "-c", code)
    )
    assert_refused(result, 2, "needs torch", "pip install 'onnxq[qat]'")
    assert list_files(folder) == before


def test_an_interrupt_writes_the_best_so_far(folder: Path) -> None:
    process = subprocess.Popen(
        [
            *COMMAND,
            "qat",
            "net.onnx",
            "--train",
            "samples",
            "--init",
            "start.onnx",
            "--epochs",
            "100000",
            "--learning-rate",
            "1",
            "--threads",
            "1",
        ],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("step ")
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "interrupted: the best so far was taken" in stdout
    assert (folder / "net.qat.onnx").is_file()
    assert not list(folder.glob(".onnxq-*"))


@pytest.mark.parametrize(
    ("arguments", "exit_code", "parts"),
    [
        pytest.param((), 2, ("--reader",), id="no samples"),
        pytest.param(("--train", "nix"), 3, ("nix",), id="no such folder"),
        pytest.param(
            ("--train", "samples", "--report", "a.pdf"), 2, (".json or .html",), id="report"
        ),
        pytest.param(
            ("--train", "samples", "--init", "net.qat"), 3, ("net.qat",), id="no such start"
        ),
    ],
)
def test_refusals(
    folder: Path, arguments: tuple[str, ...], exit_code: int, parts: tuple[str, ...], run_here: Run
) -> None:
    before = list_files(folder)
    assert_refused(run_here("qat", "net.onnx", *arguments, cwd=folder), exit_code, *parts)
    assert list_files(folder) == before
