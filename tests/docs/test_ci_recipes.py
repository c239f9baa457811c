"""The shell in action.yml, in the pre-commit hook and in docs/ci.md, run as a server would run it.

Left out is what needs the network: ``pip install`` is only written down.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT, code_blocks

ACTION = (ROOT / "action.yml").read_text("utf-8")
HOOKS = (ROOT / ".pre-commit-hooks.yaml").read_text("utf-8")
PAGE = (ROOT / "docs" / "ci.md").read_text("utf-8")

STUBS = {
    "python": """#!/bin/sh
case "$1 $2" in
  "-m pip") echo "$@" >> pip.log; exit 0 ;;
  "-m venv") mkdir -p "$3/bin"; : > "$3/bin/activate"; exit 0 ;;
esac
exec {python} "$@"
""",
    "onnxq": """#!/bin/sh
echo "onnxq $*" >> onnxq.log
exec {python} -m onnxq "$@"
""",
}


def run_steps(text: str) -> list[str]:
    """The scripts of all ``run:`` in the YAML of GitHub."""
    found: list[str] = []
    lines = iter(text.splitlines())
    for line in lines:
        step = re.match(r"( *)(?:- )?run: (.*)", line)
        if step is not None:
            found.append("\n".join(read_block(lines)) if step[2] == "|" else step[2])
    return found


def read_block(lines: Iterator[str]) -> list[str]:
    block: list[str] = []
    depth = 0
    for line in lines:
        depth = depth or len(line) - len(line.lstrip())
        if line[:depth].strip():
            break
        block.append(line[depth:])
    return block


def script_lines(text: str) -> list[str]:
    """The lines of ``script:`` in the YAML of GitLab."""
    lines = iter(text.splitlines())
    next(line for line in lines if line.strip() == "script:")
    found = []
    for line in lines:
        if not line.lstrip().startswith("- "):
            break
        found.append(line.strip()[2:])
    return found


def find_block(language: str, part: str) -> str:
    (found,) = (code for name, code in code_blocks(PAGE) if name == language and part in code)
    return found


def bash(
    script: str, folder: Path, *, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a script as GitHub does."""
    stubs = folder / "stubs"
    stubs.mkdir(exist_ok=True)
    for name, text in STUBS.items():
        (stubs / name).write_text(text.format(python=shlex.quote(sys.executable)))
        (stubs / name).chmod(0o755)
    path = f"{stubs}{os.pathsep}{os.environ['PATH']}"
    source = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": source, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run_action(
    folder: Path, *, file: str = "sample_models/onnxq.toml", args: str = "", version: str = ""
) -> subprocess.CompletedProcess[str]:
    install, check = run_steps(ACTION)
    environment = {"ONNXQ_FILE": file, "ONNXQ_ARGS": args, "ONNXQ_VERSION": version}
    installed = bash(install, folder, environment=environment)
    assert installed.returncode == 0, installed.stderr
    return bash(check, folder, environment=environment)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which the action ran."""
    folder = tmp_path_factory.mktemp("checkout")
    models = folder / "sample_models"
    models.mkdir()
    for source in (*(ROOT / "sample_models").glob("*.onnx"), ROOT / "sample_models" / "onnxq.toml"):
        if source.name.count(".") == 1:  # not the results of other runs
            shutil.copy(source, models)
    (folder / "calib_data").symlink_to(ROOT / "calib_data")
    result = run_action(folder, args="--jobs 2", version="==0.1.0")
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture
def checkout(finished: Path, tmp_path: Path) -> Path:
    """A copy of that to change, with the first model alone: each model is a process more."""
    copy = Path(shutil.copytree(finished, tmp_path / "checkout", symlinks=True))
    file = copy / "sample_models" / "onnxq.toml"
    file.write_text("[[model]]".join(file.read_text().split("[[model]]")[:2]))
    return copy


def test_action_runs_the_pipeline(finished: Path) -> None:
    assert len(list((finished / "sample_models").glob("*.*.onnx"))) == 4
    for name in ("report.html", "report.xml"):
        assert "min-sqnr" in (finished / "onnxq-report" / name).read_text("utf-8")
    assert (finished / "pip.log").read_text() == "-m pip install onnxq[images,report]==0.1.0\n"


def test_action_fails_where_a_gate_is_not_met(checkout: Path) -> None:
    file = checkout / "sample_models" / "onnxq.toml"
    file.write_text(file.read_text().replace("min_sqnr = 30", "min_sqnr = 44"))
    result = run_action(checkout)
    assert result.returncode == 1
    assert "mlp: min-sqnr 44 dB" in result.stdout
    assert "44" in (checkout / "onnxq-report" / "report.xml").read_text("utf-8")


def test_action_takes_arguments_as_text_only(checkout: Path) -> None:
    result = run_action(checkout, file="none.toml; touch hacked", args="--jobs 1")
    assert result.returncode == 2
    assert not (checkout / "hacked").exists()
    for line in run_steps(ACTION):
        assert "${{" not in line


def test_inputs_of_the_action_are_all_used_and_known() -> None:
    inputs = set(re.findall(r"^  ([\w-]+):$", ACTION.split("runs:")[0], re.MULTILINE))
    assert inputs == set(re.findall(r"inputs\.([\w-]+)", ACTION))
    (recipe,) = (code for _, code in code_blocks(PAGE) if "onnxq@" in code)
    assert set(re.findall(r"^          (\w+):", recipe.split("onnxq@")[1], re.MULTILINE)) <= inputs


def assert_passes(script: str, folder: Path) -> None:
    result = bash(script, folder)
    assert result.returncode == 0, result.stderr
    assert "up to date" in result.stdout
    assert (folder / "report.xml").is_file()
    assert "onnxq run sample_models/onnxq.toml" in (folder / "onnxq.log").read_text()


def test_recipe_for_github(checkout: Path) -> None:
    steps = run_steps(find_block("yaml", "- run: onnxq run"))
    assert len(steps) == 2
    assert_passes("\n".join(steps), checkout)


def test_recipe_for_gitlab(checkout: Path) -> None:
    recipe = find_block("yaml", "image: python")
    assert_passes("\n".join(script_lines(recipe)), checkout)
    for name in re.findall(r"report\.\w+", recipe.split("artifacts:")[1]):
        assert (checkout / name).is_file()


def test_recipe_for_a_shell(checkout: Path) -> None:
    assert_passes(find_block("bash", "set -eu"), checkout)


def test_examples_of_the_command(checkout: Path) -> None:
    lines = find_block("sh", "onnxq run").splitlines()
    models = checkout / "sample_models"
    for line in lines:
        result = bash(line.replace("models/onnxq.toml", "onnxq.toml"), models)
        assert result.returncode == 0, result.stderr


def test_pipeline_of_the_page_is_right(checkout: Path) -> None:
    models = checkout / "sample_models"
    (models / "page.toml").write_text(find_block("toml", "[defaults]"))
    check = "from pathlib import Path; from onnxq.runs import read_pipeline; "
    result = bash(f"python -c '{check} read_pipeline(Path(\"page.toml\"))'", models)
    assert result.returncode == 0, result.stderr


def read_hook(key: str) -> str:
    (found,) = re.findall(rf"^  {key}: (.*)$", HOOKS, re.MULTILINE)
    return str(found).strip("'")


def test_hook(checkout: Path) -> None:
    (hook,) = re.findall(r"^- id: (.*)$", HOOKS, re.MULTILINE)
    assert f"- id: {hook}" in find_block("yaml", "repos:")
    models = checkout / "sample_models"
    assert bash(read_hook("entry"), models).returncode == 0
    lock = models / "onnxq.lock"
    lock.write_text(
        re.sub(r'"output_sha256": ".{64}"', '"output_sha256": "00"', lock.read_text(), count=1)
    )
    before = lock.read_bytes()
    result = bash(read_hook("entry"), models)
    assert result.returncode == 1
    assert "the output differs" in result.stdout
    assert lock.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "is_watched"),
    [
        ("models/net.onnx", True),
        ("net.onnx.data", True),
        ("onnxq.toml", True),
        ("onnxq.lock", True),
        ("README.md", False),
        ("pyproject.toml", False),
    ],
)
def test_files_that_the_hook_watches(name: str, is_watched: bool) -> None:
    assert bool(re.search(read_hook("files"), name)) is is_watched
