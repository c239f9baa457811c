"""Options that several commands have, and the parsing of their values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from onnxq.targets import TARGETS

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

MODEL = click.argument("model", type=click.Path(path_type=Path, readable=False))
TARGET = click.option(
    "--target",
    default="ort-cpu",
    show_default=True,
    metavar="NAME",
    help="; ".join(f"{target.name}: {target.description}" for target in TARGETS) + ".",
)
INCLUDE = click.option(
    "--include", multiple=True, metavar="GLOB", help="Only nodes with such names."
)
EXCLUDE = click.option("--exclude", multiple=True, metavar="GLOB", help="No nodes with such names.")
OP_TYPES = click.option(
    "--op-types", multiple=True, metavar="TYPE[,TYPE...]", help="Only operators of these types."
)
FORCE = click.option("--force", is_flag=True, help="Replace the output if it exists.")
IN_PLACE = click.option("--in-place", is_flag=True, help="Replace MODEL itself by the result.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Print the plan, write nothing.")
KEEP_METADATA = click.option(
    "--keep-metadata", is_flag=True, help="Keep the debugging texts of the exporter."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def combine(*options: Decorator) -> Decorator:
    """Several options as one decorator, in the order of the help text."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


SELECTORS = combine(INCLUDE, EXCLUDE, OP_TYPES)
OUTCOME = combine(FORCE, IN_PLACE, DRY_RUN, KEEP_METADATA, JSON)


def split_names(values: tuple[str, ...]) -> tuple[str, ...]:
    """The names in lists separated by commas.

    >>> split_names(("Conv, Gemm", "Add"))
    ('Conv', 'Gemm', 'Add')
    """
    return tuple(part.strip() for one in values for part in one.split(",") if part.strip())


def parse_size(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    """'HxW', or one number for a square."""
    if value is None:
        return None
    parts = value.lower().split("x")
    if len(parts) > 2 or not all(part.strip().isdigit() for part in parts):
        raise click.BadParameter(f"'{value}' is no size; write 224 or 224x320 (height x width)")
    numbers = [int(part) for part in parts]
    return numbers[0], numbers[-1]


def parse_numbers(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    """Numbers separated by commas."""
    if value is None:
        return None
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"'{value}' is no list of numbers; write 0.5,0.5,0.5") from None
