"""Writes docs/cli.md from the commands themselves.

python docs/generate_cli.py            writes the page
python docs/generate_cli.py --check    exits 1 if the page is not what would be written
"""

from __future__ import annotations

import argparse
import inspect
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from onnxq.cli import cli

PAGE = Path(__file__).parent / "cli.md"
NOTICE = (
    "<!-- Written by docs/generate_cli.py from the commands; edit their help, not this page. -->"
)


def main() -> int:
    """Run the command line; exit code 1 if the page is stale."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare, write nothing")
    text = "\n".join(describe_all()) + "\n"
    if not parser.parse_args().check:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"{PAGE}: stale; run python docs/generate_cli.py\n")
    return 1


def describe_all() -> Iterator[str]:
    """The lines of the page."""
    yield from ("# Command line", "", NOTICE, "")
    yield from describe(cli, "onnxq")
    for name, command in sorted(cli.commands.items()):
        yield ""
        yield from describe(command, f"onnxq {name}")


def describe(command: click.Command, path: str) -> Iterator[str]:
    """One command: how to call it, what it does, its options.

    Built from the parameters rather than from ``--help``, whose layout depends on the version of
    click.
    """
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    usage = [path, "[OPTIONS]", *(str(one.name).upper() for one in arguments)]
    if isinstance(command, click.Group):
        usage.append("COMMAND")
    yield from (f"## {path}", "", "```text", " ".join(usage), "```", "")
    yield from describe_help(command.help or "")
    if isinstance(command, click.Group):
        yield from ("| Command | |", "|---|---|")
        for name, child in sorted(command.commands.items()):
            yield f"| [`{name}`](#onnxq-{name}) | {child.get_short_help_str(limit=200)} |"
        return
    yield from ("| Option | |", "|---|---|")
    for option in command.params:
        if isinstance(option, click.Option):
            yield describe_option(option)


def describe_help(text: str) -> Iterator[str]:
    """The help text as Markdown; a paragraph that click must not wrap becomes a code block."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        lines = paragraph.strip("\n").split("\n")
        if lines[0].strip() != "\b":
            yield from (" ".join(map(str.strip, lines)), "")
            continue
        title, *rest = lines[1:]
        if rest and rest[0].startswith(" "):
            code = textwrap.dedent("\n".join(rest)).split("\n")
            yield from (title, "", "```sh", *code, "```", "")
        else:
            yield from (" ".join(map(str.strip, lines[1:])), "")


def describe_option(option: click.Option) -> str:
    """One row of the table."""
    names = " / ".join((", ".join(option.opts), *option.secondary_opts))
    value = ""
    if isinstance(option.type, click.Choice):
        value = "|".join(map(str, option.type.choices))
    elif not option.is_flag:
        value = option.metavar or option.type.name.upper()
    help_text = " ".join((option.help or "").split())
    if option.show_default:
        default = option.default
        if option.secondary_opts:
            default = (option.opts if default else option.secondary_opts)[0]
        help_text += f"  [default: {default}]"
    if option.multiple:
        help_text += "  Can be given several times."
    spelled = f"{names} {value}".strip().replace("|", "\\|")
    return f"| `{spelled}` | {help_text} |"


if __name__ == "__main__":
    sys.exit(main())
