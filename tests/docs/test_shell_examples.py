from __future__ import annotations

import shlex

import click
import pytest

from onnxq.cli import cli
from tests.docs.markdown import PAGES, code_blocks, page_id

SHELL = ("sh", "bash", "console")


def find_examples() -> list[tuple[str, str]]:
    return [
        (page_id(page), line.removeprefix("$ ").strip())
        for page in PAGES
        for language, code in code_blocks(page.read_text("utf-8"))
        if language in SHELL
        for line in code.splitlines()
        if line.removeprefix("$ ").startswith("onnxq ")
    ]


def test_readme_has_examples() -> None:
    assert any(page == "README.md" for page, _ in find_examples())


@pytest.mark.parametrize(("page", "line"), find_examples())
def test_example_parses(page: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, name, *arguments = shlex.split(line, comments=True)
    command = cli.commands.get(name)
    try:
        if command is None:
            cli.make_context("onnxq", [name, *arguments])
        else:
            command.make_context(name, arguments)
    except click.exceptions.Exit as stop:  # --help and --version print and stop
        assert stop.exit_code == 0
    except click.ClickException as error:
        pytest.fail(f"{page}: {line}: {error.format_message()}")
