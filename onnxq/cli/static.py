"""``onnxq static``."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import click

from onnxq.cli import options
from onnxq.cli.options import combine
from onnxq.runtime.signals import hold_signals
from onnxq.schemes import ActivationType, CalibratedFormat

WEIGHT_TYPES = ("int8", "uint8", "int4", "int16")
LEVELS = ("fast", "balanced", "best")
METHODS = ("auto", "minmax", "percentile", "entropy", "mse")

RANGES = combine(
    click.option(
        "--accuracy",
        type=click.Choice(LEVELS),
        help="Techniques that are tried, each kept if it measures better on samples held back: "
        "none, those that mostly pay, or all.  [default: balanced; fast with --ranges]",
    ),
    click.option(
        "--min-sqnr",
        type=float,
        metavar="DB",
        help="Keep as little as possible in float (or, with --target onnx, in 16 bits) until the "
        "SQNR on samples held back is this, in dB; exit code 1 if that cannot be.",
    ),
    click.option(
        "--min-agreement",
        type=float,
        metavar="P",
        help="The same for the share of places with the same largest score, in percent.",
    ),
    click.option(
        "--max-accuracy-drop",
        type=float,
        metavar="POINTS",
        help="The same for top-1 accuracy on labels; without labels, for disagreement with float.",
    ),
    click.option(
        "--labels",
        type=options.FILE,
        metavar="FILE",
        help="Classes of the samples, for that; .json or .csv.  [default: found beside them]",
    ),
    click.option(
        "--time-limit",
        type=float,
        metavar="SECONDS",
        help="Search no longer than that for what to keep in float.",
    ),
    click.option(
        "--method",
        type=click.Choice(METHODS),
        default="auto",
        show_default=True,
        help="How ranges of activations are chosen; auto measures on samples held back.",
    ),
    click.option(
        "--percentile",
        type=float,
        default=99.99,
        show_default=True,
        metavar="P",
        help="For the method of that name.",
    ),
    click.option(
        "--save-ranges",
        type=options.FILE,
        metavar="FILE",
        help="Write the ranges that were found.",
    ),
    click.option(
        "--ranges",
        type=options.FILE,
        metavar="FILE",
        help="Take the ranges of an earlier run; samples are used to compare only.",
    ),
)
TYPES = combine(
    click.option(
        "--activations",
        type=click.Choice([one.value for one in ActivationType]),
        default="uint8",
        show_default=True,
        help="Type of quantized activations.",
    ),
    click.option(
        "--symmetric-activations/--asymmetric-activations",
        default=False,
        show_default=True,
        help="Zero of activations in the middle of the integers, or anywhere.",
    ),
    click.option(
        "--weights",
        type=click.Choice(WEIGHT_TYPES),
        default="int8",
        show_default=True,
        help="Type of quantized weights.",
    ),
    click.option(
        "--symmetric/--asymmetric",
        default=None,
        help="The same for weights.  [default: by type and target]",
    ),
    click.option(
        "--per-channel/--per-tensor",
        default=True,
        show_default=True,
        help="One scale for each output channel of a weight, or one for the tensor.",
    ),
    click.option(
        "--reduce-range/--no-reduce-range",
        default=None,
        help="7-bit weights for integer kernels.  "
        "[default: 8 bits, with larger scales where this processor adds products inexactly]",
    ),
    click.option(
        "--dynamic-matmul/--no-dynamic-matmul",
        default=None,
        help="Quantize activations of matrix products between float tensors at run time.  "
        "[default: by target]",
    ),
    click.option(
        "--format",
        type=click.Choice([one.value for one in CalibratedFormat]),
        default="qdq",
        show_default=True,
        help="Pairs that the runtime fuses, or operators on integers, for runtimes that optimise "
        "less; then weights of float layers stay float, too.",
    ),
    click.option(
        "--storage/--no-storage",
        default=True,
        show_default=True,
        help="Also store small what no integer kernel reads (read as float, at float speed).",
    ),
)


@click.command(short_help="Quantize weights and activations; needs samples.")
@options.MODEL
@click.option(
    "-o",
    "--output",
    type=options.FILE,
    help="Where the result goes.  [default: MODEL's stem + .static.onnx, beside it]",
)
@click.option(
    "--calib",
    type=options.FILE,
    metavar="DIR",
    help="Folder of samples: .npz, .npy, onnx test sets, images; with sub-folders.",
)
@options.SAMPLES
@options.IMAGES
@RANGES
@TYPES
@options.TARGET
@options.SELECTORS
@options.OUTCOME
def static(*, model: Path, as_json: bool, **values: Any) -> None:
    """Quantize weights and activations of MODEL, calibrated on samples.

    Convolutions and what lies between them compute in int8, with ranges that are observed by
    running the float model over the samples. What gains nothing from that is quantized as by
    onnxq dynamic. Every fifth sample is held back: on those the result is compared with the float
    model before it gets its name.

    \b
    Example:
      onnxq static model.onnx --calib samples/
    """
    with hold_signals():
        import onnxq
        from onnxq.cli.output import deliver_quantized, show_progress
        from onnxq.samples import ImageOptions

    images = ImageOptions(**{name: values.pop(name) for name in options.IMAGE_NAMES})
    values["op_types"] = options.split_names(values["op_types"])
    # A reader of the user may print; standard output is for the result.
    with contextlib.redirect_stdout(sys.stderr):
        result = onnxq.quantize_static(model, images=images, progress=show_progress, **values)
    deliver_quantized(result, as_json=as_json)
