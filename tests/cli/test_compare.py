"""``onnxq compare`` as a user calls it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from onnxq import quantize_static
from onnxq.comparison.gates import GATE_RULES
from onnxq.comparison.results import Footprint
from tests.cli.running import CALIB_DATA, COMMAND, SAMPLE_MODELS, assert_refused, list_files, onnxq
from tests.models import FloatArray, float_weight, make_model, save

Run = Callable[..., CompletedProcess[str]]

INPUTS, CLASSES, ROWS, SAMPLES = 16, 10, 8, 5
INPUT, OUTPUT = f"float[N, {INPUTS}] x", f"float[N, {CLASSES}] logits"

PAIR = ("float.onnx", "coarse.onnx", "--data", "samples")
QUICK = (*PAIR, "--no-latency")

GATES: dict[str, tuple[str, str]] = {
    "min-sqnr": ("5", "90"),
    "min-cosine": ("0.8", "0.9999999"),
    "min-agreement": ("40", "0.9999"),
    "min-accuracy": ("0.4", "99.99"),
    "max-accuracy-drop": ("60", "-1"),
    "min-speedup": ("0.001", "1000"),
    "max-size-ratio": ("1.001", "0.5"),
    "max-latency-ms": ("10000", "0.000001"),
}
"""A limit that is met and one that is not."""

METRIC = """
import numpy as np

def mean(outputs, inputs, name):
    print("called with", name)
    return float(np.mean(outputs["logits"]) + 0 * inputs["x"].sum())

def nothing(outputs, inputs, name):
    return None

def broken(outputs, inputs, name):
    return outputs["no such output"]

def read():
    print("reading")
    for seed in range(3):
        yield {"x": np.random.default_rng(seed).standard_normal((2, 16)).astype(np.float32)}
"""


def layer(weight: FloatArray) -> onnx.ModelProto:
    return make_model("[layer] logits = MatMul(x, w)", INPUT, OUTPUT, {"w": weight})


def coarse(weight: FloatArray) -> FloatArray:
    """A third of a standard deviation as the step."""
    return (np.round(weight * 12) / 12).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A model, the same with coarse weights, samples, and labels: what the float model says."""
    weight = float_weight(rng, (INPUTS, CLASSES))
    save(layer(weight), tmp_path / "float.onnx")
    save(layer(coarse(weight)), tmp_path / "coarse.onnx")
    (tmp_path / "samples").mkdir()
    labels = {}
    for index in range(SAMPLES):
        x = rng.standard_normal((ROWS, INPUTS)).astype(np.float32)
        np.savez(tmp_path / "samples" / f"{index}.npz", x=x)
        labels[str(index)] = (x @ weight).argmax(axis=1).tolist()
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    (tmp_path / "metrics.py").write_text(METRIC)
    return tmp_path


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample cnn and its int8 form, in a folder beside their data."""
    folder = tmp_path_factory.mktemp("cnn")
    shutil.copy(SAMPLE_MODELS / "cnn.onnx", folder)
    calib = CALIB_DATA / "cnn" / "calib"
    quantize_static(
        folder / "cnn.onnx", calib, folder / "int8.onnx", method="minmax", accuracy="fast"
    )
    (folder / "data").symlink_to(CALIB_DATA / "cnn")
    return folder


@pytest.fixture(autouse=True)
def no_footprint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes less for each comparison in this process; those of their own do all."""

    def measure(path: Path, _feeds: object) -> Footprint:
        return Footprint(size_bytes=path.stat().st_size)

    monkeypatch.setattr("onnxq.pipelines.compare.measure_footprint", measure)


def read_report(result: CompletedProcess[str], exit_code: int = 0) -> dict[str, Any]:
    """The JSON, which must be valid to the letter: no NaN, no Infinity."""

    def refuse(number: str) -> None:
        raise AssertionError(f"{number} is no JSON")

    assert result.returncode == exit_code, result.stderr
    found: dict[str, Any] = json.loads(result.stdout, parse_constant=refuse)
    return found


def left_in(temporary: Path) -> list[str]:
    """What onnxq left; onnxruntime writes a file .ses of its own."""
    return [name for name in list_files(temporary) if name != ".ses"]


def gate_lines(result: CompletedProcess[str]) -> list[str]:
    return [line for line in result.stdout.splitlines() if line.startswith(("PASS ", "FAIL "))]


# The whole command on a model that was really quantized.


def test_sample_model(cnn: Path) -> None:
    before = list_files(cnn)
    result = onnxq(
        *("compare", "cnn.onnx", "int8.onnx", "--data", "data/eval", "--layers"),
        *("--rounds", "3", "--min-sqnr", "30", "--min-agreement", "98"),
        *("--max-accuracy-drop", "1", "--max-size-ratio", "0.4"),
        cwd=cnn,
    )
    assert result.returncode == 0, result.stderr
    text = result.stdout
    assert text.startswith("cnn.onnx -> int8.onnx\ncompared on: data/eval (16 samples)\n")
    for word in ("logits", "top-1", "top-5", "latency, 1 thread", "peak memory", "by itself"):
        assert word in text
    for part in ("16 QLinearConv", "1 Gemm", "16 Conv, 1 Gemm", "x smaller", "in float with full"):
        assert part in text
    assert [line.split()[:2] for line in gate_lines(result)] == [
        ["PASS", "min-sqnr"],
        ["PASS", "min-agreement"],
        ["PASS", "max-accuracy-drop"],
        ["PASS", "max-size-ratio"],
    ]
    assert list_files(cnn) == before


def test_labels_beside_the_data_of_every_sample(cnn: Path, run_here: Run) -> None:
    result = run_here(
        *("compare", "cnn.onnx", "int8.onnx", "--data", "data/eval", "--json", "--no-latency"),
        cwd=cnn,
    )
    top_1, top_5 = read_report(result)["metrics"]
    assert (top_1["name"], top_5["name"]) == ("top-1", "top-5")
    assert top_1["samples"] == top_5["samples"] == 512
    assert 0.9 < top_1["float_value"] <= top_5["float_value"] <= 1.0
    assert top_1["drop_points"] == pytest.approx(
        100 * (top_1["float_value"] - top_1["quantized_value"])
    )


def test_layers(cnn: Path, run_here: Run) -> None:
    result = run_here(
        *("compare", "cnn.onnx", "int8.onnx", "--data", "data/eval", "--layers"),
        *("--samples", "3", "--json", "--no-latency"),
        cwd=cnn,
    )
    layers = read_report(result)["layers"]
    assert {one["operator"] for one in layers} == {"Conv", "Gemm", "Add"}
    assert len([one for one in layers if one["operator"] == "Conv"]) == 16
    added = [one["added_sqnr_db"] for one in layers if one["added_sqnr_db"] is not None]
    assert added == sorted(added)
    by_tensor = {one["tensor"]: one for one in layers}
    (output,) = (one for one in layers if one["operator"] == "Gemm")
    assert output is by_tensor["logits"]
    # The errors before it reach the last layer, which itself adds nothing like as much.
    assert output["accumulated_sqnr_db"] is not None
    own = output["added_sqnr_db"]
    assert own is None or own > output["accumulated_sqnr_db"]


def test_both_levels_of_optimisation(cnn: Path, run_here: Run) -> None:
    result = run_here(
        *("compare", "cnn.onnx", "int8.onnx", "--data", "data/eval", "--samples", "2"),
        *("--json", "--no-latency"),
        cwd=cnn,
    )
    found = read_report(result)
    full, none = found["executions"]
    assert (full["level"], none["level"]) == ("all", "none")
    assert full["graph"]["integer_nodes"] == {"QLinearConv": 16}
    assert none["graph"]["integer_nodes"] == {}
    assert full["float_layers"] == ["/classifier/Gemm"]
    assert found["outputs"] == full["outputs"]


# Numbers.


def test_figures_against_numpy(folder: Path, run_here: Run) -> None:
    found = read_report(run_here("compare", *QUICK, "--json", cwd=folder))
    sessions = [onnxruntime.InferenceSession(folder / one) for one in PAIR[:2]]
    files = sorted((folder / "samples").iterdir())
    a, b = ([one.run(None, dict(np.load(file)))[0] for file in files] for one in sessions)
    noise = sum(np.sum((x - y).astype(np.float64) ** 2) for x, y in zip(a, b, strict=True))
    signal = sum(np.sum(x.astype(np.float64) ** 2) for x in a)
    same = np.mean([np.mean(x.argmax(1) == y.argmax(1)) for x, y in zip(a, b, strict=True)])
    (output,) = found["outputs"]
    assert output["sqnr_db"] == pytest.approx(10 * np.log10(signal / noise), abs=1e-3)
    assert output["agreement"] == pytest.approx(same)
    worst = max(np.abs(x - y).max() for x, y in zip(a, b, strict=True))
    assert output["max_abs_error"] == pytest.approx(worst, rel=1e-5)
    assert 0.4 < same < 1.0
    top_1 = found["metrics"][0]
    assert (top_1["float_value"], top_1["quantized_value"]) == (1.0, pytest.approx(same))
    assert found["samples"] == SAMPLES
    assert found["float_footprint"]["size_bytes"] == (folder / "float.onnx").stat().st_size


def test_identical_models(folder: Path, run_here: Run) -> None:
    arguments = ("compare", "float.onnx", "float.onnx", "--data", "samples", "--layers")
    arguments += ("--no-latency", "--min-sqnr", "200", "--min-cosine", "1", "--min-agreement", "1")
    result = run_here(*arguments, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "identical" in result.stdout
    assert "PASS min-sqnr 200 dB: identical (output 'logits')" in result.stdout
    assert "no smaller" in result.stdout
    found = read_report(run_here(*arguments, "--json", cwd=folder))
    (output,) = found["outputs"]
    assert output["identical"] is True
    assert output["sqnr_db"] is None
    assert found["passed"] is True
    for one in found["layers"]:
        assert one["added_sqnr_db"] is None
        assert one["accumulated_sqnr_db"] is None


def test_quantized_model_may_stand_first(cnn: Path, run_here: Run) -> None:
    found = read_report(
        run_here(
            *("compare", "int8.onnx", "cnn.onnx", "--data", "data/eval", "--samples", "2"),
            *("--json", "--no-latency"),
            cwd=cnn,
        )
    )
    assert found["float_footprint"]["size_bytes"] < found["quantized_footprint"]["size_bytes"]
    assert any("x larger" in line for line in found["verdict"])


def test_latency_is_of_both_models(folder: Path, run_here: Run) -> None:
    found = read_report(run_here("compare", *PAIR, "--json", "--threads", "2", cwd=folder))
    latency = found["latency"]
    assert latency["threads"] == 2
    assert latency["rounds"] >= 3
    for kind in ("float", "quantized"):
        low, high = latency[f"{kind}_spread_ms"]
        assert 0 < low <= latency[f"{kind}_ms"] <= high
    assert latency["speedup"] == pytest.approx(latency["float_ms"] / latency["quantized_ms"])


def test_no_latency(folder: Path, run_here: Run) -> None:
    found = read_report(run_here("compare", *QUICK, "--json", cwd=folder))
    assert found["latency"] is None
    text = run_here("compare", *QUICK, cwd=folder).stdout
    assert "latency" not in text
    assert "faster here" not in text


# Gates and exit codes.


def test_every_gate_is_tried() -> None:
    assert list(GATES) == list(GATE_RULES)


@pytest.mark.parametrize("is_met", [True, False], ids=["met", "not-met"])
@pytest.mark.parametrize("name", GATES)
def test_gate(name: str, is_met: bool, folder: Path, run_here: Run) -> None:
    latency = () if name in ("min-speedup", "max-latency-ms") else ("--no-latency",)
    limit = GATES[name][0 if is_met else 1]
    result = run_here("compare", *PAIR, *latency, "--rounds", "3", f"--{name}", limit, cwd=folder)
    assert result.returncode == (0 if is_met else 1), result.stderr
    assert result.stderr.count("error") == 0
    (line,) = gate_lines(result)
    assert line.startswith(f"{'PASS' if is_met else 'FAIL'} {name} ")
    assert "not measured" not in line


def test_all_gates_are_one_line_each(folder: Path, run_here: Run) -> None:
    limits = [word for name, (met, _) in GATES.items() for word in (f"--{name}", met)]
    result = run_here("compare", *PAIR, "--rounds", "3", *limits, cwd=folder)
    assert result.returncode == 0, result.stdout
    assert [line.split()[1] for line in gate_lines(result)] == list(GATES)
    limits[-1] = GATES["max-latency-ms"][1]
    result = run_here("compare", *PAIR, "--rounds", "3", *limits, cwd=folder)
    assert result.returncode == 1
    assert [line[:4] for line in gate_lines(result)] == ["PASS"] * 7 + ["FAIL"]


@pytest.mark.parametrize("name", GATES)
def test_gate_on_what_was_not_measured_fails(name: str, folder: Path, run_here: Run) -> None:
    (folder / "labels.json").unlink()
    # One row of numbers is no output that looks like scores; integers have no SQNR.
    cast = "[layer] f = MatMul(x, w) y = Cast<to = 6>(f)"
    for one in PAIR[:2]:
        weight = np.ones((INPUTS, CLASSES), np.float32)
        model = make_model(cast, INPUT, f"int32[N, {CLASSES}] y", {"w": weight})
        save(model, folder / one)
    result = run_here("compare", *QUICK, f"--{name}", GATES[name][0], "--json", cwd=folder)
    is_size = name == "max-size-ratio"
    (gate,) = read_report(result, 0 if is_size else 1)["gates"]
    assert gate["is_met"] is is_size
    if not is_size:
        assert gate["reached"] is None
        assert gate["detail"]


def test_gates_in_json(folder: Path, run_here: Run) -> None:
    result = run_here(
        "compare", *QUICK, "--min-sqnr", "90", "--max-size-ratio", "2", "--json", cwd=folder
    )
    found = read_report(result, 1)
    assert found["passed"] is False
    sqnr, size = found["gates"]
    assert set(sqnr) == {"name", "limit", "reached", "unit", "is_met", "detail"}
    assert (sqnr["name"], sqnr["limit"], sqnr["unit"]) == ("min-sqnr", 90.0, "dB")
    assert sqnr["reached"] == pytest.approx(found["outputs"][0]["sqnr_db"])
    assert (sqnr["is_met"], size["is_met"]) == (False, True)


def test_exit_code_of_the_process(folder: Path) -> None:
    result = onnxq("compare", *QUICK, "--min-sqnr", "90", cwd=folder)
    assert result.returncode == 1
    assert "FAIL min-sqnr 90 dB" in result.stdout
    assert "error" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--min-sqnr", "nan"), ("--min-sqnr nan",)),
        (("--min-agreement", "101"), ("--min-agreement 101.0", "0.98 or 98")),
        (("--min-accuracy", "-1"), ("--min-accuracy -1.0",)),
        (("--samples", "0"), ("--samples 0",)),
        (("--report", "report.pdf"), ("report.pdf", ".html")),
        (("--report", "report"), ("report", ".html")),
        (("--metric", "metrics"), ("--metric metrics", "module:function")),
        (("--metric", "metrics.py:none"), ("has no function 'none'",)),
        (("--metric", "none.py:f"), ("no file none.py",)),
        (("--reader", "metrics.py:read"), ("--data", "--reader")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_wrong_call(
    arguments: tuple[str, ...], parts: tuple[str, ...], folder: Path, run_here: Run
) -> None:
    before = list_files(folder)
    assert_refused(run_here("compare", *QUICK, *arguments, cwd=folder), 2, *parts)
    assert list_files(folder) == before


def test_samples_are_needed(folder: Path, run_here: Run) -> None:
    assert_refused(run_here("compare", "float.onnx", "coarse.onnx", cwd=folder), 2, "--data")


@pytest.mark.parametrize("arguments", [(), ("float.onnx",), ("--min-sqnr", "x", *PAIR)])
def test_usage(arguments: tuple[str, ...], folder: Path, run_here: Run) -> None:
    result = run_here("compare", *arguments, cwd=folder)
    assert_refused(result, 2, "see onnxq compare --help")


# Models that do not work, or do not belong together.


@pytest.mark.parametrize("which", [0, 1], ids=["float", "quantized"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "other", "folder"])
def test_damaged_model(which: int, damage: str, folder: Path, run_here: Run) -> None:
    path = folder / PAIR[which]
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes({"empty": b"", "cut": content[:100], "other": b"no model"}[damage])
    assert_refused(run_here("compare", *QUICK, cwd=folder), 3, PAIR[which])


def test_missing_model_of_a_process(folder: Path) -> None:
    result = onnxq("compare", "none.onnx", "coarse.onnx", "--data", "samples", cwd=folder)
    assert_refused(result, 3, "none.onnx")


OTHER: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "input": (
        "logits = MatMul(z, w)",
        f"float[N, {INPUTS}] z",
        OUTPUT,
        ("coarse.onnx: takes z, and float.onnx takes x", "no two forms of one model"),
    ),
    "one-more-input": (
        "a = MatMul(x, w) logits = Add(a, b)",
        f"{INPUT}, float[{CLASSES}] b",
        OUTPUT,
        ("coarse.onnx: takes b, x, and float.onnx takes x", "no two forms of one model"),
    ),
    "output": (
        "other = MatMul(x, w)",
        INPUT,
        f"float[N, {CLASSES}] other",
        ("has no output 'logits'",),
    ),
    "shape": (
        "a = MatMul(x, w) logits = Transpose(a)",
        INPUT,
        f"float[{CLASSES}, N] logits",
        (f"shape [{CLASSES}, {ROWS}]", f"[{ROWS}, {CLASSES}] in the float one"),
    ),
    "nan": (
        "a = MatMul(x, w) zero = Sub(a, a) logits = Div(a, zero)",
        INPUT,
        OUTPUT,
        ("output 'logits'", "NaN or infinity"),
    ),
}


@pytest.mark.parametrize("kind", OTHER)
def test_model_of_another_kind(kind: str, folder: Path, run_here: Run) -> None:
    nodes, inputs, outputs, parts = OTHER[kind]
    weight = np.ones((INPUTS, CLASSES), np.float32)
    save(make_model(nodes, inputs, outputs, {"w": weight}), folder / "coarse.onnx")
    assert_refused(run_here("compare", *QUICK, cwd=folder), 3, *parts)


def test_outputs_may_be_in_another_order(folder: Path, run_here: Run) -> None:
    weight = np.ones((INPUTS, CLASSES), np.float32)
    both = (f"float[N, {CLASSES}] a", f"float[N, {CLASSES}] b")
    nodes = "a = MatMul(x, w) b = Neg(a)"
    save(make_model(nodes, INPUT, ", ".join(both), {"w": weight}), folder / "float.onnx")
    save(make_model(nodes, INPUT, ", ".join(both[::-1]), {"w": weight}), folder / "coarse.onnx")
    found = read_report(run_here("compare", *QUICK, "--json", cwd=folder))
    assert [(one["name"], one["identical"]) for one in found["outputs"]] == [
        ("a", True),
        ("b", True),
    ]


def test_nothing_is_left_in_the_temporary_folder(
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    run_here: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    temporary = tmp_path_factory.mktemp("temporary")
    command = ("compare", *PAIR, "--layers", "--rounds", "3")
    result = onnxq(*command, cwd=folder, environment={"TMPDIR": str(temporary)})
    assert result.returncode == 0, result.stderr
    assert left_in(temporary) == []
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    for arguments, exit_code in (
        (("--layers", "--min-sqnr", "90"), 1),
        (("--metric", "metrics.py:broken"), 3),
    ):
        result = run_here("compare", *QUICK, *arguments, cwd=folder)
        assert result.returncode == exit_code, result.stderr
        assert left_in(temporary) == []


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_interrupted(
    number: signal.Signals,
    exit_code: int,
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    temporary = tmp_path_factory.mktemp("temporary")
    (folder / "slow.py").write_text(
        "import pathlib, time\n"
        "def wait(outputs, inputs, name):\n"
        "    pathlib.Path('started').touch()\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [*COMMAND, "compare", *QUICK, "--metric", "slow.py:wait", "--report", "r.json"],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + 30
        while not (folder / "started").exists():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == exit_code
    assert stdout == ""
    assert stderr.splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in stderr
    assert left_in(temporary) == []
    assert not (folder / "r.json").exists()


# Samples.


def test_sample_that_does_not_fit(folder: Path, run_here: Run) -> None:
    np.savez(folder / "samples" / "9.npz", x=np.ones((2, INPUTS + 1), np.float32))
    assert_refused(
        run_here("compare", *QUICK, cwd=folder), 3, "9.npz", f"[2, {INPUTS + 1}]", "--skip-bad"
    )
    result = run_here("compare", *QUICK, "--skip-bad", "--json", cwd=folder)
    found = read_report(result)
    assert found["samples"] == SAMPLES
    assert any(note.startswith("1 bad sample") for note in found["notes"])


def test_all_samples_are_bad(folder: Path, run_here: Run) -> None:
    for path in (folder / "samples").iterdir():
        path.write_bytes(b"no sample")
    assert_refused(run_here("compare", *QUICK, "--skip-bad", cwd=folder), 3, "all 5 samples")


@pytest.mark.parametrize("kind", ["missing", "empty", "file"])
def test_no_data(kind: str, folder: Path, run_here: Run) -> None:
    data = folder / "elsewhere"
    if kind == "empty":
        data.mkdir()
    elif kind == "file":
        data.touch()
    result = run_here("compare", "float.onnx", "coarse.onnx", "--data", data, cwd=folder)
    assert_refused(result, 3, "elsewhere")


def test_some_of_the_samples(folder: Path, run_here: Run) -> None:
    found = read_report(run_here("compare", *QUICK, "--samples", "2", "--json", cwd=folder))
    assert found["samples"] == 2
    assert found["metrics"][0]["samples"] == 2 * ROWS


def test_reader(folder: Path, run_here: Run) -> None:
    result = run_here(
        *("compare", "float.onnx", "coarse.onnx", "--reader", "metrics.py:read"),
        *("--no-latency", "--layers", "--json"),
        cwd=folder,
    )
    found = read_report(result)
    assert found["samples"] == 3
    assert "metrics.py:read" in found["data"]
    assert found["metrics"] == []
    assert len(found["layers"]) == 1
    assert "reading" in result.stderr


def save_images(folder: Path, rng: np.random.Generator) -> None:
    """Images in one folder a class, and models that take them."""
    for name in ("cat", "dog"):
        (folder / "images" / name).mkdir(parents=True)
        for index in range(3):
            pixels = rng.integers(0, 256, (9, 9, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name / f"{index}.png")
    weight = float_weight(rng, (3 * 6 * 6, 2))
    for name, one in (("float.onnx", weight), ("coarse.onnx", coarse(weight))):
        nodes = "f = Flatten(x) logits = MatMul(f, w)"
        model = make_model(nodes, "float[N, 3, 6, 6] x", "float[N, 2] logits", {"w": one})
        save(model, folder / name)


def test_images_in_class_folders(folder: Path, rng: np.random.Generator, run_here: Run) -> None:
    (folder / "labels.json").unlink()
    save_images(folder, rng)
    result = run_here(
        *("compare", "float.onnx", "coarse.onnx", "--data", "images", "--no-latency"),
        *("--mean", "0.5", "--std", "0.25", "--json"),
        cwd=folder,
    )
    found = read_report(result)
    assert found["samples"] == 6
    assert found["metrics"][0]["name"] == "top-1"
    assert found["metrics"][0]["samples"] == 6
    assert any(note.startswith("images: size 6x6") for note in found["notes"])


# Labels and metrics.


@pytest.mark.parametrize("place", ["beside", "inside", "named"])
@pytest.mark.parametrize("kind", ["json", "csv", "npy"])
def test_labels(place: str, kind: str, folder: Path, run_here: Run) -> None:
    labels = json.loads((folder / "labels.json").read_text())
    (folder / "labels.json").unlink()
    path = {
        "beside": folder / f"labels.{kind}",
        "inside": folder / "samples" / f"labels.{kind}",
        "named": folder / f"classes.{kind}",
    }[place]
    if kind == "csv":  # one class a sample: samples of one row each
        for index in range(SAMPLES):
            x = np.load(folder / "samples" / f"{index}.npz")["x"]
            np.savez(folder / "samples" / f"{index}.npz", x=x[:1])
        path.write_text("sample,class\n" + "".join(f"{k},{v[0]}\n" for k, v in labels.items()))
    elif kind == "json":
        path.write_text(json.dumps({"y": labels, "output": "logits"}))
    else:
        if place == "inside":
            pytest.skip("an .npy file among the samples is a sample")
        np.save(path, np.concatenate([labels[str(index)] for index in range(SAMPLES)]))
    named = ("--labels", path.name) if place == "named" else ()
    found = read_report(run_here("compare", *QUICK, *named, "--json", cwd=folder))
    top_1, _ = found["metrics"]
    assert top_1["float_value"] == 1.0
    assert top_1["samples"] == SAMPLES * (1 if kind == "csv" else ROWS)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("{", ("cannot be read as labels",)),
        ('{"0": [0, 0, 0, 0, 0, 0, 0, 99]}', ("class 99", f"{CLASSES} classes")),
        ('{"0": [1, 2]}', ("2 labels", f"{ROWS} rows")),
        ('{"y": {"0": [0]}, "output": "none"}', ("names output 'none'", "logits")),
    ],
)
def test_labels_that_do_not_fit(
    content: str, parts: tuple[str, ...], folder: Path, run_here: Run
) -> None:
    (folder / "classes.json").write_text(content)
    result = run_here("compare", *QUICK, "--labels", "classes.json", cwd=folder)
    assert_refused(result, 3, "classes.json", *parts)


def test_metric(folder: Path, run_here: Run) -> None:
    result = run_here("compare", *QUICK, "--metric", "metrics.py:mean", "--json", cwd=folder)
    own, top_1, _ = read_report(result)["metrics"]
    assert own["name"] == "metrics.py:mean"
    assert own["is_share"] is False
    assert own["drop_points"] is None
    assert own["samples"] == SAMPLES
    assert own["float_value"] != own["quantized_value"]
    assert top_1["name"] == "top-1"
    assert "called with 0.npz" in result.stderr
    by_module = run_here("compare", *QUICK, "--metric", "metrics:mean", "--json", cwd=folder)
    assert read_report(by_module)["metrics"][0]["float_value"] == own["float_value"]


def test_limit_of_a_metric_is_its_own_number(folder: Path, run_here: Run) -> None:
    metric = (*QUICK, "--metric", "metrics.py:mean")
    result = run_here("compare", *metric, "--min-accuracy", "-1000", cwd=folder)
    assert result.returncode == 0, result.stderr
    result = run_here("compare", *metric, "--min-accuracy", "1000", cwd=folder)
    assert result.returncode == 1
    assert "FAIL min-accuracy 1000: " in result.stdout


def test_metric_that_rates_nothing(folder: Path, run_here: Run) -> None:
    (folder / "labels.json").unlink()
    result = run_here(
        "compare",
        *QUICK,
        *("--metric", "metrics.py:nothing", "--min-accuracy", "0.5", "--json"),
        cwd=folder,
    )
    found = read_report(result, 1)
    assert found["metrics"] == []
    assert found["gates"][0]["reached"] is None


def test_metric_that_fails(folder: Path, run_here: Run) -> None:
    result = run_here("compare", *QUICK, "--metric", "metrics.py:broken", cwd=folder)
    assert_refused(result, 3, "metrics.py:broken", "sample 0.npz", "KeyError")


# Reports.


def test_all_reports_at_once(folder: Path) -> None:
    reports = [word for end in ("json", "md", "xml", "html") for word in ("--report", f"r.{end}")]
    limits = ("--min-sqnr", "5", "--min-cosine", "0.9999999")
    environment = {"GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    (folder / "summary.md").write_text("# before\n")
    before = set(list_files(folder))
    result = onnxq(
        "compare", *QUICK, "--layers", *limits, *reports, cwd=folder, environment=environment
    )
    assert result.returncode == 1, result.stderr
    assert set(list_files(folder)) - before - {"__pycache__"} == {
        "r.json",
        "r.md",
        "r.xml",
        "r.html",
    }
    found = json.loads((folder / "r.json").read_text())
    assert [one["is_met"] for one in found["gates"]] == [True, False]
    suite = ElementTree.parse(folder / "r.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert [one.get("name") for one in suite.iter("testcase")] == ["min-sqnr", "min-cosine"]
    (failure,) = suite.iter("failure")
    assert (failure.text or "") in result.stdout
    markdown = (folder / "r.md").read_text("utf-8")
    assert "FAIL" in markdown
    assert "min-cosine" in markdown
    summary = (folder / "summary.md").read_text("utf-8")
    assert summary.startswith("# before\n")
    assert markdown.strip() in summary
    html = (folder / "r.html").read_text("utf-8")
    assert "onnxq compare float.onnx coarse.onnx --data samples" in html
    for part in ('src="http', 'href="http', "<link", "@import"):
        assert part not in html


def test_report_replaces_the_last_one(folder: Path, run_here: Run) -> None:
    (folder / "r.json").write_text("old")
    result = run_here("compare", *QUICK, "--report", "r.json", "--json", cwd=folder)
    assert json.loads((folder / "r.json").read_text())["outputs"] == read_report(result)["outputs"]


def test_report_that_cannot_be_written(folder: Path, run_here: Run) -> None:
    before = list_files(folder)
    result = run_here("compare", *QUICK, "--report", "none/r.json", cwd=folder)
    assert_refused(result, 3, "none/r.json", "cannot be written")
    (folder / "r.md").mkdir()
    result = run_here("compare", *QUICK, "--report", "r.md", cwd=folder)
    assert_refused(result, 3, "r.md", "cannot be written")
    (folder / "r.md").rmdir()
    assert list_files(folder) == before


def test_step_summary_that_cannot_be_written(
    folder: Path, run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder / "none" / "summary.md"))
    result = run_here("compare", *QUICK, cwd=folder)
    assert result.returncode == 3
    assert "summary.md: cannot be written" in result.stderr
    assert "SQNR" in result.stdout, "what was measured is not lost"


def test_json_is_the_only_thing_on_standard_output(folder: Path, run_here: Run) -> None:
    found = read_report(
        run_here("compare", *PAIR, "--rounds", "3", "--layers", "--json", cwd=folder)
    )
    assert set(found) == {
        *("schema_version", "float_model", "quantized_model", "data", "samples", "passed"),
        *("outputs", "metrics", "latency", "float_footprint", "quantized_footprint"),
        *("executions", "layers", "gates", "verdict", "notes"),
    }
    assert found["schema_version"] == 1
    assert (found["float_model"], found["quantized_model"]) == PAIR[:2]


def test_both_models_stay_as_they_are(folder: Path, run_here: Run) -> None:
    before = list_files(folder)
    assert run_here("compare", *PAIR, "--rounds", "3", "--layers", cwd=folder).returncode == 0
    assert list_files(folder) == before
