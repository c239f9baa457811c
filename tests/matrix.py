"""Run the tests on old and new Pythons and packages.

    python tests/matrix.py [--only NAME,...] [--folder build/matrix] [-- ARGUMENTS OF PYTEST]

Cells: the lowest versions that pyproject.toml declares, on the oldest Python, and the newest that
can be installed, on each Python. Pythons that this machine has not are named and left out. Each
environment is made once, and again when pyproject.toml changes.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
SHOWN = ("numpy", "onnx", "onnx-ir", "onnxruntime")
RUN_TIME_EXTRAS = ("images", "report")
_REQUIREMENT = re.compile(r'"([A-Za-z0-9_.-]+)>=([0-9.]+)')


@dataclass(frozen=True)
class Cell:
    """One combination.

    Attributes:
        python: version, as 3.12.
        lowest: whether packages are the lowest that are declared, or else the newest.
    """

    python: str
    lowest: bool

    @property
    def name(self) -> str:
        """As 3.12-newest."""
        return f"{self.python}-{'lowest' if self.lowest else 'newest'}"


CELLS = (Cell(PYTHONS[0], True), *(Cell(one, False) for one in PYTHONS))


def main() -> int:
    """Run the command line; exit code 1 if the tests of a cell fail."""
    options = parse_arguments()
    wanted = set(options.only.split(",")) if options.only else {cell.name for cell in CELLS}
    failed = False
    rows = []
    for cell in CELLS:
        if cell.name not in wanted:
            continue
        interpreter = find_python(cell.python)
        if interpreter is None:
            rows.append((cell.name, "no such Python here", ""))
            continue
        python = make_environment(cell, interpreter, options.folder)
        if python is None:
            rows.append((cell.name, "cannot be installed", ""))
            failed = True
            continue
        print(f"{cell.name}: testing", flush=True)
        done = subprocess.run(
            [python, "-m", "pytest", *options.pytest],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        (options.folder / f"{cell.name}.log").write_text(done.stdout)
        lines = done.stdout.strip().splitlines() or [f"exit code {done.returncode}"]
        rows.append((cell.name, lines[-1].strip("= "), describe_versions(python)))
        failed |= done.returncode != 0
    for name, result, versions in rows:
        print(f"{name:14}  {result}  {versions}")
    return int(failed)


def parse_arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help=f"of {','.join(cell.name for cell in CELLS)}")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "build" / "matrix")
    parser.add_argument("pytest", nargs="*", help="arguments of pytest, after --")
    return parser.parse_args()


def find_python(version: str) -> str | None:
    """An interpreter of ``version``: on the path, or installed by uv or pyenv."""
    candidates = [f"python{version}"]
    for tool in (("uv", "python", "find", version), ("pyenv", "prefix", version)):
        if shutil.which(tool[0]) is None:
            continue
        found = subprocess.run(tool, capture_output=True, text=True, check=False)
        if found.returncode == 0 and found.stdout.strip():
            path = Path(found.stdout.strip())
            candidates.append(str(path / "bin" / "python" if path.is_dir() else path))
    for candidate in candidates:
        # A shim of pyenv is on the path also where its Python is not chosen.
        code = "import sys; print('%d.%d' % sys.version_info[:2], sys.executable)"
        try:
            told = subprocess.run(
                [candidate, "-c", code], capture_output=True, text=True, check=False
            )
        except OSError:
            continue
        found_version, _, executable = told.stdout.strip().partition(" ")
        if told.returncode == 0 and found_version == version:
            return executable
    return None


def read_lowest_versions() -> list[str]:
    """The lowest versions that pyproject.toml declares, without those of tools for tests."""
    text = (REPOSITORY / "pyproject.toml").read_text("utf-8")
    declared = text.split("\ndependencies = [")[1].split("\n]")[0]
    for extra in RUN_TIME_EXTRAS:
        declared += text.split(f"\n{extra} = [")[1].split("]")[0]
    return [f"{name}=={version}" for name, version in _REQUIREMENT.findall(declared)]


def make_environment(cell: Cell, interpreter: str, folder: Path) -> Path | None:
    """The Python of an environment for ``cell``; None where it cannot be installed."""
    home = folder / cell.name
    python, stamp = home / "bin" / "python", home / "installed"
    project = REPOSITORY / "pyproject.toml"
    if stamp.exists() and stamp.stat().st_mtime >= project.stat().st_mtime:
        return python
    shutil.rmtree(home, ignore_errors=True)
    print(f"{cell.name}: installing into {home}", flush=True)
    subprocess.run([interpreter, "-m", "venv", home], check=True)
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if cell.lowest:
        constraints = home / "lowest.txt"
        constraints.write_text("\n".join(read_lowest_versions()) + "\n")
        command += ["-c", constraints]
    if subprocess.run([*command, "-e", f"{REPOSITORY}[dev]"], check=False).returncode != 0:
        return None
    stamp.touch()
    return python


def describe_versions(python: Path) -> str:
    """Versions of the packages that matter."""
    code = (
        "import importlib.metadata, sys; "
        "print(*(f'{one} {importlib.metadata.version(one)}' for one in sys.argv[1:]))"
    )
    told = subprocess.run([python, "-c", code, *SHOWN], capture_output=True, text=True, check=False)
    return told.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
