"""What the command line says about itself, and how fast."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import click
import pytest

from onnxq.cli import cli, static, use_one_thread_for_products
from onnxq.cli.dynamic import WEIGHT_TYPES
from onnxq.pipelines.range_options import AUTO
from onnxq.ranges import METHODS
from onnxq.schemes import WeightType
from onnxq.targets import TARGETS
from tests.cli.running import COMMAND, onnxq

COMMANDS = {"onnxq": cli, **{f"onnxq {name}": one for name, one in cli.commands.items()}}
OPTIONS = {
    f"{name} {option.opts[0]}": option
    for name, command in COMMANDS.items()
    for option in command.params
    if isinstance(option, click.Option)
}

LONGEST_HELP_CPU_SECONDS = 0.3
"""Promised in the README, beyond the start of Python itself."""


def cpu_seconds(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_takes_little_processor_time() -> None:
    # The first run of each writes byte code; the median of five is robust to a busy machine.
    helps = [cpu_seconds([*COMMAND, "--help"]) for _ in range(6)][1:]
    bare = [cpu_seconds([sys.executable, "-c", "pass"]) for _ in range(6)][1:]
    assert statistics.median(helps) - statistics.median(bare) <= LONGEST_HELP_CPU_SECONDS


def test_help_imports_nothing_large() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from onnxq.cli import cli;"
        " assert CliRunner().invoke(cli, ['--help']).exit_code == 0;"
        " print(*sorted(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert not {"numpy", "onnx", "onnx_ir", "onnxruntime", "rich", "tqdm"} & set(
        result.stdout.split()
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_an_example(name: str) -> None:
    text = COMMANDS[name].help
    assert text is not None
    *_, title, example = text.strip().splitlines()
    assert title.strip() == "Example:"
    assert example.strip().startswith(name if name != "onnxq" else "onnxq dynamic ")


@pytest.mark.parametrize("name", OPTIONS)
def test_option_has_help(name: str) -> None:
    text = OPTIONS[name].help
    assert text is not None
    assert len(text.split()) >= 4


def test_options_name_every_type_and_target() -> None:
    commands = {*WEIGHT_TYPES, *static.WEIGHT_TYPES}
    assert {one.value for one in WeightType} == commands
    assert set(static.METHODS) == {*METHODS, AUTO}
    (target,) = (one for one in cli.commands["dynamic"].params if one.name == "target")
    assert isinstance(target, click.Option)
    assert target.help is not None
    for one in TARGETS:
        assert f"{one.name}:" in target.help


def test_console_script_equals_the_module(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("onnxq")
    assert script.exists(), "the package is not installed"
    one, other = (
        onnxq("dynamic", "missing.onnx", cwd=tmp_path, command=command)
        for command in (COMMAND, (str(script),))
    )
    assert one.stderr
    assert (one.returncode, one.stdout, one.stderr) == (
        other.returncode,
        other.stdout,
        other.stderr,
    )
    helps = [
        onnxq("--help", cwd=tmp_path, command=command).stdout.splitlines()
        for command in (COMMAND, (str(script),))
    ]
    assert helps[0][1:] == helps[1][1:]
    assert helps[0][0].replace("python -m onnxq", "onnxq") == helps[1][0]


def test_version_is_that_of_the_package(tmp_path: Path) -> None:
    import onnxq as package

    result = onnxq("--version", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stdout.split()[-1] == package.__version__


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "1"),
        ({"OMP_NUM_THREADS": "3"}, None),
        ({"OPENBLAS_NUM_THREADS": "2"}, "2"),
    ],
    ids=["nothing", "of-all-libraries", "of-this-one"],
)
def test_products_have_one_thread_unless_the_user_says_how_many(
    given: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    use_one_thread_for_products()
    assert os.environ.get("OPENBLAS_NUM_THREADS") == expected


def test_numpy_is_not_imported_before_its_threads_are_chosen() -> None:
    code = "import sys, onnxq.cli; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
