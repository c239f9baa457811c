"""``onnxq inspect``."""

from __future__ import annotations

from pathlib import Path

import click

import onnxq
from onnxq.cli import options
from onnxq.runtime.signals import hold_signals


@click.command(short_help="Show what is in a model, and what would be quantized.")
@click.argument("model", type=options.FILE)
@click.option(
    "--plan",
    type=click.Choice(["dynamic", "static"]),
    help="Also print what this mode would do with each node, and why.",
)
@click.option(
    "--target", default="ort-cpu", show_default=True, metavar="NAME", help="Target of the plan."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def inspect(*, model: Path, plan: str | None, target: str, as_json: bool) -> None:
    """Show the inputs, outputs, operators and float weights of MODEL.

    \b
    Example:
      onnxq inspect model.onnx --plan dynamic
    """
    with hold_signals():
        from onnxq.cli.output import deliver, make_console, print_json
        from onnxq.report.text import print_inspection

    found = onnxq.inspect(model, plan=plan, target=target)

    def show() -> None:
        if as_json:
            print_json(found.to_json())
        else:
            print_inspection(make_console(), found)

    deliver(show)
