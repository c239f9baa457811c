"""Options that several commands have, and the parsing of their values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from onnxq.errors import UsageError
from onnxq.targets import TARGETS

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class _File(click.Path):
    """A path. An empty one, as of a variable that is not set, would be the current folder."""

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """The path; see click."""
        if value == "":
            self.fail("is empty; is a variable of the shell not set?", param, ctx)
        return super().convert(value, param, ctx)


FILE = _File(path_type=Path, readable=False)

MODEL = click.argument("model", type=FILE)
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


def split_names(
    values: tuple[str, ...], *, option: str = "--op-types", what: str = "operator"
) -> tuple[str, ...]:
    """The names in lists separated by commas.

    Args:
        values: the lists.
        option: that they were given with, for messages.
        what: there are names of.

    Raises:
        UsageError: there are lists, but no name in them.

    >>> split_names(("Conv, Gemm", "Add"))
    ('Conv', 'Gemm', 'Add')
    """
    names = tuple(part.strip() for one in values for part in one.split(",") if part.strip())
    if values and not names:
        raise UsageError(f"{option} names no {what}; give some, as ONE,TWO, or leave it out")
    return names


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


IMAGE_NAMES = ("size", "mean", "std", "scale", "layout", "channels")
SAMPLES = combine(
    click.option(
        "--reader", metavar="MODULE:FUNCTION", help="Function that gives samples instead."
    ),
    click.option("--samples", type=int, metavar="N", help="Use N of them.  [default: all]"),
    click.option("--seed", type=int, default=0, show_default=True, help="Chooses which N samples."),
    click.option("--skip-bad", is_flag=True, help="Go on without samples that do not fit."),
)
IMAGES = combine(
    click.option(
        "--size",
        callback=parse_size,
        metavar="HxW",
        help="Resize images.  [default: from the model]",
    ),
    click.option(
        "--mean",
        callback=parse_numbers,
        metavar="A,B,C",
        help="Subtract from the channels, after scaling.",
    ),
    click.option(
        "--std",
        callback=parse_numbers,
        metavar="A,B,C",
        help="Divide the channels by, after subtracting.",
    ),
    click.option(
        "--scale", type=float, metavar="X", help="Multiply pixels first.  [default: 1/255]"
    ),
    click.option(
        "--layout",
        type=click.Choice(["nchw", "nhwc"]),
        help="Order of the axes.  [default: from the model]",
    ),
    click.option(
        "--channels",
        type=click.Choice(["rgb", "bgr"]),
        default="rgb",
        show_default=True,
        help="Order of the channels that the model takes.",
    ),
)
REPORT = click.option(
    "--report",
    "reports",
    multiple=True,
    type=FILE,
    metavar="FILE",
    help="Write a report: .json, .md, .xml (JUnit) or .html, by its ending.",
)
