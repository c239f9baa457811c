"""Faults from outside: what is there stays, nothing half-written stays, one line says why."""

from __future__ import annotations

import ctypes
import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import onnx
import pytest

import onnxq as package
from onnxq.errors import InvalidModelError, OutputError
from onnxq.graph.files import load_model
from onnxq.graph.interrupts import defer_interrupts
from onnxq.graph.output import publish, stage_output, write_model
from tests.cli.running import CALIB_DATA, COMMAND, SAMPLE_MODELS, assert_refused, list_files, onnxq
from tests.models import float_weight, matmul_model, save, save_external

Run = Callable[..., CompletedProcess[str]]
MLP = SAMPLE_MODELS / "mlp.onnx"
CNN = SAMPLE_MODELS / "cnn.onnx"
CALIB = CALIB_DATA / "cnn" / "calib"

PR_CAPBSET_DROP = 24
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2


def obey_permissions() -> None:
    """Run what comes next without the right of root to read and write everything."""
    library = ctypes.CDLL(None, use_errno=True)
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        library.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


@pytest.fixture
def external(rng: np.random.Generator, tmp_path: Path) -> Path:
    model = matmul_model(float_weight(rng, (128, 64)))
    return save_external(model, tmp_path / "in.onnx", "weights.bin")


# A full disk.


@pytest.mark.parametrize("limit", [0, 20_000, 200_000, 500_000], ids=str)
def test_full_disk_while_calibrating(limit: int, tmp_path: Path) -> None:
    """Weights moved out, probes, trials, the result, and what the runtime writes all fail so."""

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    kept = tmp_path / "small.onnx"
    kept.write_text("of the user")
    command = ("static", CNN, "--calib", CALIB, "--samples", "5", "-o", kept, "--force")
    result = onnxq(*command, cwd=tmp_path, prepare=limit_files)
    if result.returncode != 0:
        assert_refused(result, 3)
        assert "internal error" not in result.stderr
        assert list_files(tmp_path) == {"small.onnx": b"of the user"}
    else:
        assert limit == 500_000


# Interrupts.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_deferred_interrupt_comes_after_the_block(number: signal.Signals) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, stop)
    done = []
    try:
        with pytest.raises(KeyboardInterrupt), defer_interrupts():
            signal.raise_signal(number)
            done.append("the rest of the block")
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)
    assert done


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises, also where the tests run in the background and it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_interrupt_between_two_renames_waits(
    external: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def interrupted(self: Path, target: Path) -> Path:
        signal.raise_signal(signal.SIGINT)
        return replace(self, target)

    source, output = load_model(external), tmp_path / "out.onnx"
    with pytest.raises(KeyboardInterrupt), stage_output(output) as staged:
        write_model(source, staged, force=False)
        monkeypatch.setattr(Path, "replace", interrupted)
        publish(staged, replace=False)
    assert load_model(output).external_files == ("out.onnx.data",)
    assert not list(tmp_path.glob(".onnxq-*"))


@pytest.mark.parametrize(
    "seed", [*range(2), *(pytest.param(seed, marks=pytest.mark.full) for seed in range(2, 10))]
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["INT", "KILL"])
def test_signal_at_a_random_moment(number: signal.Signals, seed: int, tmp_path: Path) -> None:
    kept, source = tmp_path / "small.onnx", tmp_path / "in.onnx"
    kept.write_text("of the user")
    source.write_bytes(CNN.read_bytes())
    process = subprocess.Popen(
        [*COMMAND, "dynamic", str(source), "-o", str(kept), "--force"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".onnxq-*")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(random.Random(seed).uniform(0, 0.3))
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert "Traceback" not in stderr
    assert source.read_bytes() == CNN.read_bytes()
    assert process.returncode in (0, 130, -signal.SIGKILL)
    if kept.read_bytes() == b"of the user":
        assert process.returncode != 0
    else:  # it had its name already
        assert load_model(kept).size_bytes < source.stat().st_size
    if number is signal.SIGINT:
        assert sorted(list_files(tmp_path)) == ["in.onnx", "small.onnx"]


# Two runs.


def test_file_that_came_in_between_is_kept(external: Path, tmp_path: Path) -> None:
    source, output = load_model(external), tmp_path / "out.onnx"
    for name in ("out.onnx", "out.onnx.data"):
        with (
            pytest.raises(OutputError, match=f"{name}: was written by something else while"),
            stage_output(output) as staged,
        ):
            write_model(source, staged, force=False)
            (tmp_path / name).write_text("of another run")
            publish(staged, replace=False)
        assert (tmp_path / name).read_text() == "of another run"
        (tmp_path / name).unlink()
    assert sorted(list_files(tmp_path)) == ["in.onnx", "weights.bin"]


def test_two_runs_on_one_output(tmp_path: Path) -> None:
    commands = [
        subprocess.Popen(
            [*COMMAND, "dynamic", str(CNN), "-o", "out.onnx", "--weights", weights],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for weights in ("int8", "fp16")
    ]
    errors = [process.communicate(timeout=120)[1] for process in commands]
    codes = [process.returncode for process in commands]
    assert sorted(codes) == [0, 3], errors
    assert "out.onnx: " in errors[codes.index(3)]
    onnx.checker.check_model(str(tmp_path / "out.onnx"))
    assert list(list_files(tmp_path)) == ["out.onnx"]


# Folders that must not be written to, or read.


@pytest.mark.parametrize("mode", [0o555, 0o000], ids=["read-only", "closed"])
def test_output_folder(mode: int, tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(mode)
    try:
        result = onnxq(
            "dynamic", MLP, "-o", folder / "o.onnx", cwd=tmp_path, prepare=obey_permissions
        )
    finally:
        folder.chmod(0o755)
    assert_refused(result, 3, str(folder), "Permission denied")
    assert list_files(folder) == {}


def test_input_folder_is_read_only(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    (folder / "in.onnx").write_bytes(MLP.read_bytes())
    folder.chmod(0o555)
    try:
        refused = onnxq("dynamic", "closed/in.onnx", cwd=tmp_path, prepare=obey_permissions)
        done = onnxq(
            "dynamic", "closed/in.onnx", "-o", "o.onnx", cwd=tmp_path, prepare=obey_permissions
        )
    finally:
        folder.chmod(0o755)
    assert_refused(refused, 3, "name another folder with -o")
    assert done.returncode == 0, done.stderr
    assert list_files(folder) == {"in.onnx": MLP.read_bytes()}


def test_sub_folder_of_data_that_cannot_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "below"
    folder.mkdir(parents=True)
    np.savez(tmp_path / "data" / "0.npz", pixels=np.zeros((1, 64), np.float32))
    folder.chmod(0o000)
    try:
        result = onnxq("dynamic", MLP, "--data", "data", cwd=tmp_path, prepare=obey_permissions)
    finally:
        folder.chmod(0o755)
    assert_refused(result, 3, "below: cannot be listed: Permission denied; make it readable")


# Links.


@pytest.mark.parametrize("exists", [True, False], ids=["to a file", "to nothing"])
def test_output_behind_links(exists: bool, tmp_path: Path, run_here: Run) -> None:
    real = tmp_path / "real.onnx"
    if exists:
        real.write_text("old")
    (tmp_path / "second.onnx").symlink_to(real)
    (tmp_path / "first.onnx").symlink_to("second.onnx")
    result = run_here("dynamic", MLP, "-o", "first.onnx", "--force", cwd=tmp_path)
    assert result.returncode == 0
    assert (tmp_path / "first.onnx").is_symlink()
    assert load_model(real).size_bytes < MLP.stat().st_size
    assert sorted(list_files(tmp_path)) == ["first.onnx", "real.onnx", "second.onnx"]


def test_report_behind_a_link(tmp_path: Path) -> None:
    from onnxq.graph.output import write_whole

    (tmp_path / "link.json").symlink_to("real.json")
    write_whole(tmp_path / "link.json", b"{}")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_bytes() == b"{}"


# Things that change while they are read.


def test_model_that_changes_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.onnx"
    source.write_bytes(CNN.read_bytes())

    def change(_label: str) -> Callable[[Any, int | None], Any]:
        def track(samples: Any, _total: int | None) -> Any:
            source.write_bytes(MLP.read_bytes() + CNN.read_bytes())
            source.write_bytes(CNN.read_bytes())
            return samples

        return track

    with pytest.raises(InvalidModelError, match="has changed while it was worked on; run again"):
        package.quantize_static(
            source, CALIB, samples=5, progress=change, in_place=True, accuracy="fast"
        )
    assert list_files(tmp_path) == {"in.onnx": CNN.read_bytes()}


def test_sample_that_goes_away(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for path in sorted(CALIB.iterdir())[:6]:
        (data / path.name).write_bytes(path.read_bytes())

    def change(_label: str) -> Callable[[Any, int | None], Any]:
        def track(samples: Any, _total: int | None) -> Any:
            for path in sorted(data.iterdir())[2:3]:
                path.unlink()
            return samples

        return track

    output = tmp_path / "out.onnx"
    with pytest.raises(package.OnnxqError, match="is gone since the folder was listed"):
        package.quantize_static(CNN, data, output, progress=change)
    assert not output.exists()


@pytest.mark.parametrize("size", [0, 1, 100, 100_000])
def test_model_that_is_still_being_copied(size: int, tmp_path: Path, run_here: Run) -> None:
    (tmp_path / "in.onnx").write_bytes(MLP.read_bytes()[:size])
    assert_refused(run_here("dynamic", "in.onnx", cwd=tmp_path), 3, "in.onnx: ")
    assert list(list_files(tmp_path)) == ["in.onnx"]


# Pipes, which nobody may ever write to.


@pytest.fixture
def patience() -> Iterator[None]:
    """Whoever waits for a minute is interrupted."""

    def stop(*_: object) -> None:
        raise TimeoutError("it waits for the pipe")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    ("command", "part"),
    [
        (("dynamic", "cnn.onnx", "--data", "data"), "0.npz: no regular file"),
        (("static", "cnn.onnx", "--ranges", "pipe.json"), "pipe.json: cannot be read"),
        (("compare", "pipe.onnx", "cnn.onnx", "--data", CALIB), "is not a regular file"),
        (("compare", "cnn.onnx", "cnn.onnx", "--data", CALIB, "--labels", "pipe.json"), "labels"),
        (("run", "pipe.toml"), "pipe.toml:1: cannot be read: is not a regular file"),
    ],
    ids=["data", "ranges", "model", "labels", "pipeline"],
)
def test_pipe(
    command: tuple[str | Path, ...], part: str, tmp_path: Path, run_here: Run, patience: None
) -> None:
    (tmp_path / "cnn.onnx").symlink_to(CNN)
    (tmp_path / "data").mkdir()
    for name in ("data/0.npz", "pipe.json", "pipe.onnx", "pipe.toml"):
        os.mkfifo(tmp_path / name)
    before = sorted(one.name for one in tmp_path.rglob("*"))
    result = run_here(*command, cwd=tmp_path)
    assert result.returncode in (2, 3)
    assert result.stderr.count("\n") == 1
    assert part in result.stderr
    assert sorted(one.name for one in tmp_path.rglob("*")) == before


# In place.


def test_weights_that_nothing_reads_any_more_are_named(external: Path) -> None:
    result = package.quantize_dynamic(external, in_place=True)
    assert result.verification is not None
    (note,) = [note for note in result.verification.notes if "weights.bin" in note]
    assert "remove it if no other model does" in note
    assert (external.parent / "weights.bin").is_file()


def test_input_stays_as_it_was(tmp_path: Path, run_here: Run, rng: np.random.Generator) -> None:
    path = save(matmul_model(float_weight(rng, (128, 64))), tmp_path / "in.onnx")
    before, stamp = path.read_bytes(), path.stat().st_mtime_ns
    assert run_here("dynamic", "in.onnx", cwd=tmp_path).returncode == 0
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, stamp)
