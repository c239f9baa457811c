"""The table of imports in docs/architecture.md against the imports in the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT

PACKAGE = ROOT / "onnxq"
_ROW = re.compile(r"^\| `(\w+)` \| [^|]* \| ([^|]*)\|$", re.MULTILINE)


def read_table() -> dict[str, set[str]]:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    return {name: set(re.findall(r"`(\w+)`", allowed)) for name, allowed in _ROW.findall(text)}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("onnxq."):
                yield name.split(".")[1]


FILES = sorted(path for path in PACKAGE.rglob("*.py") if not part_of(path).startswith("__"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_one_way(path: Path) -> None:
    table, own = read_table(), part_of(path)
    assert own in table, f"docs/architecture.md has no row for {own}"
    assert set(imported_parts(path)) - {own} <= table[own]


def test_table_has_no_cycle() -> None:
    table, done = read_table(), set[str]()
    while len(done) < len(table):
        ready = {name for name, allowed in table.items() if allowed <= done} - done
        assert ready, f"in a cycle: {sorted(set(table) - done)}"
        done |= ready


def test_table_names_only_what_exists() -> None:
    assert set(read_table()) == {part_of(path) for path in FILES}
