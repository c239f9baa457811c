"""What is written is never what is read: every option that names a file to write, in every command.

Each call below would destroy a file that it reads, or write two things to one place.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import onnx
import pytest

from tests.cli.running import CALIB_DATA, SAMPLE_MODELS, assert_refused, list_files
from tests.models import float_weight, matmul_model, save, save_external

Run = Callable[..., CompletedProcess[str]]

READER = """
import numpy as np

def read():
    yield {"x": np.ones((1, 128), np.float32)}

def rate(outputs, sample):
    return 1.0
"""

PIPELINE = """
[[model]]
source = "net.onnx"
mode = "static"
calib = "data"
output = "out/net.onnx"
save_ranges = "out/ranges.json"
eval = "data"
labels = "labels.json"
report = "out/report.json"

[[model]]
source = "ext.onnx"
mode = "dynamic"
eval_reader = "feeds.py:read"
metric = "feeds.py:rate"
"""

DYNAMIC = ("dynamic", "net.onnx", "--force")
STATIC = ("static", "net.onnx", "--calib", "data", "--force")
EXTERNAL = ("static", "ext.onnx", "--calib", "data", "--force")
QAT = ("qat", "net.onnx", "--train", "data", "--force")
COMPARE = ("compare", "net.onnx", "ext.onnx", "--data", "data")

# The options, the option that is refused, the file, and how the message calls that.
CALLS: tuple[tuple[tuple[str, ...], str, str, str], ...] = (
    ((*DYNAMIC, "--data", "data"), "-o", "data/0.npz", "one of the samples of --data"),
    ((*DYNAMIC, "--data", "data"), "-o", "hard.npz", "one of the samples of --data"),
    (
        (*DYNAMIC, "--weights", "int4", "--reader", "feeds.py:read"),
        "-o",
        "feeds.py",
        "the code of --reader",
    ),
    (
        (*DYNAMIC, "--weights", "int4", "--reader", "feeds:read"),
        "-o",
        "feeds.py",
        "the code of --reader",
    ),
    (("dynamic", "ext.onnx", "--force"), "-o", "weights.bin", "holds weights of the input model"),
    (("dynamic", "ext.onnx", "--force"), "-o", "hard.bin", "holds weights of the input model"),
    ((*DYNAMIC, "--in-place", "--data", "linked"), "MODEL", "net.onnx", "samples of --data"),
    (STATIC, "-o", "data/0.npz", "one of the samples of --calib"),
    ((*STATIC, "--ranges", "ranges.json"), "-o", "ranges.json", "the file of --ranges"),
    (
        (*STATIC, "--labels", "labels.json", "--max-accuracy-drop", "1"),
        "-o",
        "labels.json",
        "the file of --labels",
    ),
    (STATIC, "-o", "labels.json", "labels of the samples of --calib"),
    ((*STATIC, "--ranges", "ranges.json"), "--save-ranges", "ranges.json", "the file of --ranges"),
    (STATIC, "--save-ranges", "data/0.npz", "one of the samples of --calib"),
    (STATIC, "--save-ranges", "soft.npz", "one of the samples of --calib"),
    (EXTERNAL, "--save-ranges", "weights.bin", "holds weights of the input model"),
    (EXTERNAL, "--save-ranges", "hard.bin", "holds weights of the input model"),
    ((*STATIC, "-o", "new.onnx"), "--save-ranges", "new.onnx", "where -o may write"),
    ((*STATIC, "-o", "new.onnx"), "--save-ranges", "new.onnx.data", "where -o may write"),
    (QAT, "-o", "data/0.npz", "one of the samples of --train"),
    ((*QAT, "--init", "ext.onnx"), "-o", "ext.onnx", "the model of --init"),
    ((*QAT, "--init", "ext.onnx"), "-o", "weights.bin", "holds weights of the model of --init"),
    ((*QAT, "--loss", "feeds.py:read"), "-o", "feeds.py", "the code of --loss"),
    (QAT, "--checkpoint", "net.onnx", "is the input model"),
    (QAT, "--checkpoint", "soft.onnx", "is the input model"),
    (QAT, "--checkpoint", "hard.onnx", "is the input model"),
    ((*QAT, "--val", "val"), "--checkpoint", "val/0.npz", "one of the samples of --val"),
    ((*QAT, "--labels", "labels.json"), "--checkpoint", "labels.json", "the file of --labels"),
    ((*QAT, "--init", "ext.onnx"), "--checkpoint", "ext.onnx", "the model of --init"),
    ((*QAT, "-o", "new.onnx"), "--checkpoint", "new.onnx", "where -o may write"),
    (QAT, "--checkpoint", "net.qat.onnx", "where -o may write"),
    (QAT, "--report", "net.json", "is the input model"),
    ((*QAT, "--labels", "labels.json"), "--report", "labels.json", "the file of --labels"),
    ((*QAT, "--checkpoint", "new.json"), "--report", "new.json", "where --checkpoint may write"),
    ((*QAT, "-o", "new.json"), "--report", "new.json", "where -o may write"),
    ((*QAT, "--report", "new.json"), "--report", "./new.json", "where --report may write"),
    (COMPARE, "--report", "net.json", "the float model"),
    (COMPARE, "--report", "weights.json", "holds weights of the quantized model"),
    (COMPARE, "--report", "labels.json", "labels of the samples of --data"),
    (COMPARE, "--report", "sample.json", "one of the samples of --data"),
    ((*COMPARE, "--metric", "feeds.py:rate"), "--report", "feeds.json", "the code of --metric"),
    ((*COMPARE, "--report", "new.md"), "--report", "new.md", "where --report may write"),
    (("run",), "--report", "net.json", "the source of 'net'"),
    (("run",), "--report", "weights.json", "holds weights of the source of 'ext'"),
    (("run",), "--report", "sample.json", "one of the samples of calib of 'net'"),
    (("run",), "--report", "labels.json", "the labels of 'net'"),
    (("run",), "--report", "feeds.json", "the code of eval_reader of 'ext'"),
    (("run",), "--report", "toml.json", "the pipeline file"),
    (("run",), "--report", "lock.json", "the lock"),
    (("run",), "--report", "out/report.json", "the report of 'net'"),
    (("run",), "--report", "out/ranges.json", "the save_ranges of 'net'"),
    (("run",), "--report", "output.json", "the output of 'ext'"),
    (("run", "--report", "new.md"), "--report", "new.md", "where --report may write"),
)


@pytest.fixture
def folder(rng: np.random.Generator, tmp_path: Path) -> Path:
    """Models, samples and code, with other names for them."""
    model = matmul_model(float_weight(rng, (128, 64)))
    save(model, tmp_path / "net.onnx")
    save_external(model, tmp_path / "ext.onnx", "weights.bin")
    for name in ("data", "val", "linked"):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "0.npz", x=float_weight(rng, (1, 128)))
    (tmp_path / "feeds.py").write_text(READER)
    (tmp_path / "labels.json").write_text('{"0": 1}')
    (tmp_path / "ranges.json").write_text("{}")
    (tmp_path / "onnxq.toml").write_text(PIPELINE)
    (tmp_path / "onnxq.lock").write_text('{"schema_version": 1, "models": {}}')
    (tmp_path / "ext.int8.onnx").write_bytes(b"of an earlier run")
    for link, to in (("soft.npz", "data/0.npz"), ("soft.onnx", "net.onnx")):
        (tmp_path / link).symlink_to(to)
    for link, to in (
        ("hard.npz", "data/0.npz"),
        ("hard.bin", "weights.bin"),
        ("hard.onnx", "net.onnx"),
        ("net.json", "net.onnx"),
        ("weights.json", "weights.bin"),
        ("sample.json", "data/0.npz"),
        ("feeds.json", "feeds.py"),
        ("toml.json", "onnxq.toml"),
        ("lock.json", "onnxq.lock"),
        ("output.json", "ext.int8.onnx"),
        ("linked/1.npy", "net.onnx"),
    ):
        os.link(tmp_path / to, tmp_path / link)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "option", "file", "part"),
    CALLS,
    ids=[f"{call[0]} {option} {file} {part}" for call, option, file, part in CALLS],
)
def test_a_file_that_is_read_is_never_written(
    arguments: tuple[str, ...], option: str, file: str, part: str, folder: Path, run_here: Run
) -> None:
    if arguments[0] == "qat":
        pytest.importorskip("torch")
    before = list_files(folder)
    named = () if option == "MODEL" else (option, file)
    result = run_here(*arguments, *named, cwd=folder)
    assert_refused(result, 3, file.removeprefix("./"), part, "name another file")
    assert list_files(folder) == before


@pytest.mark.parametrize(
    ("key", "file", "part"),
    [
        ("output", "weights.bin", "a file that holds weights of the source of 'ext'"),
        ("output", "hard.onnx", "the source of 'net'"),
        ("output", "data/0.npz", "one of the samples of calib of 'net'"),
        ("output", "feeds.py", "the code of eval_reader of 'ext'"),
        ("report", "toml.json", "the pipeline file"),
        ("report", "out/ranges.json", "the save_ranges of 'net'"),
    ],
)
def test_a_pipeline_writes_over_nothing_that_it_reads(
    key: str, file: str, part: str, folder: Path, run_here: Run
) -> None:
    with (folder / "onnxq.toml").open("a") as stream:
        stream.write(f'{key} = "{file}"\n')
    before = list_files(folder)
    result = run_here("run", cwd=folder)
    assert result.returncode == 2, result.stderr
    assert f"{key}: {file} is {part}; name another file" in result.stderr
    assert result.stderr.count("\n") == 1
    assert list_files(folder) == before


def test_what_an_earlier_run_wrote_among_samples_may_be_replaced(
    folder: Path, run_here: Run
) -> None:
    """A folder of samples may hold results, too; only what is read as a sample is protected."""
    shutil.copytree(
        CALIB_DATA / "mlp" / "calib", folder / "mixed", ignore=lambda _, names: names[5:]
    )
    shutil.copy(SAMPLE_MODELS / "mlp.onnx", folder / "mixed" / "mlp.onnx")
    command = ("dynamic", "mlp.onnx", "--data", ".", "-o", "small.onnx", "--force")
    for _ in range(2):
        result = run_here(*command, cwd=folder / "mixed")
        assert result.returncode == 0, result.stderr
    onnx.checker.check_model(str(folder / "mixed" / "small.onnx"))
