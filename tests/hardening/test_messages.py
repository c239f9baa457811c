"""Wrong calls of every command: one line that says what, where, and what to do.

Calls that other tests make are not here: tests/cli/test_refusals.py, test_static.py,
test_compare.py and test_run.py have tables of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from onnxq.samples.constant_inputs import ConstantInputs
from tests.cli.running import CALIB_DATA, SAMPLE_MODELS, assert_refused

Run = Callable[..., CompletedProcess[str]]

CALIB = ("--calib", "data")
FAST = ("--accuracy", "fast")
PAIR = ("compare", "cnn.onnx", "cnn.onnx", "--data", "data", "--no-latency")

CALLS: tuple[tuple[tuple[str, ...], int, str], ...] = (
    # What the parser of the command line refuses.
    ((), 2, "Usage: onnxq"),
    (("quantise",), 2, "No such command 'quantise'; see onnxq --help"),
    (("dynamic",), 2, "Missing argument 'MODEL'; see onnxq dynamic --help"),
    (("dynamic", "cnn.onnx", "mlp.onnx"), 2, "unexpected extra argument (mlp.onnx); see"),
    (("dynamic", "cnn.onnx", "--weights", "int3"), 2, "'int3' is not one of 'int8', 'uint8'"),
    (("dynamic", "cnn.onnx", "--block-size", "x"), 2, "'x' is not a valid integer; see"),
    (("run", "--jobs", "many"), 2, "'many' is not a valid integer; see onnxq run --help"),
    (("inspect", "cnn.onnx", "--plan", "qat8"), 2, "is not one of 'dynamic'"),
    # Variables of the shell that are not set.
    (("dynamic", ""), 2, "'MODEL': is empty; is a variable of the shell not set?"),
    (("inspect", ""), 2, "'MODEL': is empty"),
    (("dynamic", "cnn.onnx", "-o", ""), 2, "'--output': is empty"),
    (("dynamic", "cnn.onnx", "--data", ""), 2, "'--data': is empty"),
    (("static", "cnn.onnx", "--calib", ""), 2, "'--calib': is empty"),
    (("static", "cnn.onnx", *CALIB, "--op-types", ","), 2, "--op-types names no operator"),
    ((*PAIR, "--labels", ""), 2, "'--labels': is empty"),
    ((*PAIR, "--report", ""), 2, "'--report': is empty"),
    (("run", ""), 2, "is empty"),
    (("dynamic", "."), 3, ".: is a directory; name the .onnx file inside it"),
    (("static", "cnn.onnx", "--reader", ""), 2, "--reader : give module:function"),
    # Files that are no models, and options that would change nothing.
    (("dynamic", "pointer.onnx"), 3, "pointer.onnx: is a pointer of Git LFS; fetch the file"),
    (("dynamic", "page.onnx"), 3, "page.onnx: is a web page, not an ONNX model"),
    (("inspect", "torch.onnx"), 3, "torch.onnx: is an archive, as torch and others write"),
    (("dynamic", "cnn.onnx", "--samples", "5"), 2, "--samples has no meaning without --calib or"),
    (("dynamic", "cnn.onnx", "--mean", "0.5"), 2, "--mean has no meaning without --calib or"),
    # A model that is not there is said before anything about the output.
    (("dynamic", "no/in.onnx"), 3, "no/in.onnx: no such file; check the path of the model"),
    (("static", "no/in.onnx", *CALIB), 3, "no/in.onnx: no such file; check the path"),
    (("dynamic", "x" * 300), 3, "x: "),
    # Samples.
    (("dynamic", "cnn.onnx", "--data", "mlp.onnx"), 3, "mlp.onnx: a file; name the folder"),
    (("static", "cnn.onnx", *CALIB, "--size", "0"), 2, "--size 0x0: give a height and a width"),
    (("static", "cnn.onnx", "--reader", "..a:f"), 2, "--reader ..a:f: give module:function"),
    # Ranges.
    (("static", "cnn.onnx", *CALIB, "--percentile", "0"), 2, "--percentile 0: give a number above"),
    (
        ("static", "cnn.onnx", *CALIB, "--save-ranges", "data"),
        3,
        "data: is a directory; name a file with --save-ranges",
    ),
    (
        ("static", "cnn.onnx", *CALIB, "--save-ranges", "cnn.onnx"),
        3,
        "cnn.onnx: is the input model; name another file with --save-ranges",
    ),
    (
        ("static", "cnn.onnx", "--ranges", "no.json"),
        3,
        "no.json: cannot be read as saved ranges: No such file or directory; name a file of",
    ),
    # Comparing.
    (
        ("compare", "cnn.onnx", "mlp.onnx", "--data", "data"),
        3,
        "mlp.onnx: takes pixels, and cnn.onnx takes image: they are no two forms of one model; ",
    ),
    ((*PAIR, "--threads", "1000000"), 2, "--threads 1000000: give at most 1024"),
    (
        (*PAIR, "--labels", "no.json"),
        3,
        "no.json: cannot be read as labels: No such file or directory; check its path",
    ),
    ((*PAIR, "--labels", "deep.json"), 3, "deep.json: cannot be read as labels"),
    ((*PAIR, "--labels", "mlp.onnx"), 3, "labels are .json, .csv or .npy files; name one of them"),
    (
        (*PAIR, "--labels", "deep.json", "--report", "deep.json"),
        3,
        "deep.json: is the file of --labels; name another file with --report",
    ),
    ((*PAIR, "--report", "no/r.json"), 3, "there is no folder no; name another file"),
)

QAT = ("qat", "cnn.onnx", "--train", "data")
QAT_CALLS: tuple[tuple[tuple[str, ...], int, str], ...] = (
    (("qat", ""), 2, "'MODEL': is empty"),
    (("qat", "cnn.onnx"), 2, "samples come from a folder (--train DIR) or from --reader"),
    ((*QAT, "--checkpoint", "no/c"), 3, "no/c: the folder no does not exist; create it first"),
    ((*QAT, "--checkpoint", "data"), 3, "data: is a directory; name a file with --checkpoint"),
    ((*QAT, "--distill-layers", ","), 2, "--distill-layers names no tensor"),
    ((*QAT, "--gradient-clipping", "-1"), 2, "--gradient-clipping -1.0: give 0, for none, or a"),
    ((*QAT, "--init", "cnn.onnx"), 3, "cnn.onnx: is not quantized"),
    ((*QAT, "--resume"), 2, "--resume goes on from a checkpoint: name it with --checkpoint FILE"),
    ((*QAT, "--resume", "--checkpoint", "no"), 3, "no: no such checkpoint; leave out --resume"),
    ((*QAT, "--loss", "no.py:f"), 2, "--loss no.py:f: no file no.py"),
    ((*QAT, "--labels", "no.json"), 3, "no.json: cannot be read as labels"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("messages")
    for name in ("cnn", "mlp"):
        (path / f"{name}.onnx").write_bytes((SAMPLE_MODELS / f"{name}.onnx").read_bytes())
    (path / "data").symlink_to(CALIB_DATA / "cnn" / "calib")
    (path / "deep.json").write_text("[" * 100_000)
    (path / "pointer.onnx").write_text("version https://git-lfs.github.com/spec/v1\nsize 3\n")
    (path / "page.onnx").write_text("\n<!DOCTYPE html><html>Not found</html>")
    (path / "torch.onnx").write_bytes(b"PK\x03\x04 and so on")
    return path


@pytest.mark.parametrize(
    ("arguments", "exit_code", "part"),
    CALLS + QAT_CALLS,
    ids=[" ".join(call)[:60] or "nothing" for call, *_ in CALLS + QAT_CALLS],
)
def test_wrong_call(
    arguments: tuple[str, ...], exit_code: int, part: str, folder: Path, run_here: Run
) -> None:
    if arguments[:1] == ("qat",):
        pytest.importorskip("torch")
    before = sorted(folder.iterdir())
    result = run_here(*arguments, cwd=folder)
    if arguments:
        assert_refused(result, exit_code, part)
    else:
        assert result.returncode == exit_code
        assert result.stdout == ""
        assert part in result.stderr
    assert sorted(folder.iterdir()) == before


def test_options_for_images_that_change_nothing_are_said(folder: Path, run_here: Run) -> None:
    command = ("static", "cnn.onnx", *CALIB, "--samples", "5", "--mean", "0.5", "-o", "mean.onnx")
    result = run_here(*command, *FAST, cwd=folder)
    (folder / "mean.onnx").unlink()
    assert "no sample is an image: options for images change nothing" in result.stdout


# Samples that are the same number everywhere.


def _describe(*samples: dict[str, np.ndarray]) -> list[str]:
    found = ConstantInputs()
    for sample in samples:
        found.add(sample)
    return list(found.describe())


def test_zeros_everywhere_are_a_warning() -> None:
    (line,) = _describe(*[{"x": np.zeros((2, 3), np.float32)}] * 2)
    assert line.startswith("WARNING: input 'x' is 0 everywhere in every sample")


def test_one_of_two_inputs_is_a_note() -> None:
    state, x = np.zeros((2, 3), np.float32), np.arange(6, dtype=np.float32)
    (line,) = _describe({"x": x, "state": state}, {"x": x, "state": state})
    assert line.startswith("input 'state' is 0 everywhere")


@pytest.mark.parametrize(
    "samples",
    [
        [np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)],
        [np.arange(6, dtype=np.float32)],
        [np.zeros((2, 3), np.int64)],
        [np.zeros(1, np.float32)],
        [np.zeros(0, np.float32)],
    ],
    ids=["two numbers", "varies", "integers", "one element", "no element"],
)
def test_what_is_no_constant(samples: list[np.ndarray]) -> None:
    assert _describe(*({"x": sample} for sample in samples)) == []


def test_calibrating_on_zeros_warns(tmp_path: Path, run_here: Run) -> None:
    (tmp_path / "zeros").mkdir()
    for index in range(5):
        zeros = np.zeros((1, 1, 16, 16), np.float32)
        np.savez(tmp_path / "zeros" / f"{index}.npz", image=zeros)
    model = SAMPLE_MODELS / "cnn.onnx"
    result = run_here("static", model, "--calib", "zeros", "-o", "o.onnx", *FAST, cwd=tmp_path)
    assert "WARNING: input 'image' is 0 everywhere in every sample" in result.stdout + result.stderr
