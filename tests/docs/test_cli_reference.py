from __future__ import annotations

import subprocess
import sys

import pytest

from onnxq.cli import cli
from tests.docs.markdown import PAGES, ROOT


def test_reference_is_current() -> None:
    command = [sys.executable, str(ROOT / "docs" / "generate_cli.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_is_documented_outside_the_reference(name: str) -> None:
    pages = [page for page in PAGES if page.name != "cli.md"]
    assert any(f"onnxq {name}" in page.read_text("utf-8") for page in pages)
