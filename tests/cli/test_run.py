"""``onnxq run`` on the sample models: real workers, real quantization."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onnxq.cli import run
from tests.cli.conftest import see_to_models_here
from tests.cli.running import CALIB_DATA, COMMAND, SAMPLE_MODELS, assert_refused, list_files

Run = Callable[..., subprocess.CompletedProcess[str]]

workers_here = pytest.mark.usefixtures("workers_here")

MODELS = ("mlp", "cnn", "lstm", "transformer")
OUTPUTS = ("mlp.int8.onnx", "cnn.static.onnx", "lstm.int8.onnx", "transformer.int8.onnx")

ONE_MODEL = """
[[model]]
source = "mlp.onnx"
mode = "dynamic"
eval = "../calib_data/mlp/eval"
latency = false
gates = { min_sqnr = 30 }
"""

# Of two at a time the first is done soon, the second is not, and the third starts then.
THREE_MODELS = """
[[model]]
source = "mlp.onnx"
mode = "dynamic"
[[model]]
source = "cnn.onnx"
mode = "static"
accuracy = "fast"
calib = "../calib_data/cnn/calib"
[[model]]
source = "lstm.onnx"
mode = "dynamic"
"""


def copy_samples(folder: Path) -> Path:
    """The sample models and their data; returns the folder with the pipeline file."""
    models = folder / "models"
    models.mkdir()
    for name in MODELS:
        shutil.copy(SAMPLE_MODELS / f"{name}.onnx", models)
    shutil.copy(SAMPLE_MODELS / "onnxq.toml", models)
    # As it is, it is run in tests/docs/test_ci_recipes.py.
    edit(models / "onnxq.toml", 'mode = "static"', 'mode = "static"\naccuracy = "fast"')
    (folder / "calib_data").symlink_to(CALIB_DATA)
    return models


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a pipeline that ran."""
    models = copy_samples(tmp_path_factory.mktemp("finished"))
    with pytest.MonkeyPatch.context() as patch:
        see_to_models_here(patch)
        patch.chdir(models)
        assert run(["run"]) == 0
    return models


@pytest.fixture
def models(finished: Path, tmp_path: Path) -> Path:
    """A copy of that folder to change."""
    (tmp_path / "calib_data").symlink_to(CALIB_DATA)
    return Path(shutil.copytree(finished, tmp_path / "models"))


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """A folder with a pipeline of one model that has not run."""
    folder = copy_samples(tmp_path)
    (folder / "onnxq.toml").write_text(ONE_MODEL)
    return folder


@pytest.fixture
def three(one: Path) -> Path:
    """The same with three models that are not compared."""
    (one / "onnxq.toml").write_text(THREE_MODELS)
    return one


def states(result: subprocess.CompletedProcess[str]) -> list[str]:
    return [one["state"] for one in read_json(result)["models"]]


def read_json(result: subprocess.CompletedProcess[str]) -> Any:
    assert result.stdout, result.stderr
    return json.loads(result.stdout)


def edit(path: Path, old: str, new: str, *, count: int = -1) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, count), "utf-8")


def recorded_sqnr_db(lock: Path) -> float:
    """Of the first sample model: its weights have 7 or 8 bits, by processor."""
    (output,) = json.loads(lock.read_text())["models"]["mlp.int8.onnx"]["numbers"]["outputs"]
    return float(output["sqnr_db"])


def test_sample_models_pass(finished: Path) -> None:
    lock = json.loads((finished / "onnxq.lock").read_text())
    assert tuple(lock["models"]) == OUTPUTS
    assert lock["models"]["cnn.static.onnx"]["ranges"]["tensors"]
    assert sorted(one.name for one in finished.iterdir()) == sorted(
        [*OUTPUTS, "onnxq.lock", "onnxq.toml", *(f"{name}.onnx" for name in MODELS)]
    )


@workers_here
def test_second_run_does_only_what_changed(models: Path, run_here: Run) -> None:
    before = list_files(models)
    result = run_here("run", "--json", "--jobs", "2", cwd=models)
    assert states(result) == ["up to date"] * 4
    assert list_files(models) == before
    assert "quantizing" not in result.stderr
    (models / "mlp.int8.onnx").unlink()
    (models / "lstm.int8.onnx").write_bytes(b"damaged")
    edit(models / "onnxq.toml", 'source = "transformer.onnx"', 'source="transformer.onnx"\nseed=1')
    # From another folder, because paths are relative to the file.
    again = run_here("run", models / "onnxq.toml", "--json", "--jobs", "2", cwd=models.parent)
    assert states(again) == ["done", "up to date", "done", "done"]
    assert "[4/4] transformer: quantizing" not in again.stderr
    assert "[4/4] transformer: comparing" in again.stderr
    for name in OUTPUTS:
        assert (models / name).read_bytes() == before[name]


@workers_here
def test_gate_that_is_raised_fails_and_every_report_names_it(models: Path, run_here: Run) -> None:
    text = "".join(
        f'eval = "../calib_data/{name}/eval"\nreport = ["r/{name}.json", "r/{name}.md", '
        f'"r/{name}.xml", "r/{name}.html"]\n!'
        for name in MODELS
    )
    for name, lines in zip(MODELS, text.split("!"), strict=False):
        edit(models / "onnxq.toml", f'eval = "../calib_data/{name}/eval"\n', lines)
    edit(models / "onnxq.toml", "min_sqnr = 30", "min_sqnr = 90", count=1)
    reached = recorded_sqnr_db(models / "onnxq.lock")
    endings = ("json", "md", "xml", "html")
    every = [argument for end in endings for argument in ("--report", f"new/all.{end}")]
    result = run_here("run", "--jobs", "2", *every, cwd=models)
    assert result.returncode == 1, result.stderr
    assert f"mlp: min-sqnr 90 dB: reached {reached:.2f} dB (output 'logits')" in result.stdout
    assert "quantizing" not in result.stderr
    for end in endings:
        for path in (
            models / "new" / f"all.{end}",
            *(models / "r" / f"{name}.{end}" for name in MODELS),
        ):
            assert "min-sqnr" in path.read_text("utf-8"), path
    recalled = run_here("run", "--json", cwd=models)
    assert recalled.returncode == 1
    assert states(recalled) == ["gate failed", *["up to date"] * 3]
    assert "comparing" not in recalled.stderr


@workers_here
def test_gate_is_checked_against_recorded_numbers(models: Path, run_here: Run) -> None:
    edit(models / "onnxq.toml", "max_size_ratio = 0.5", "max_size_ratio = 0.3")
    result = run_here("run", "--json", cwd=models)
    assert result.returncode == 1
    assert states(result) == ["up to date", "gate failed", "up to date", "gate failed"]
    assert "comparing" not in result.stderr


@workers_here
def test_locked_run_elsewhere(models: Path, run_here: Run) -> None:
    for name in OUTPUTS:
        (models / name).unlink()
    before = list_files(models)
    result = run_here("run", "--locked", "--json", "--jobs", "2", cwd=models)
    assert result.returncode == 0, result.stderr
    assert states(result) == ["done"] * 4
    assert set(list_files(models)) - set(before) == set(OUTPUTS)
    assert (models / "onnxq.lock").read_bytes() == before["onnxq.lock"]


@workers_here
def test_locked_run_that_differs(models: Path, run_here: Run) -> None:
    lock = models / "onnxq.lock"
    edit(models / "onnxq.toml", 'source = "mlp.onnx"', 'source = "mlp.onnx"\nper_channel = false')
    content = json.loads(lock.read_text())
    content["models"]["lstm.int8.onnx"]["output_sha256"] = "0" * 64
    lock.write_text(json.dumps(content))
    before = lock.read_bytes()
    result = run_here("run", "--locked", "--jobs", "2", cwd=models)
    assert result.returncode == 1
    assert "mlp: the output differs: sha256 " in result.stdout
    assert "mlp: the options changed since the lock was written" in result.stdout
    assert "mlp: SQNR of 'logits' is " in result.stdout
    assert "lstm: the output differs: sha256 " in result.stdout
    assert "cnn: the output" not in result.stdout
    assert lock.read_bytes() == before


@workers_here
def test_locked_and_forced_checks_numbers_too(one: Path, run_here: Run) -> None:
    assert run_here("run", cwd=one).returncode == 0
    sqnr_db = recorded_sqnr_db(one / "onnxq.lock")
    edit(one / "onnxq.lock", f'"sqnr_db": {sqnr_db!r}', f'"sqnr_db": {sqnr_db + 50!r}')
    assert run_here("run", "--locked", cwd=one).returncode == 0
    result = run_here("run", "--locked", "--force", cwd=one)
    assert result.returncode == 1
    told = f"mlp: SQNR of 'logits' is {sqnr_db:.6g}, in the lock {sqnr_db + 50:.6g}"
    assert told in result.stdout


@workers_here
def test_locked_without_a_lock(one: Path, run_here: Run) -> None:
    assert_refused(run_here("run", "--locked", cwd=one), 2, "onnxq.lock: no such file")


@workers_here
def test_damaged_lock(one: Path, run_here: Run) -> None:
    (one / "onnxq.lock").write_text("__import__('os').remove('mlp.onnx')")
    assert_refused(run_here("run", cwd=one), 3, "onnxq.lock: is no lock of onnxq run")
    assert (one / "mlp.onnx").is_file()


def test_broken_models_do_not_stop_the_others(one: Path, run_here: Run) -> None:
    (one / "bad.onnx").write_bytes(b"no model")
    (one / "dies.py").write_text(
        "import os, signal\ndef samples():\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    broken = """
[[model]]
source = "bad.onnx"
mode = "dynamic"
[[model]]
source = "cnn.onnx"
mode = "static"
reader = "dies.py:samples"
[[model]]
source = "lstm.onnx"
mode = "dynamic"
include = ["nothing"]
"""
    (one / "onnxq.toml").write_text(broken + ONE_MODEL)
    result = run_here("run", "--json", cwd=one)
    assert result.returncode == 3
    assert "Traceback" not in result.stderr
    models = read_json(result)["models"]
    assert [model["state"] for model in models] == ["broke", "broke", "broke", "done"]
    assert "bad.onnx" in models[0]["error"]
    assert "ended by SIGKILL" in models[1]["error"]
    assert "nothing" in models[2]["error"]
    assert list(json.loads((one / "onnxq.lock").read_text())["models"]) == ["mlp.int8.onnx"]
    assert not list(one.glob(".onnxq*"))


@workers_here
def test_mistakes_are_all_printed(one: Path, run_here: Run) -> None:
    (one / "onnxq.toml").write_text(ONE_MODEL + 'wieghts = 3\nmethod = "mse"\n')
    result = run_here("run", cwd=one)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "onnxq.toml:8: wieghts: no such key; did you mean weights?",
        "onnxq.toml:9: method: is for static; leave it out",
    ]


READERS = """
import numpy as np
print("code of the user prints")
def samples():
    from scale import SCALE
    rng = np.random.default_rng(7)
    for _ in range(6):
        yield {"image": SCALE * rng.random((2, 1, 16, 16), np.float32)}
def rate(outputs, inputs, name):
    print("so does the metric")
    return float(outputs["logits"].max())
"""


def test_code_of_the_user(one: Path, run_here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (one / "mine.py").write_text(READERS)
    (one / "scale.py").write_text("SCALE = 1\n")
    (one / "random.py").write_text("raise RuntimeError('hides a module of Python')\n")
    (one / "onnxq.toml").write_text(
        """
[[model]]
source = "cnn.onnx"
mode = "static"
accuracy = "fast"
reader = "mine.py:samples"
eval_reader = "mine.py:samples"
metric = "mine.py:rate"
latency = false
save_ranges = "made/ranges.json"
gates = { min_accuracy = 100 }
"""
    )
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    command = ("run", one / "onnxq.toml", "--json")
    result = run_here(*command, cwd=one.parent)
    assert result.returncode == 1, result.stderr  # no value of this model is that large
    (gate,) = read_json(result)["models"][0]["gates"]
    assert (gate["name"], gate["detail"]) == ("min-accuracy", "mine.py:rate")
    assert "code of the user prints" in result.stderr
    assert (one / "made" / "ranges.json").is_file()
    same = run_here(*command, cwd=one.parent)
    assert read_json(same)["models"][0]["changed"] is False
    # The samples are what counts, wherever they come from.
    (one / "scale.py").write_text("SCALE = 2\n")
    other = run_here(*command, cwd=one.parent)
    assert read_json(other)["models"][0]["changed"] is True


def wait_until(condition: Any, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 50
    while not condition():
        assert process.poll() is None, "it ended before it could be interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def living_members(group: int) -> list[str]:
    """Processes of a group; those that have ended and wait for their parent do not count."""
    listed = subprocess.run(
        ["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True
    ).stdout
    found = (line.split(maxsplit=2) for line in listed.splitlines())
    return [what for number, state, what in found if int(number) == group and state[0] != "Z"]


@workers_here
@pytest.mark.parametrize(
    ("number", "to_all", "exit_code"),
    [(signal.SIGINT, False, 130), (signal.SIGINT, True, 130), (signal.SIGTERM, False, 143)],
    ids=["INT", "INT of a terminal", "TERM"],
)
def test_interrupted_run_leaves_nothing_and_resumes(
    number: signal.Signals,
    to_all: bool,
    exit_code: int,
    three: Path,
    run_here: Run,
) -> None:
    before = set(list_files(three))
    process = subprocess.Popen(
        [*COMMAND, "run", "--jobs", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=three,
        start_new_session=True,
    )
    wait_until(lambda: (three / "onnxq.lock").is_file() and list(three.glob(".onnxq-*")), process)
    os.killpg(process.pid, number) if to_all else process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == exit_code, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    assert set(list_files(three)) - before <= {*OUTPUTS[:3], "onnxq.lock"}
    assert living_members(process.pid) == []
    done = list(json.loads((three / "onnxq.lock").read_text())["models"])
    result = run_here("run", "--json", "--jobs", "2", cwd=three)
    expected = ["up to date" if name in done else "done" for name in OUTPUTS[:3]]
    assert states(result) == expected


@workers_here
def test_killed_run_resumes(three: Path, run_here: Run) -> None:
    process = subprocess.Popen(
        [*COMMAND, "run"], stderr=subprocess.PIPE, text=True, cwd=three, start_new_session=True
    )
    wait_until((three / "onnxq.lock").is_file, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    result = run_here("run", "--json", "--jobs", "2", cwd=three)
    assert result.returncode == 0
    assert states(result) == ["up to date", "done", "done"]


@workers_here
def test_report_of_an_unknown_kind_is_refused_before_the_work(one: Path, run_here: Run) -> None:
    result = run_here("run", "--report", "all.pdf", cwd=one)
    assert_refused(result, 2, "all.pdf: unknown kind of report")


@workers_here
def test_jobs(one: Path, run_here: Run) -> None:
    assert_refused(run_here("run", "--jobs", "0", cwd=one), 2, "--jobs 0: give 1 or more")


@workers_here
def test_summary_on_the_page_of_a_run_on_github(
    one: Path, run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = one / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    result = run_here("run", cwd=one)
    assert result.returncode == 0
    assert "min-sqnr" in summary.read_text()
