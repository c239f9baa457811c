"""``onnxq qat``."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from onnxq.cli import options
from onnxq.cli.options import combine
from onnxq.errors import EXIT_INTERRUPTED
from onnxq.runtime.signals import hold_signals

DATA = combine(
    click.option(
        "--train",
        type=options.FILE,
        metavar="DIR",
        help="Folder of samples to learn from: .npz, .npy, onnx test sets, images.",
    ),
    click.option(
        "--val",
        type=options.FILE,
        metavar="DIR",
        help="Folder of samples to choose by.  [default: every fifth of --train]",
    ),
    click.option(
        "--labels",
        type=options.FILE,
        metavar="FILE",
        help="Classes of the samples: .json, .csv or .npy.  [default: learn from the float model]",
    ),
)
START = combine(
    click.option(
        "--init",
        type=options.FILE,
        metavar="FILE",
        help="Quantized model to start from.  [default: what onnxq static makes]",
    ),
    click.option(
        "--bits-weights",
        type=click.Choice(["8", "4", "3", "2"]),
        help="Bits of weights.  [default: 8]",
    ),
    click.option(
        "--bits-activations",
        type=click.Choice(["8", "4"]),
        help="Bits of activations.  [default: 8]",
    ),
    click.option(
        "--accuracy",
        type=click.Choice(["fast", "balanced", "best"]),
        default="best",
        show_default=True,
        help="How hard onnxq static tries, for the start.",
    ),
    click.option(
        "--synthetic",
        type=int,
        metavar="N",
        help="Samples that the float model makes up.  [default: up to 256 at 4 bits or fewer]",
    ),
)
LESSON = combine(
    click.option(
        "--loss",
        metavar="MODULE:FUNCTION",
        help="Function of (outputs, inputs, name) that gives the loss as a torch tensor.",
    ),
    click.option(
        "--distill-layers",
        multiple=True,
        metavar="NAME[,NAME...]",
        help="Tensors inside the model that are compared, too.",
    ),
    click.option(
        "--blockwise", is_flag=True, help="Train block after block, for models too large at once."
    ),
    click.option(
        "--keep-integers",
        is_flag=True,
        help="Train scales, biases and floats only; integers of weights stay.",
    ),
)
TRAINING = combine(
    click.option(
        "--epochs",
        type=int,
        metavar="N",
        help="Passes over the samples.  [default: 3000 steps, 6000 with activations of 4 bits]",
    ),
    click.option(
        "--batch-size",
        type=int,
        metavar="N",
        help="Samples in one step of training.  [default: 32, or 8 for large models]",
    ),
    click.option(
        "--learning-rate",
        type=float,
        metavar="X",
        help="Factor on the learning rates.  [default: found in a short trial]",
    ),
    click.option(
        "--gradient-clipping",
        type=float,
        default=4.0,
        show_default=True,
        metavar="X",
        help="Cut gradients longer than X times the usual one; 0 for never.",
    ),
    click.option("--time-limit", type=float, metavar="SECONDS", help="Then take the best so far."),
    click.option(
        "--checkpoint",
        type=options.FILE,
        metavar="FILE",
        help="Write all that is needed to go on, after each validation.",
    ),
    click.option("--resume", is_flag=True, help="Go on from the checkpoint."),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where to train: processor or GPU.",
    ),
    click.option(
        "--threads", type=int, default=0, metavar="N", help="Of torch.  [default: its own]"
    ),
)


@click.command(short_help="Fine-tune a quantized model; needs samples, no labels.")
@options.MODEL
@click.option(
    "-o",
    "--output",
    type=options.FILE,
    help="Where the result goes.  [default: MODEL's stem + .qat.onnx, beside it]",
)
@DATA
@options.SAMPLES
@options.IMAGES
@START
@LESSON
@TRAINING
@options.TARGET
@options.FORCE
@options.IN_PLACE
@options.KEEP_METADATA
@options.REPORT
@options.JSON
def qat(*, model: Path, reports: tuple[Path, ...], as_json: bool, **values: Any) -> None:
    """Fine-tune a quantized form of MODEL under fake quantization.

    Starts from what onnxq static makes and changes its numbers, not its graph: as fast, and closer
    to the float model. Learns from the float model, so that no labels are needed. What is best on
    samples held back is kept, and never anything worse than the start. Ctrl-C takes the best so
    far.

    \b
    Example:
      onnxq qat model.onnx --train samples/ --bits-weights 4
    """
    from onnxq.training.availability import require_torch

    require_torch()
    with hold_signals():
        import onnxq
        from onnxq.cli.output import (
            deliver,
            make_console,
            print_json,
            show_progress,
            show_training,
        )
        from onnxq.report.training import print_training, write_training_report
        from onnxq.samples import ImageOptions

    _check_reports(model, reports, values)
    images = ImageOptions(**{name: values.pop(name) for name in options.IMAGE_NAMES})
    values["distill_layers"] = options.split_names(
        values["distill_layers"], option="--distill-layers", what="tensor"
    )
    for name in ("bits_weights", "bits_activations"):
        values[name] = None if values[name] is None else int(values[name])
    # Functions of the user may print; standard output is for the result.
    with contextlib.redirect_stdout(sys.stderr):
        result = onnxq.quantize_qat(
            model, images=images, progress=show_progress, report=show_training(), **values
        )

    def show() -> None:
        if as_json:
            print_json(result.to_json())
        else:
            print_training(make_console(), result)

    command = shlex.join(["onnxq", *sys.argv[1:]])
    writers = [partial(write_training_report, result, path, command=command) for path in reports]
    deliver(show, writers, written=result.output)
    if result.history.stopped == "interrupted":
        raise click.exceptions.Exit(EXIT_INTERRUPTED)


def _check_reports(model: Path, reports: tuple[Path, ...], values: Mapping[str, Any]) -> None:
    """Refuse before the work what would fail after it."""
    from onnxq.pipelines.conflicts import Kind, Reading, Writing, refuse_conflicts
    from onnxq.report.training import check_training_report

    for path in reports:
        check_training_report(path)
    refuse_conflicts(
        (
            Writing("-o", values["output"], has_data=True),
            Writing("--checkpoint", values["checkpoint"]),
            *(Writing("--report", path) for path in reports),
        ),
        (
            Reading("the file of --labels", values["labels"]),
            Reading("the input model", model, Kind.MODEL),
            Reading("--train", values["train"], Kind.SAMPLES),
            Reading("--reader", values["reader"], Kind.CODE),
            Reading("--val", values["val"], Kind.SAMPLES),
            Reading("the model of --init", values["init"], Kind.MODEL),
            Reading("--loss", values["loss"], Kind.CODE),
        ),
    )
