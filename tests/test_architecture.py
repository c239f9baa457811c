"""The shape of the package: which part may import which, and how large a part may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import onnxq

PACKAGE = Path(onnxq.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

LONGEST_FILE = 300
LONGEST_FUNCTION = 40

ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "schemes": set(),
    "numerics": {"schemes"},
    "graph": {"errors"},
    "runtime": {"errors", "graph"},
    "targets": {"errors", "schemes"},
    "ranges": {"errors", "numerics"},
    "rules": {"graph", "targets"},
    "plan": {"errors", "schemes", "numerics", "graph", "rules", "targets"},
    "simplify": {"graph", "numerics"},
    "samples": {"errors", "runtime"},
    "apply": {"schemes", "numerics", "graph", "rules", "targets", "plan", "simplify"},
    "calibration": {
        *("errors", "graph", "numerics", "plan", "ranges", "rules", "runtime", "samples"),
        "targets",
    },
    "algorithms": {
        *("apply", "calibration", "errors", "graph", "numerics", "plan", "rules", "runtime"),
    },
    "verification": {"errors", "numerics", "graph", "runtime", "samples"},
    "comparison": {"errors", "graph", "numerics", "runtime", "samples", "verification"},
    "training": {"comparison", "errors", "graph", "numerics", "runtime", "samples"},
    "pipelines": {
        *("errors", "schemes", "numerics", "graph", "runtime", "targets", "rules", "plan"),
        *("simplify", "samples", "ranges", "calibration", "apply", "verification", "comparison"),
        *("algorithms", "training"),
    },
}
ALLOWED["report"] = {*ALLOWED["pipelines"], "pipelines"}
ALLOWED["runs"] = {*ALLOWED["report"], "report"}
ALLOWED["cli"] = {*ALLOWED["runs"], "runs", "api"}
ALLOWED["api"] = {*ALLOWED["report"], "report"}
ALLOWED["__init__"] = {"api", "errors"}
ALLOWED["__main__"] = {"cli"}

LIBRARIES: dict[str, set[str]] = {
    "errors": set(),
    "schemes": set(),
    "numerics": {"numpy", "ml_dtypes"},
    "targets": set(),
    "rules": {"onnx_ir"},
    "plan": {"numpy", "onnx_ir"},
    "graph": {"numpy", "onnx", "onnx_ir", "google"},
    "apply": {"numpy", "onnx_ir"},
    "simplify": {"numpy", "onnx", "onnx_ir"},
    "samples": {"numpy", "onnx", "PIL"},
    "ranges": {"numpy"},
    "calibration": {"numpy", "onnx_ir"},
    "runtime": {"numpy", "ml_dtypes", "onnx", "onnx_ir", "onnxruntime"},
    "algorithms": {"numpy", "onnx_ir"},
    "verification": {"numpy", "onnx_ir"},
    "comparison": {"numpy", "onnx_ir"},
    "training": {"ml_dtypes", "numpy", "onnx_ir", "torch"},
    "pipelines": {"numpy", "onnx_ir"},
    "report": {"jinja2", "numpy", "onnx_ir", "onnx", "onnxruntime", "rich"},
    "runs": {"numpy", "tomli", "tomllib"},
    "cli": {"click", "rich", "tqdm"},
    "api": set(),
    "__init__": set(),
    "__main__": set(),
}

every_file = pytest.mark.parametrize(
    "path", FILES, ids=lambda path: str(path.relative_to(PACKAGE).with_suffix(""))
)


def _part_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


@cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(_parse(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            found |= (
                {f"{module}.{alias.name}" for alias in node.names}
                if module == "onnxq"
                else {module}
            )
    return found


def _own_parts(path: Path) -> set[str]:
    return {name.split(".")[1] for name in _imports(path) if name.startswith("onnxq.")}


def test_every_part_has_a_place() -> None:
    assert {_part_of(path) for path in FILES} == set(ALLOWED) == set(LIBRARIES)


def test_the_order_has_no_cycle() -> None:
    """Each part stands after all that it may import."""
    placed: set[str] = set()
    waiting = dict(ALLOWED)
    while waiting:
        ready = {part for part, needed in waiting.items() if needed <= placed}
        assert ready, f"these parts import each other: {sorted(waiting)}"
        placed |= ready
        waiting = {part: needed for part, needed in waiting.items() if part not in ready}


@every_file
def test_imports_go_one_way(path: Path) -> None:
    part = _part_of(path)
    assert _own_parts(path) - {part} <= ALLOWED[part]


@every_file
def test_nothing_imports_the_command_line(path: Path) -> None:
    if _part_of(path) not in ("cli", "__main__"):
        assert "cli" not in _own_parts(path)


@every_file
def test_libraries_are_used_where_they_belong(path: Path) -> None:
    outside = {name.split(".")[0] for name in _imports(path)} - {"onnxq", "__future__"}
    part = _part_of(path)
    assert outside - sys.stdlib_module_names <= LIBRARIES[part]


def _cycles_of_modules() -> list[str]:
    modules = {
        ".".join(("onnxq", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): path
        for path in FILES
    }
    needs = {
        name: {one for one in _top_level_imports(path) if one in modules and one != name}
        for name, path in modules.items()
    }
    while ready := [name for name, needed in needs.items() if not needed]:
        for name in ready:
            del needs[name]
        needs = {name: needed - set(ready) for name, needed in needs.items()}
    return sorted(needs)


def _top_level_imports(path: Path) -> set[str]:
    return {
        node.module
        for node in _parse(path).body
        if isinstance(node, ast.ImportFrom) and node.module is not None
    }


def test_no_modules_import_each_other() -> None:
    assert _cycles_of_modules() == []


@pytest.mark.parametrize("module", ["onnxq", "onnxq.cli"])
def test_importing_is_cheap(module: str) -> None:
    """``onnxq --help`` must answer at once, so nothing heavy is imported before a command runs."""
    code = f"import sys, {module}; print(' '.join(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"numpy", "onnx", "onnxruntime", "onnx_ir", "ml_dtypes", "rich", "tqdm", "google"}
    heavy |= {"torch"}
    assert not heavy & {name.split(".")[0] for name in loaded}


@every_file
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@every_file
def test_functions_are_short(path: Path) -> None:
    """Counted without the docstring and the signature, which grow with the number of options."""
    for node in ast.walk(_parse(path)):
        if not isinstance(node, ast.FunctionDef):
            continue
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        if not body or node.end_lineno is None:
            continue
        lines = node.end_lineno - body[0].lineno + 1
        assert lines <= LONGEST_FUNCTION, f"{path}:{node.lineno} {node.name} has {lines} lines"


@every_file
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(_parse(path))
