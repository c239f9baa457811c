"""``onnxq dynamic``."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import click

from onnxq.cli import options
from onnxq.runtime.signals import hold_signals
from onnxq.schemes import WeightType

WEIGHT_TYPES = tuple(one.value for one in WeightType if one is not WeightType.INT16)


@click.command(short_help="Quantize weights; needs no data.")
@options.MODEL
@click.option(
    "-o",
    "--output",
    type=options.FILE,
    help="Where the result goes.  [default: MODEL's stem + .int8.onnx (by type), beside it]",
)
@click.option(
    "--weights",
    type=click.Choice(WEIGHT_TYPES),
    default="int8",
    show_default=True,
    help="Type that weights are stored in.",
)
@click.option(
    "--per-channel/--per-tensor",
    default=True,
    show_default=True,
    help="One scale for each output channel, or one for the tensor.",
)
@click.option(
    "--block-size",
    type=int,
    metavar="N",
    help="Elements that share a scale in 4-bit weights, 16 to 256.  [default: by target]",
)
@click.option(
    "--symmetric/--asymmetric",
    default=None,
    help="Zero in the middle of the integers, or anywhere.  [default: by type]",
)
@click.option(
    "--reduce-range/--no-reduce-range",
    default=None,
    help="7-bit weights for integer kernels.  "
    "[default: 8 bits, with larger scales where this processor adds products inexactly]",
)
@click.option(
    "--storage/--no-storage",
    default=True,
    show_default=True,
    help="Also store small what no integer kernel reads (read as float, at float speed).",
)
@click.option(
    "--calib",
    type=options.FILE,
    metavar="DIR",
    help="Round 4-bit weights with the samples in DIR: .npz, .npy, onnx test sets, images.",
)
@options.SAMPLES
@options.IMAGES
@options.TARGET
@options.SELECTORS
@click.option(
    "--data",
    type=options.FILE,
    metavar="DIR",
    help="Compare with float on the .npz or .npy samples in DIR.  "
    "[default: those of --calib held back, or made-up inputs]",
)
@options.OUTCOME
def dynamic(*, model: Path, as_json: bool, **values: Any) -> None:
    """Quantize the weights of MODEL, without data.

    Matrices and LSTMs compute in int8 with activations quantized at run time; every other weight is
    stored small and read as float at float speed. The result is checked, loaded and compared with
    the float model before it gets its name. Samples make 4-bit weights better: every fifth is held
    back, and decides whether they do.

    \b
    Example:
      onnxq dynamic model.onnx --data samples/
    """
    with hold_signals():
        import onnxq
        from onnxq.cli.output import deliver_quantized, show_progress
        from onnxq.samples import ImageOptions

    images = ImageOptions(**{name: values.pop(name) for name in options.IMAGE_NAMES})
    values["op_types"] = options.split_names(values["op_types"])
    # A reader of the user may print; standard output is for the result.
    with contextlib.redirect_stdout(sys.stderr):
        result = onnxq.quantize_dynamic(model, images=images, progress=show_progress, **values)
    deliver_quantized(result, as_json=as_json)
