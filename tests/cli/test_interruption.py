"""Ctrl-C, termination and a full disk: nothing half-written stays."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tests.cli.running import COMMAND, SAMPLE_MODELS, assert_refused, list_files, onnxq
from tests.models import make_model, save

SIZE = 2048
LAYERS = 4


@pytest.fixture(scope="session")
def large_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """67 MB, so that there is time to interrupt while it is quantized, written and verified."""
    tile = np.random.default_rng(0).standard_normal((SIZE, 64)).astype(np.float32)
    weight = np.tile(tile, (1, SIZE // 64))
    text = " ".join(f"h{index + 1} = MatMul(h{index}, w{index})" for index in range(LAYERS))
    model = make_model(
        text,
        f"float[1, {SIZE}] h0",
        f"float[1, {SIZE}] h{LAYERS}",
        {f"w{index}": weight for index in range(LAYERS)},
    )
    return save(model, tmp_path_factory.mktemp("large") / "large.onnx")


def wait_for(process: subprocess.Popen[str], folder: Path, pattern: str) -> None:
    deadline = time.monotonic() + 30
    while not list(folder.glob(pattern)):
        assert process.poll() is None, "it ended before it could be interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
@pytest.mark.parametrize(
    "pattern",
    [".onnxq-*", ".onnxq-*/small.onnx", ".onnxq-*/optimized"],
    ids=["computing", "written", "verifying"],
)
def test_signal_leaves_nothing(
    large_model: Path, pattern: str, number: signal.Signals, exit_code: int, tmp_path: Path
) -> None:
    kept = tmp_path / "small.onnx"
    kept.write_text("of the user")
    process = subprocess.Popen(
        [*COMMAND, "dynamic", str(large_model), "-o", str(kept), "--force"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(process, tmp_path, pattern)
    time.sleep(0.005)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == exit_code, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    if number is signal.SIGINT:
        # After the "^C" of a terminal comes the end of that line.
        (line,) = stderr.strip("\n").split("\n")
        assert "interrupted" in line
    assert list_files(tmp_path) == {"small.onnx": b"of the user"}


@pytest.mark.parametrize(
    "limit", [0, 50_000, 130_000], ids=["no-byte", "model-cut-short", "runtime-cut-short"]
)
@pytest.mark.parametrize("extra", [(), ("--force",)], ids=["new", "replacing"])
def test_full_disk_leaves_nothing(limit: int, extra: tuple[str, ...], tmp_path: Path) -> None:
    """A limit on the size of files fails writes like a full disk does."""
    if extra:
        (tmp_path / "small.onnx").write_text("of the user")
    before = list_files(tmp_path)

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    # 108 kB in int8; the runtime writes it out with folded float weights of 320 kB.
    arguments = ("dynamic", SAMPLE_MODELS / "cnn.onnx", "-o", tmp_path / "small.onnx", *extra)
    result = onnxq(*arguments, cwd=tmp_path, prepare=limit_files)
    if limit < 108_000:
        assert_refused(result, 3, "small.onnx: no room left to write it")
    else:
        assert_refused(result, 3)
    assert list_files(tmp_path) == before


def test_output_into_a_closed_pipe_is_no_failure(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen(
        [*COMMAND, "inspect", str(SAMPLE_MODELS / "transformer.onnx"), "--json"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    os.close(writer)
    _, stderr = process.communicate(timeout=60)
    # Whoever read the report has seen enough; the work itself was done.
    assert process.returncode == 0
    assert stderr == ""
