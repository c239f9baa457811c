"""``onnxq dynamic``."""

from __future__ import annotations

from pathlib import Path

import click

from onnxq.cli import options
from onnxq.runtime.signals import hold_signals
from onnxq.schemes import WeightType
from onnxq.targets import find_target

WEIGHT_TYPES = tuple(one.value for one in WeightType if one is not WeightType.INT16)


@click.command(short_help="Quantize weights; needs no data.")
@options.MODEL
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, readable=False),
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
    "[default: where this processor adds 8-bit products inexactly (x86 without VNNI)]",
)
@click.option(
    "--storage/--no-storage",
    default=True,
    show_default=True,
    help="Also store small what no integer kernel reads (read as float, at float speed).",
)
@options.TARGET
@options.SELECTORS
@click.option(
    "--data",
    type=click.Path(path_type=Path, readable=False),
    metavar="DIR",
    help="Compare with float on the .npz or .npy samples in DIR.  [default: made-up inputs]",
)
@options.OUTCOME
def dynamic(
    *,
    model: Path,
    output: Path | None,
    weights: str,
    per_channel: bool,
    block_size: int | None,
    symmetric: bool | None,
    reduce_range: bool | None,
    storage: bool,
    target: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    op_types: tuple[str, ...],
    data: Path | None,
    force: bool,
    in_place: bool,
    dry_run: bool,
    keep_metadata: bool,
    as_json: bool,
) -> None:
    """Quantize the weights of MODEL, without data.

    Matrices and LSTMs compute in int8 with activations quantized at run time; every other weight is
    stored small and read as float at float speed. The result is checked, loaded and compared with
    the float model before it gets its name.

    \b
    Example:
      onnxq dynamic model.onnx --data samples/
    """
    with hold_signals():
        from onnxq.cli.output import make_console, print_json, track_samples
        from onnxq.pipelines import run_dynamic
        from onnxq.plan import DynamicOptions
        from onnxq.report.text import print_result

    result = run_dynamic(
        model,
        output,
        target=find_target(target),
        options=DynamicOptions(
            weights=WeightType(weights),
            per_channel=per_channel,
            block_size=block_size,
            symmetric=symmetric,
            reduce_range=reduce_range,
            storage=storage,
            include=include,
            exclude=exclude,
            op_types=options.split_names(op_types),
        ),
        data=data,
        force=force,
        in_place=in_place,
        dry_run=dry_run,
        keep_metadata=keep_metadata,
        track=track_samples,
    )
    if as_json:
        print_json(result.to_json())
    else:
        print_result(make_console(), result)
