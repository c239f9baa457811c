"""Standard output and reports that cannot be written: what else there is to tell is told."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

from onnxq.cli import run
from onnxq.errors import OutputError
from onnxq.graph.output import write_whole
from onnxq.report import files
from tests.cli.running import COMMAND, assert_refused, list_files
from tests.models import float_weight, matmul_model, save

Run = Callable[..., CompletedProcess[str]]
FULL = Path("/dev/full")
COMPARE = ("compare", "net.onnx", "net.onnx", "--no-latency", "--data", "data")

needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")


@pytest.fixture
def folder(rng: np.random.Generator, tmp_path: Path) -> Path:
    save(matmul_model(float_weight(rng, (128, 64))), tmp_path / "net.onnx")
    (tmp_path / "data").mkdir()
    for index in range(6):
        np.savez(tmp_path / "data" / f"{index}.npz", x=float_weight(rng, (2, 128)))
    (tmp_path / "onnxq.toml").write_text('[[model]]\nsource = "net.onnx"\nmode = "dynamic"\n')
    return tmp_path


def call(folder: Path, *arguments: str, **streams: Any) -> CompletedProcess[str]:
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    command = [*COMMAND, *arguments]
    return subprocess.run(command, cwd=folder, text=True, timeout=120, check=False, **given)


@needs_full
@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        (("dynamic", "net.onnx"), "net.int8.onnx"),
        (("static", "net.onnx", "--calib", "data", "--json"), "net.static.onnx"),
        (("inspect", "net.onnx"), ""),
        (("--help",), ""),
        (("run", "--report", "r.json"), "r.json"),
    ],
    ids=lambda given: given[0] if isinstance(given, tuple) else "",
)
def test_standard_output_is_full(
    arguments: tuple[str, ...],
    written: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    # What click leaves in the buffer fails once more when the file is closed.
    with contextlib.suppress(OSError), FULL.open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert run(list(arguments)) == 3
    told = capfd.readouterr().err
    line = told.splitlines()[-1]
    assert line.startswith("error: standard output: cannot be written: No space left on device")
    if arguments[0] != "run":  # which tells of its progress
        assert told.count("\n") == 1
    if written:
        assert (folder / written).stat().st_size > 0
    if written.endswith(".onnx"):
        assert line.endswith(f"; {written} is complete")


def test_standard_output_is_closed(folder: Path) -> None:
    """Refused before the work: the next file that is opened would become standard output."""
    before = list_files(folder)
    result = call(folder, "dynamic", "net.onnx", stdout=None, preexec_fn=lambda: os.close(1))
    assert result.returncode == 2
    assert result.stderr == (
        "error: standard output is closed; send it to a file, or to /dev/null\n"
    )
    assert list_files(folder) == before


@needs_full
def test_nothing_can_be_told_on_standard_error(folder: Path) -> None:
    with FULL.open("w") as full:
        assert call(folder, "run", stderr=full).returncode == 0
    closed = call(folder, "dynamic", "no.onnx", stderr=None, preexec_fn=lambda: os.close(2))
    assert (closed.returncode, closed.stdout) == (3, "")


def test_a_reader_that_has_seen_enough_hides_no_failure(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """``onnxq compare ... | head -1``: the limit that is not met still gives exit code 1."""
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.chdir(folder)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert run([*COMPARE, "--min-cosine", "1.5", "--report", "r.md"]) == 1
    assert capfd.readouterr().err == ""
    assert "min-cosine" in (folder / "r.md").read_text()


@pytest.mark.parametrize("command", ["compare", "run", "qat"])
def test_a_report_that_cannot_be_written_hides_nothing(
    command: str, folder: Path, run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is printed all the same, and so is the other report."""
    from onnxq.report import training

    def write(path: Path, content: bytes) -> None:
        if path.name == "no.json":
            raise OutputError(f"{path}: no room left")
        write_whole(path, content)

    monkeypatch.setattr(files, "write_whole", write)
    monkeypatch.setattr(training, "write_whole", write)
    arguments: tuple[str, ...] = COMPARE
    if command == "run":
        arguments = ("run",)
    if command == "qat":
        pytest.importorskip("torch")
        # Nothing in it can be calibrated, so it starts from dynamic mode.
        assert run_here("dynamic", "net.onnx", "-o", "start.onnx", cwd=folder).returncode == 0
        arguments = ("qat", "net.onnx", "--train", "data", "--init", "start.onnx", "--epochs", "1")
    reports = ("--report", "no.json", "--report", "yes.json")
    result = run_here(*arguments, *reports, cwd=folder)
    assert result.returncode == 3
    line = result.stderr.splitlines()[-1]
    assert line.startswith("error: no.json: no room left")
    assert line.endswith("; net.qat.onnx is complete") == (command == "qat")
    assert "SQNR" in result.stdout
    assert (folder / "yes.json").is_file()


def test_a_lock_that_cannot_be_written_hides_nothing(
    folder: Path, run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxq.runs import lock

    def refuse(path: Path, _content: bytes) -> None:
        raise OutputError(f"{path}: no room left")

    monkeypatch.setattr(lock, "write_whole", refuse)
    result = run_here("run", cwd=folder)
    assert result.returncode == 3
    assert "net.int8.onnx" in result.stdout
    assert "onnxq.lock: no room left" in result.stdout
    result = run_here("run", "--json", cwd=folder)
    assert result.returncode == 3
    assert '"lock_error": "onnxq.lock: no room left"' in result.stdout


def test_no_room_for_temporary_files(
    folder: Path, run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxq.pipelines import compare

    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(compare, "measure_layers", fail)
    result = run_here(*COMPARE, "--layers", cwd=folder)
    assert_refused(result, 3, "no room left for temporary files; free some, or set TMPDIR")


# A disk that is really full.


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A function that makes a file system of so many bytes."""
    made: list[Path] = []

    def make(size_bytes: int) -> Path:
        place = tmp_path / "disk"
        place.mkdir()
        options = ["-t", "tmpfs", "-o", f"size={size_bytes}", "onnxq", str(place)]
        try:
            done = subprocess.run(["mount", *options], capture_output=True, check=False)
        except OSError as error:
            pytest.skip(f"no mount here: {error}")
        if done.returncode != 0:
            pytest.skip("only root can mount a small file system")
        made.append(place)
        return place

    yield make
    for place in made:
        # Lazily: the tests run in there.
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="tmpfs is of Linux")
def test_every_mode_on_a_disk_that_is_full(folder: Path, small_disk: Any, run_here: Run) -> None:
    page = os.sysconf("SC_PAGESIZE")
    size_bytes = (folder / "net.onnx").stat().st_size
    disk = small_disk((-(-size_bytes // page) + 3) * page)
    (disk / "net.onnx").write_bytes((folder / "net.onnx").read_bytes())
    (disk / "onnxq.toml").write_bytes((folder / "onnxq.toml").read_bytes())
    data = str(folder / "data")
    before = list_files(disk)
    calls = [
        ("dynamic", "net.onnx"),
        ("dynamic", "net.onnx", "--in-place"),
        ("static", "net.onnx", "--calib", data),
        ("run",),
    ]
    try:
        import torch  # noqa: F401

        run_here("dynamic", "net.onnx", "-o", "start.onnx", cwd=folder)
        start = str(folder / "start.onnx")
        calls.append(("qat", "net.onnx", "--train", data, "--init", start, "--epochs", "1"))
    except ImportError:
        pass
    for arguments in calls:
        result = run_here(*arguments, cwd=disk)
        assert result.returncode == 3, (arguments, result.stderr)
        assert "no room left" in result.stderr + result.stdout, (arguments, result.stderr)
        assert "internal error" not in result.stderr + result.stdout
        assert list_files(disk) == before
    result = run_here(*COMPARE[:-1], data, "--report", "r.html", cwd=disk)
    assert result.returncode == 3
    assert "SQNR" in result.stdout
    assert "r.html: no room left to write it" in result.stderr
    assert list_files(disk) == before
