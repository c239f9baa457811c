"""``onnxq static`` as a user calls it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from tests.apply.calibrated_models import images, save_samples, weights
from tests.cli.running import (
    CALIB_DATA,
    COMMAND,
    SAMPLE_MODELS,
    assert_refused,
    list_files,
    onnxq,
)
from tests.models import make_model, save

Run = Callable[..., CompletedProcess[str]]

CALIBRATION_KEYS = {
    "data": str,
    "samples": int,
    "held_back": int,
    "skipped": list,
    "notes": list,
    "method": str,
    "candidates": list,
    "ranges": list,
    "accuracy": str,
    "stages": list,
    "trade_off": list,
}

STAGE_KEYS = {"name", "sqnr_db", "gain_db", "kept", "seconds", "note"}


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """A model called net.onnx beside its samples."""
    save_samples(images(), tmp_path / "samples")
    # Large enough to pay for the borders of its integers, also with the one in the middle left out.
    model = make_model(
        """[first] a0 = Conv<pads = [1, 1, 1, 1]>(x, w1, b1) a = Relu(a0)
           [mid] m = Conv<pads = [1, 1, 1, 1]>(a, w2, b2) c = Relu(m)
           [last] d = Conv<pads = [1, 1, 1, 1]>(c, w4, b4) y = Neg(d)""",
        "float[N, 24, 8, 8] x",
        "float[N, 24, 8, 8] y",
        weights(
            w1=(96, 24, 3, 3), b1=(96,), w2=(96, 96, 3, 3), b2=(96,), w4=(24, 96, 3, 3), b4=(24,)
        ),
        opset=21,
    )
    return save(model, tmp_path / "net.onnx")


@pytest.fixture
def run_static(run_here: Run) -> Run:
    """``onnxq static`` without what takes most of its time."""

    def call(*arguments: str | Path, cwd: Path) -> CompletedProcess[str]:
        return run_here("static", *arguments, "--accuracy", "fast", cwd=cwd)

    return call


def report(result: CompletedProcess[str]) -> dict[str, Any]:
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def new_files(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir() if one.name not in ("net.onnx", "samples"))


def test_writes_beside_the_model_and_reports_on_standard_output(net: Path) -> None:
    result = onnxq("static", "net.onnx", "--calib", "samples", cwd=net.parent)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert new_files(net.parent) == ["net.static.onnx"]
    onnx.checker.check_model(str(net.with_name("net.static.onnx")))
    assert "calibrated on: 5 samples of samples" in result.stdout
    assert "on samples held back: minmax" in result.stdout
    assert "compared with float on: samples, samples held back from calibration" in result.stdout
    assert "3 integer QLinearConv, 0 constant DequantizeLinear" in result.stdout
    assert "net.static.onnx: " in result.stdout


def test_json(net: Path, run_here: Run) -> None:
    result = run_here("static", net, "--calib", "samples", "--json", cwd=net.parent)
    assert result.stderr == ""
    found = report(result)
    assert found["mode"] == "static"
    assert found["written"] is True
    assert found["output"] == str(net.with_name("net.static.onnx"))
    assert found["size_bytes"] == net.with_name("net.static.onnx").stat().st_size
    assert set(found["calibration"]) == set(CALIBRATION_KEYS)
    for name, kind in CALIBRATION_KEYS.items():
        assert isinstance(found["calibration"][name], kind)
    for one in found["calibration"]["ranges"]:
        assert set(one) == {"tensor", "low", "high"}
    for one in found["calibration"]["candidates"]:
        assert set(one) == {"method", "sqnr_db"}
    assert found["calibration"]["accuracy"] == "balanced"
    assert all(set(one) == STAGE_KEYS for one in found["calibration"]["stages"])
    assert found["verification"]["optimized_graph"]["integer_nodes"] == {"QLinearConv": 3}
    forms = {one["tensor"]: one["form"] for one in found["plan"]["tensors"]}
    assert forms == {"w1": "calibrated", "w2": "calibrated", "w4": "calibrated"}


@pytest.mark.parametrize("extra", [(), ("--json",)], ids=["text", "json"])
def test_dry_run(extra: tuple[str, ...], net: Path, run_static: Run) -> None:
    for path in (net.parent / "samples").iterdir():
        path.write_bytes(b"no sample")
    before = list_files(net.parent)
    result = run_static(
        net,
        "--calib",
        "samples",
        "--dry-run",
        "--save-ranges",
        "r.json",
        *extra,
        cwd=net.parent,
    )
    assert result.returncode == 0, result.stderr
    assert list_files(net.parent) == before
    if extra:
        found = report(result)
        assert found["written"] is False
        assert found["verification"] is None
    else:
        assert "calibrated" in result.stdout
        assert "dry run: nothing was written" in result.stdout


# Refusals.


@pytest.mark.parametrize(
    ("arguments", "exit_code", "parts"),
    [
        ((), 2, ("give --calib DIR or --reader",)),
        (("--calib", "samples", "--reader", "json:loads"), 2, ("--reader: give one of",)),
        (("--calib", "missing"), 3, ("missing: no such folder", "name the folder")),
        (("--calib", "net.onnx"), 3, ("net.onnx: a file; name the folder with the samples",)),
        (("--calib", "empty"), 3, ("empty",)),
        (("--reader", "nowhere:samples"), 2, ("no module 'nowhere'",)),
        (("--reader", "json"), 2, ("give module:function",)),
        (("--reader", "json:nothing"), 2, ("'json' has no function 'nothing'",)),
        (("--reader", "missing.py:samples"), 2, ("no file missing.py",)),
        (("--calib", "samples", "--samples", "0"), 2, ("--samples 0: give 1 or more",)),
        (("--calib", "samples", "--weights", "int16"), 2, ("int16", "--target onnx")),
        (("--calib", "samples", "--activations", "int8"), 2, ("int8", "--target onnx")),
        (("--calib", "samples", "--exclude", "zzz"), 2, ("'zzz' matches no node",)),
        (("--calib", "samples", "--op-types", "Blub"), 2, ("Blub",)),
        (("--calib", "samples", "--in-place", "-o", "x.onnx"), 2, ("--in-place",)),
        (("--calib", "samples", "--ranges", "missing.json"), 3, ("missing.json",)),
        (("--calib", "samples", "--save-ranges", "no/r.json"), 3, ("no/r.json",)),
        (("--calib", "samples", "-o", "no/o.onnx"), 3, ("no",)),
        (("--calib", "samples", "--method", "percentile", "--percentile", "10"), 2, ("10",)),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, tuple) else str(one),
)
def test_refusals(
    arguments: tuple[str, ...], exit_code: int, parts: tuple[str, ...], net: Path, run_static: Run
) -> None:
    (net.parent / "empty").mkdir()
    before = list_files(net.parent)
    result = run_static("net.onnx", *arguments, cwd=net.parent)
    assert_refused(result, exit_code, *parts)
    assert list_files(net.parent) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("--size", "axb"),
        ("--size", "1x2x3"),
        ("--mean", "a,b"),
        ("--std", ""),
        ("--scale", "x"),
        ("--layout", "hwc"),
        ("--channels", "grb"),
        ("--method", "best"),
        ("--samples", "many"),
        ("--weights", "fp16"),
        ("--activations", "fp8"),
        ("--unknown",),
    ],
    ids=" ".join,
)
def test_usage_errors(arguments: tuple[str, ...], net: Path, run_static: Run) -> None:
    result = run_static("net.onnx", "--calib", "samples", *arguments, cwd=net.parent)
    assert result.returncode == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert new_files(net.parent) == []


@pytest.mark.parametrize("arguments", [("--mean", "1,2"), ("--std", "0"), ("--size", "0")])
def test_image_options_that_no_image_can_have(
    arguments: tuple[str, ...], net: Path, run_static: Run
) -> None:
    result = run_static("net.onnx", "--calib", "samples", *arguments, cwd=net.parent)
    assert_refused(result, 2, arguments[0])


def test_nothing_to_quantize_is_exit_code_1(tmp_path: Path, run_static: Run) -> None:
    save_samples(images(), tmp_path / "samples")
    kind = "float[N, 24, 8, 8]"
    save(make_model("y = Relu(x)", f"{kind} x", f"{kind} y", {}), tmp_path / "net.onnx")
    result = run_static("net.onnx", "--calib", "samples", cwd=tmp_path)
    assert_refused(result, 1, "nothing to quantize")


def test_quantized_model_is_refused(net: Path, run_static: Run, run_here: Run) -> None:
    assert run_static(net, "--calib", "samples", cwd=net.parent).returncode == 0
    result = run_static("net.static.onnx", "--calib", "samples", cwd=net.parent)
    assert_refused(result, 3, "already quantized")
    result = run_here("dynamic", "net.static.onnx", cwd=net.parent)
    assert_refused(result, 3, "already quantized")


@pytest.mark.parametrize(
    "content",
    [b"", b"no sample", b"PK\x03\x04"],
    ids=["empty", "text", "cut-zip"],
)
def test_bad_file_is_named(content: bytes, net: Path, run_static: Run) -> None:
    (net.parent / "samples" / "sample_001.npz").write_bytes(content)
    result = run_static(net, "--calib", "samples", cwd=net.parent)
    assert_refused(result, 3, "samples/sample_001.npz", "--skip-bad goes on without")
    assert new_files(net.parent) == []


@pytest.mark.parametrize("bad", [[1], [4], [0, 1, 4], [0, 2, 9]], ids=str)
def test_skip_bad_counts(bad: list[int], net: Path, run_static: Run) -> None:
    folder = save_samples(images(12), net.parent / "samples")
    for index in bad:
        (folder / f"sample_{index:03d}.npz").write_bytes(b"no sample")
    found = report(run_static(net, "--calib", "samples", "--skip-bad", "--json", cwd=net.parent))
    skipped = found["calibration"]["skipped"]
    assert len(skipped) == len(bad)
    for index, message in zip(bad, sorted(skipped), strict=True):
        assert f"sample_{index:03d}.npz" in message
    held_back = [index for index in (4, 9) if index not in bad]
    assert found["calibration"]["held_back"] == len(held_back)
    assert found["calibration"]["samples"] == 12 - len(set(bad) | {4, 9})


def test_all_bad_is_an_error(net: Path, run_static: Run) -> None:
    for path in (net.parent / "samples").iterdir():
        path.write_bytes(b"no sample")
    result = run_static(net, "--calib", "samples", "--skip-bad", cwd=net.parent)
    assert_refused(result, 3, "samples are bad; the first")
    assert new_files(net.parent) == []


def test_sample_that_lacks_an_input(net: Path, run_static: Run) -> None:
    np.savez(net.parent / "samples" / "sample_000.npz", other=np.zeros(3))
    result = run_static(net, "--calib", "samples", cwd=net.parent)
    assert_refused(result, 3, "sample_000.npz", "x")


# Options.


@pytest.mark.parametrize(
    ("options", "check"),
    [
        (("--method", "minmax"), lambda one: one["calibration"]["method"] == "minmax"),
        (("--method", "entropy"), lambda one: one["calibration"]["candidates"] == []),
        (("--samples", "5"), lambda one: one["calibration"]["samples"] == 4),
        (("--samples", "5", "--seed", "3"), lambda one: "seed 3" in str(one["calibration"])),
        (("--weights", "uint8"), lambda one: "uint8" in one["plan"]["tensors"][0]["scheme"]),
        (("--weights", "int4"), lambda one: "int4" in one["plan"]["tensors"][0]["scheme"]),
        (("--asymmetric",), lambda one: "slower than float" in one["plan"]["tensors"][0]["reason"]),
        (
            ("--weights", "int4", "--symmetric"),
            lambda one: one["plan"]["tensors"][0]["scheme"] == "int4 per channel",
        ),
        (("--per-tensor",), lambda one: "per tensor" in one["plan"]["tensors"][0]["scheme"]),
        (("--reduce-range",), lambda one: "7-bit" in one["plan"]["tensors"][0]["scheme"]),
        (("--no-reduce-range",), lambda one: "7-bit" not in one["plan"]["tensors"][0]["scheme"]),
        (("--target", "onnx"), lambda one: one["plan"]["target"] == "onnx"),
        (
            ("--target", "onnx", "--activations", "int8", "--symmetric-activations"),
            lambda one: "int8 symmetric" in json.dumps(one["plan"]),
        ),
        (
            ("--exclude", "mid"),
            lambda one: one["verification"]["optimized_graph"]["float_nodes"] != {},
        ),
        (
            ("--include", "first", "--include", "mid"),
            lambda one: (
                one["verification"]["optimized_graph"]["integer_nodes"] == {"QLinearConv": 2}
            ),
        ),
        (
            ("--exclude", "mid", "--no-storage"),
            lambda one: {t["tensor"]: t["form"] for t in one["plan"]["tensors"]}["w2"] == "float",
        ),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, tuple) else "",
)
def test_option_does_what_it_says(
    options: tuple[str, ...], check: Callable[[Any], bool], net: Path, run_static: Run
) -> None:
    save_samples(images(10), net.parent / "samples")
    found = report(run_static(net, "--calib", "samples", "--json", *options, cwd=net.parent))
    assert check(found), json.dumps(found, indent=1)


def test_ranges_are_saved_and_read(net: Path, run_static: Run, run_here: Run) -> None:
    save_ranges = ("--calib", "samples", "--save-ranges", "r.json", "-o", "one.onnx")
    first = run_static(net, *save_ranges, cwd=net.parent)
    assert first.returncode == 0, first.stderr
    take = ("--calib", "samples", "--ranges", "r.json", "-o", "two.onnx")
    second = run_here("static", net, *take, cwd=net.parent)
    assert second.returncode == 0, second.stderr
    assert "calibrated on: r.json" in second.stdout
    assert new_files(net.parent) == ["one.onnx", "r.json", "two.onnx"]
    assert (net.parent / "one.onnx").read_bytes() == (net.parent / "two.onnx").read_bytes()


def test_existing_output(net: Path, run_static: Run) -> None:
    output = net.with_name("net.static.onnx")
    output.write_text("of the user")
    result = run_static(net, "--calib", "samples", cwd=net.parent)
    assert_refused(result, 3, "exists already; --force replaces it")
    assert output.read_text() == "of the user"
    assert run_static(net, "--calib", "samples", "--force", cwd=net.parent).returncode == 0
    onnx.checker.check_model(str(output))


def test_in_place(net: Path, run_static: Run) -> None:
    assert run_static(net, "--calib", "samples", "--in-place", cwd=net.parent).returncode == 0
    assert new_files(net.parent) == []
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(str(net)).graph.node}


def test_few_samples_are_said(net: Path, run_static: Run) -> None:
    result = run_static(net, "--calib", "samples", "--samples", "3", cwd=net.parent)
    assert result.returncode == 0, result.stderr
    assert "also used to calibrate: too few to hold any back" in result.stdout


# Kinds of samples.

READER = """
import numpy as np
print("read by the user's code")
def samples():
    from helper import SHAPE
    rng = np.random.default_rng(7)
    for _ in range(6):
        yield {"x": rng.standard_normal(SHAPE).astype(np.float32)}
"""


@pytest.mark.parametrize("name", ["my_reader:samples", "my_reader.py:samples", "sub/r.py:samples"])
def test_reader_of_the_current_directory(
    name: str, net: Path, run_static: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = net.parent / "sub" if name.startswith("sub") else net.parent
    folder.mkdir(exist_ok=True)
    (folder / ("r.py" if name.startswith("sub") else "my_reader.py")).write_text(READER)
    (folder / "helper.py").write_text("SHAPE = (1, 24, 8, 8)\n")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    arguments = (net, "--reader", name, "--json", "-o", "reader.onnx")
    if name == "my_reader:samples":  # found by the name of a module, which Python remembers
        result = onnxq("static", *arguments, "--accuracy", "fast", cwd=net.parent)
    else:
        result = run_static(*arguments, cwd=net.parent)
    assert report(result)["calibration"]["data"] == f"reader {name}"
    assert "read by the user's code" in result.stderr
    given = run_static(net, "--calib", "samples", "-o", "folder.onnx", cwd=net.parent)
    assert given.returncode == 0
    assert (net.parent / "reader.onnx").read_bytes() == (net.parent / "folder.onnx").read_bytes()


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ("raise RuntimeError('no data base')", "no data base"),
        ("return {'x': 1}", "one dict"),
        ("return 5", "one int"),
        ("return []", "gave no samples"),
        ("return [{'x': 'text'}]", "x"),
        ("return [5]", "give a dictionary"),
        ("exit(3)", "failed"),
    ],
)
def test_reader_that_fails(body: str, part: str, net: Path, run_static: Run) -> None:
    path = net.with_name("failing.py")
    path.write_text(f"def samples():\n    {body}\n")
    result = run_static(net, "--reader", f"{path}:samples", cwd=net.parent)
    assert_refused(result, 3, part)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A model of RGB images of 16x16, and photos of other sizes."""
    model = make_model(
        "[stem] s = Conv<strides = [2, 2]>(image, w0) r = Relu(s) [first] a = Conv(r, w1) "
        "t = Relu(a) [last] d = Conv(t, w4) y = Neg(d)",
        "float[N, 3, 16, 16] image",
        "float[N, 32, 6, 6] y",
        weights(w0=(32, 3, 3, 3), w1=(32, 32, 1, 1), w4=(32, 32, 2, 2)),
        opset=21,
    )
    save(model, tmp_path / "net.onnx")
    folder = tmp_path / "photos" / "class"
    folder.mkdir(parents=True)
    for index in range(6):
        pixels = np.zeros((20 + index, 30, 3), np.uint8)
        pixels[:, 15:] = 255
        Image.fromarray(pixels).save(folder / f"{index}.{'png' if index % 2 else 'jpg'}")
    return tmp_path


def image_range(found: dict[str, Any]) -> tuple[float, float]:
    (one,) = (one for one in found["calibration"]["ranges"] if one["tensor"] == "image")
    return one["low"], one["high"]


def test_images(photos: Path, run_static: Run) -> None:
    arguments = ("net.onnx", "--calib", "photos", "--json", "--method", "minmax")
    plain = report(run_static(*arguments, cwd=photos))
    low, high = image_range(plain)
    # Resizing with overshoot ends at white and black, too: images hold nothing beyond.
    assert (low, high) == (0.0, 1.0)
    assert plain["calibration"]["samples"] == 5
    assert any("16" in note for note in plain["calibration"]["notes"])
    scaled = report(
        run_static(
            *arguments, "--force", "--scale", "1", "--mean", "100", "--std", "50", cwd=photos
        )
    )
    low, high = image_range(scaled)
    assert low == pytest.approx((0 - 100) / 50)
    assert high == pytest.approx((255 - 100) / 50)
    channels = report(
        run_static(
            *arguments,
            "--force",
            "--mean",
            "0.485,0.456,0.406",
            "--std",
            "0.229,0.224,0.225",
            "--channels",
            "bgr",
            "--layout",
            "nchw",
            "--size",
            "16x16",
            cwd=photos,
        )
    )
    low, high = image_range(channels)
    assert low == pytest.approx(-0.485 / 0.229)
    assert high == pytest.approx((1 - 0.406) / 0.225)


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [(("--size", "8x8"), 2), (("--layout", "nhwc"), 3)],
    ids=["size", "layout"],
)
def test_image_options_against_the_model(
    arguments: tuple[str, ...], exit_code: int, photos: Path, run_static: Run
) -> None:
    result = run_static("net.onnx", "--calib", "photos", *arguments, cwd=photos)
    assert_refused(result, exit_code, arguments[0])
    assert sorted(one.name for one in photos.iterdir()) == ["net.onnx", "photos"]


def test_image_that_is_none(photos: Path, run_static: Run) -> None:
    (photos / "photos" / "class" / "3.png").write_text("no image")
    result = run_static("net.onnx", "--calib", "photos", cwd=photos)
    assert_refused(result, 3, "photos/class/3.png", "--skip-bad")


def test_npy_and_test_sets_give_what_npz_gives(net: Path, run_static: Run) -> None:
    written = {}
    for kind in ("npz", "npy", "pb"):
        folder = net.parent / kind
        folder.mkdir()
        for index, feeds in enumerate(images()):
            name = f"sample_{index:03d}"
            if kind == "npz":
                np.savez(folder / f"{name}.npz", **feeds)
            elif kind == "npy":
                np.save(folder / f"{name}.npy", feeds["x"])
            else:
                (folder / name).mkdir()
                tensor = numpy_helper.from_array(feeds["x"], "x")
                (folder / name / "input_0.pb").write_bytes(tensor.SerializeToString())
        output = net.parent / f"{kind}.onnx"
        result = run_static(net, "--calib", kind, "-o", output, cwd=net.parent)
        assert result.returncode == 0, result.stderr
        written[kind] = output.read_bytes()
    assert written["npz"] == written["npy"] == written["pb"]


# The sample models.


def forms(found: dict[str, Any]) -> dict[str, Any]:
    return {
        one["tensor"]: (one["form"], one["scheme"], [use["form"] for use in one["uses"]])
        for one in found["plan"]["tensors"]
    }


@pytest.mark.parametrize("model", ["transformer", "lstm"])
def test_model_that_gains_nothing_is_the_same_as_dynamic(
    model: str, tmp_path: Path, run_static: Run, run_here: Run
) -> None:
    source = shutil.copy(SAMPLE_MODELS / f"{model}.onnx", tmp_path / "net.onnx")
    calib = CALIB_DATA / model / "calib"
    static = report(run_static(source, "--calib", calib, "--json", cwd=tmp_path))
    dynamic = report(run_here("dynamic", source, "--json", cwd=tmp_path))
    assert forms(static) == forms(dynamic)
    written = [(tmp_path / name).read_bytes() for name in ("net.static.onnx", "net.int8.onnx")]
    assert written[0] == written[1]


def test_report_of_a_model_without_calibrated_activations(tmp_path: Path, run_static: Run) -> None:
    source = shutil.copy(SAMPLE_MODELS / "transformer.onnx", tmp_path / "net.onnx")
    calib = CALIB_DATA / "transformer" / "calib"
    result = run_static(source, "--calib", calib, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "calibration: not needed" in result.stdout


# Interruptions.


@pytest.mark.parametrize(
    ("pattern", "number", "exit_code"),
    [
        (".onnxq-*", signal.SIGINT, 130),
        (".onnxq-*/*/probed.onnx", signal.SIGTERM, 143),
        (".onnxq-*/trials/*", signal.SIGINT, 130),
        (".onnxq-*/trials/*", signal.SIGTERM, 143),
    ],
    ids=["started-INT", "calibrating-TERM", "choosing-INT", "choosing-TERM"],
)
def test_signal_leaves_nothing(
    pattern: str, number: signal.Signals, exit_code: int, net: Path
) -> None:
    rng = np.random.default_rng(0)
    large = [
        {"x": rng.standard_normal((1, 24, 8, 8)).astype(np.float32).repeat(64, 0)}
        for _ in range(60)
    ]
    save_samples(large, net.parent / "samples")
    kept = net.with_name("small.onnx")
    kept.write_text("of the user")
    before = list_files(net.parent)
    process = subprocess.Popen(
        [*COMMAND, "static", str(net), "--calib", "samples", "-o", str(kept), "--force"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=net.parent,
    )
    deadline = time.monotonic() + 50
    while not list(net.parent.glob(pattern)):
        assert process.poll() is None, "it ended before it could be interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(0.02)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == exit_code, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    assert list_files(net.parent) == before


def test_reader_that_hangs_can_be_interrupted(net: Path) -> None:
    net.with_name("slow.py").write_text(
        "import time\ndef samples():\n    print('here', flush=True)\n"
        "    time.sleep(60)\n    yield {}\n"
    )
    process = subprocess.Popen(
        [*COMMAND, "static", str(net), "--reader", "slow:samples"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=net.parent,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "here\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert new_files(net.parent) == ["slow.py"]


def test_a_budget_that_cannot_be_met_is_a_no_and_leaves_no_file(net: Path, run_static: Run) -> None:
    result = run_static(net, "--calib", "samples", "--min-sqnr", "300",
        cwd=net.parent,
    )  # fmt: skip
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    last = result.stderr.strip().splitlines()[-1]
    assert "the budget cannot be met" in last and "dB of 300 dB" in last
    assert new_files(net.parent) == []


@pytest.mark.parametrize(("target", "opset"), [("onnx", 21), ("ort-cpu", 17)])
def test_a_budget_is_met_with_16_bits_where_the_target_has_them(
    target: str, opset: int, run_static: Run, tmp_path: Path
) -> None:
    output = tmp_path / "cnn.onnx"
    arguments = (SAMPLE_MODELS / "cnn.onnx", "--calib", CALIB_DATA / "cnn" / "calib", "-o", output)
    options = ("--accuracy", "fast", "--target", target, "--min-sqnr", "40")
    result = run_static(*arguments, *options, "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    points = report["calibration"]["trade_off"]
    best = max((one for one in points if one["is_met"]), key=lambda one: one["kept_gain"])
    assert bool(best["wide"]) == (target == "onnx")
    assert report["verification"]["outputs"][0]["sqnr_db"] >= 40.0
    model = onnx.load(output)
    assert model.opset_import[0].version == report["opset"] == opset
    stored = {one.data_type for one in model.graph.initializer}
    wide = {onnx.TensorProto.UINT16, onnx.TensorProto.INT16}
    assert stored & wide == (wide if target == "onnx" else set())
    kinds = {one["type"] for one in report["plan"]["calibration"]["activations"]}
    assert kinds == ({"uint8", "uint16"} if target == "onnx" else {"uint8"})


def test_the_table_names_the_blocks_in_16_bits(run_static: Run, tmp_path: Path) -> None:
    arguments = (SAMPLE_MODELS / "cnn.onnx", "--calib", CALIB_DATA / "cnn" / "calib")
    options = ("--accuracy", "fast", "--target", "onnx", "--min-sqnr", "45")
    result = run_static(*arguments, *options, "-o", "cnn.onnx", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "blocks in float   in 16 bits" in result.stdout
    assert "; 16 bits /block3/expand/Conv" in " ".join(result.stdout.split())
    assert "opset 17 -> 21" in result.stdout
