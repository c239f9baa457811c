"""What SECURITY.md promises, where no other test holds it: docs/reliability.md lists them all."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import onnx
import pytest

from onnxq.errors import UnsupportedModelError, make_printable
from onnxq.graph import small_files
from onnxq.runtime import memory
from tests.cli.running import REPOSITORY, SAMPLE_MODELS, assert_refused, list_files, onnxq
from tests.models import float_weight, make_model, matmul_model, save, save_external

Run = Callable[..., CompletedProcess[str]]
INPUTS = 128


@pytest.fixture
def folder(rng: np.random.Generator, tmp_path: Path) -> Path:
    """A model in a folder, samples, and a file outside the folder of the model."""
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "0.npz", x=float_weight(rng, (2, INPUTS)))
    model = matmul_model(float_weight(rng, (INPUTS, 64)))
    save(model, inner / "good.onnx")
    save_external(model, inner / "bad.onnx", "weights.bin")
    (inner / "weights.bin").rename(tmp_path / "secret.bin")
    return tmp_path


def _point_to(path: Path, location: str) -> None:
    model = onnx.load(str(path), load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    save(model, path)


# External data.


@pytest.mark.parametrize("which", [0, 1], ids=["float", "quantized"])
@pytest.mark.parametrize(
    ("location", "part"),
    [
        ("../secret.bin", "outside the folder of the model"),
        ("link.bin", "outside the folder of the model"),
        ("*/_ORT_MEM_ADDR_/*", "no such file"),
        ("/etc/hostname", "absolute paths are refused"),
    ],
)
def test_compare_reads_no_weights_from_elsewhere(
    location: str, part: str, which: int, folder: Path, run_here: Run
) -> None:
    (folder / "inner" / "link.bin").symlink_to("../secret.bin")
    _point_to(folder / "inner" / "bad.onnx", location)
    pair = ["inner/good.onnx", "inner/good.onnx"]
    pair[which] = "inner/bad.onnx"
    result = run_here("compare", *pair, "--data", "data", "--no-latency", cwd=folder)
    assert_refused(result, 3, "bad.onnx", part)


# Names in models.


def test_terminal_obeys_no_name(tmp_path: Path, run_here: Run, rng: np.random.Generator) -> None:
    model = matmul_model(float_weight(rng, (INPUTS, 64)))
    evil = "\x1b]0;title\x07\x1b[2J\x9b31m"
    model.graph.node[0].name = f"mm{evil}"
    model.graph.node[0].output[0] = model.graph.output[0].name = f"y{evil}"
    save(model, tmp_path / "in.onnx")
    shown = ""
    for command in (
        ("inspect", "in.onnx", "--plan", "dynamic"),
        ("dynamic", "in.onnx"),
        ("dynamic", "in.onnx", "--force", "--include", "zzz"),
        ("dynamic", "in.onnx", "--json", "--force"),
    ):
        result = run_here(*command, cwd=tmp_path)
        shown += result.stdout + result.stderr
    assert "mm" in shown
    assert not set(shown) & {"\x1b", "\x07", "\x9b"}


def test_messages_are_printable() -> None:
    assert make_printable("a\r\n\tb\x1b[2J\udcff") == "a b\\x1b[2J\\udcff"


# Code runs only from where the user said.


@pytest.mark.parametrize("command", ["dynamic", "compare", "run"])
def test_modules_in_the_current_folder_are_not_imported(command: str, folder: Path) -> None:
    modules = ("numpy", "onnx", "onnxruntime", "click", "json", "random", "tomllib", "onnxq")
    for name in (*modules, "sitecustomize", "usercustomize"):
        (folder / f"{name}.py").write_text(f"open('{folder}/owned', 'w').close()\n")
    (folder / "onnxq.toml").write_text(
        '[[model]]\nsource = "inner/good.onnx"\nmode = "dynamic"\neval = "data"\nlatency = false\n'
    )
    arguments = {
        "dynamic": ("inner/good.onnx", "--data", "data"),
        "compare": ("inner/good.onnx", "inner/good.onnx", "--data", "data", "--no-latency"),
        "run": (),
    }[command]
    # As the script that is installed does: Python itself puts the current folder first for -m.
    code = "import sys; sys.path.remove(''); from onnxq.cli import main; main()"
    result = onnxq(command, *arguments, cwd=folder, command=(sys.executable, "-c", code))
    assert result.returncode == 0, result.stderr
    assert not (folder / "owned").exists()


def test_lock_is_only_data(folder: Path, run_here: Run) -> None:
    evil = "__import__('os').system('touch owned')"
    entry = {"model_sha256": evil, "ranges": None, "options_sha256": evil, "versions": {evil: evil}}
    (folder / "onnxq.lock").write_text(
        json.dumps({"schema_version": 1, "models": {f"inner/good.int8.onnx{evil}": entry}})
    )
    (folder / "onnxq.toml").write_text('[[model]]\nsource = "inner/good.onnx"\nmode = "dynamic"\n')
    result = run_here("run", cwd=folder)
    assert result.returncode in (0, 3)
    assert "Traceback" not in result.stderr
    assert not (folder / "owned").exists()


# Bombs.


def _field(number: int, content: bytes) -> bytes:
    """A message in a message; protobuf itself does not write as deep as it is asked to read."""
    length, rest = b"", len(content)
    while rest > 127:
        length += bytes([rest & 127 | 128])
        rest >>= 7
    return bytes([number << 3 | 2]) + length + bytes([rest]) + content


def test_bodies_in_bodies_without_end(folder: Path, run_here: Run) -> None:
    graph = b""
    for _ in range(300):
        attribute = _field(1, b"then_branch") + _field(6, graph) + b"\xa0\x01\x05"
        graph = _field(1, _field(4, b"If") + _field(5, attribute))
    model = b"\x08\x08" + _field(7, graph) + _field(8, b"\x10\x11")
    (folder / "deep.onnx").write_bytes(model)
    for command in ("inspect", "dynamic"):
        assert_refused(run_here(command, "deep.onnx", cwd=folder), 3, "deep.onnx: ")


@pytest.mark.parametrize("called", ["f", "g"], ids=["itself", "its caller"])
def test_function_that_calls_itself(
    called: str, folder: Path, rng: np.random.Generator, run_here: Run
) -> None:
    header = '<domain: "local", opset_import: ["" : 17, "local" : 1]>'
    model = make_model(
        "h = MatMul(x, w) y = local.f(h)",
        f"float[1, {INPUTS}] x",
        "float[1, 64] y",
        {"w": float_weight(rng, (INPUTS, 64))},
        functions=f"{header} f (a) => (b) {{ b = local.{called}(a) }}"
        f"{header} g (a) => (b) {{ b = local.f(a) }}",
    )
    save(model, folder / "loop.onnx")
    result = run_here("dynamic", "loop.onnx", cwd=folder)
    assert_refused(result, 3, "loop.onnx: local function 'f' calls itself")


def test_small_files_are_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_files, "LARGEST_SMALL_FILE_BYTES", 10)
    (tmp_path / "a").write_bytes(bytes(11))
    with pytest.raises(OSError, match="has 11 bytes, at most 10 are read"):
        small_files.read_small(tmp_path / "a")
    (tmp_path / "a").write_bytes(bytes(10))
    assert small_files.read_small(tmp_path / "a") == bytes(10)


# Memory.


def _write_figures(root: Path, **files: str) -> None:
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.mark.parametrize(
    ("files", "available"),
    [
        ({}, None),
        ({"proc__meminfo": "MemTotal: 9 kB\nMemAvailable: 4 kB\n"}, 4096),
        ({"proc__meminfo": "MemTotal: 9 kB\n"}, None),
        (
            {
                "proc__meminfo": "MemAvailable: 4 kB\n",
                "sys__fs__cgroup__memory_DOT_max": "3000\n",
                "sys__fs__cgroup__memory_DOT_current": "1000\n",
            },
            2000,
        ),
        (
            {
                "proc__meminfo": "MemAvailable: 4 kB\n",
                "sys__fs__cgroup__memory_DOT_max": "max\n",
                "sys__fs__cgroup__memory_DOT_current": "1000\n",
            },
            4096,
        ),
    ],
    ids=["no figures", "available", "only the total", "container", "container without limit"],
)
def test_available_memory(files: dict[str, str], available: int | None, tmp_path: Path) -> None:
    _write_figures(tmp_path, **files)
    assert memory.read_available_memory(tmp_path) == available


def test_memory_is_refused_only_where_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "read_available_memory", lambda: 10**9)
    memory.refuse_beyond_memory(Path("m.onnx"), 10**9, advice="free some")
    with pytest.raises(UnsupportedModelError, match=r"m\.onnx: running it takes at least 1\.0 GB"):
        memory.refuse_beyond_memory(Path("m.onnx"), 10**9 + 1, advice="free some")
    monkeypatch.setattr(memory, "read_available_memory", lambda: None)
    memory.refuse_beyond_memory(Path("m.onnx"), 10**18, advice="free some")


@pytest.mark.parametrize("command", ["dynamic", "static", "compare"])
def test_model_larger_than_memory_is_refused(
    command: str, folder: Path, run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "read_available_memory", lambda: 1000)
    arguments: dict[str, tuple[str, ...]] = {
        "dynamic": ("inner/good.onnx",),
        "static": ("inner/good.onnx", "--calib", "data"),
        "compare": ("inner/good.onnx", "inner/good.onnx", "--data", "data"),
    }
    before = sorted(list_files(folder))
    result = run_here(command, *arguments[command], cwd=folder)
    assert_refused(result, 3, "good.onnx: running it takes at least", "are available; free some")
    assert sorted(list_files(folder)) == before


def test_name_of_a_file_that_is_no_text(tmp_path: Path, run_here: Run) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.onnx")
    path.write_bytes((SAMPLE_MODELS / "mlp.onnx").read_bytes())
    for extra in ((), ("--json", "--force")):
        result = run_here("dynamic", path, *extra, cwd=tmp_path)
        # onnxruntime opens no such file, which is said.
        assert_refused(result, 3, "onnxruntime cannot load it")


# Telemetry.


def test_telemetry_is_off_before_the_first_model() -> None:
    """Wherever onnxruntime is used, the module that switches it off was imported."""
    code = (
        "import onnxruntime; calls = []; "
        "onnxruntime.disable_telemetry_events = lambda: calls.append('off'); "
        "import onnxq.runtime.session, onnxq.runtime.processor; print(*calls)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert told.stdout == "off\n"
    direct = re.compile(r"^\s*(import|from) onnxruntime\b", re.MULTILINE)
    package = REPOSITORY / "onnxq"
    users = [path for path in package.rglob("*.py") if direct.search(path.read_text("utf-8"))]
    assert users == [package / "runtime" / "library.py"]
