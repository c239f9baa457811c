"""``onnxq.quantize_static``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from onnxq.api.paths import optional_path, required_path

if TYPE_CHECKING:
    from onnxq.pipelines import Progress, QuantizationResult
    from onnxq.samples import ImageOptions


def quantize_static(
    model: str | os.PathLike[str],
    calib: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    *,
    reader: str | None = None,
    samples: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    images: ImageOptions | None = None,
    accuracy: str | None = None,
    min_sqnr: float | None = None,
    min_agreement: float | None = None,
    max_accuracy_drop: float | None = None,
    labels: str | os.PathLike[str] | None = None,
    time_limit: float | None = None,
    method: str = "auto",
    percentile: float = 99.99,
    save_ranges: str | os.PathLike[str] | None = None,
    ranges: str | os.PathLike[str] | None = None,
    activations: str = "uint8",
    symmetric_activations: bool = False,
    weights: str = "int8",
    symmetric: bool | None = None,
    per_channel: bool = True,
    reduce_range: bool | None = None,
    dynamic_matmul: bool | None = None,
    format: str = "qdq",
    storage: bool = True,
    target: str = "ort-cpu",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    op_types: Sequence[str] = (),
    force: bool = False,
    in_place: bool = False,
    dry_run: bool = False,
    keep_metadata: bool = False,
    progress: Progress | None = None,
) -> QuantizationResult:
    """Quantize weights and activations of a model, calibrated on samples.

    Args:
        model: path of the float model.
        calib: folder of samples; None with ``reader``.
        output: path of the result; ``model.static.onnx`` beside the model if None.
        reader: 'module:function' that gives samples.
        samples: use so many of them; None for all.
        seed: chooses which.
        skip_bad: go on without samples that do not fit.
        images: how images become inputs.
        accuracy: fast, balanced or best; None for balanced, or for fast with ``ranges``.
        min_sqnr: in dB, on samples held back; layers are kept in float, or in 16 bits where
            the target has them, until it is reached.
        min_agreement: the same for the share of places with the same largest score, in percent.
        max_accuracy_drop: the same for top-1 accuracy on labels, in points; without labels for
            places that disagree, in percent.
        labels: file with the classes of the samples; None to look beside them.
        time_limit: in seconds, for the search of what to keep in float.
        method: auto, minmax, percentile, entropy or mse.
        percentile: for the method of that name, in percent.
        save_ranges: file to write the ranges to.
        ranges: file of an earlier run to take ranges from.
        activations: uint8, int8, uint16 or int16.
        symmetric_activations: zero of activations in the middle of the integers.
        weights: int8, uint8, int4 or int16.
        symmetric: the same for weights; None for the default of the type and target.
        per_channel: one scale for each output channel of a weight; False for one a tensor.
        reduce_range: 7-bit weights; None for larger scales where this processor adds inexactly
            (x86 without VNNI).
        dynamic_matmul: quantize activations of matrix products between float tensors at run time;
            None for the target's default.
        format: qdq (pairs that the runtime fuses) or qoperator (operators on integers).
        storage: also store small what no integer kernel reads.
        target: name of a target.
        include: globs on node names to quantize; empty for all.
        exclude: globs on node names to leave alone.
        op_types: operator types to quantize; empty for all.
        force: replace an output that exists.
        in_place: replace the model itself.
        dry_run: only plan.
        keep_metadata: keep the texts that exporters leave at nodes for debugging.
        progress: called with a label, gives a function that wraps an iterable of known length
            or None, to show how far it is.

    Raises:
        OnnxqError: one of its kinds, with one line of text; no output file is left then.
    """
    from onnxq.pipelines import Budget, RangeFiles, RangeOptions, run_static
    from onnxq.plan import StaticOptions, parse_activation_type, parse_weight_type
    from onnxq.plan.options import parse_calibrated_format
    from onnxq.samples import SampleOptions, open_samples_if_named
    from onnxq.schemes import ActivationScheme
    from onnxq.targets import find_target

    kind = parse_activation_type(activations)
    chosen = SampleOptions(limit=samples, seed=seed, skip_bad=skip_bad, images=images)
    opened = open_samples_if_named(optional_path(calib), reader=reader, options=chosen)
    return run_static(
        required_path(model),
        optional_path(output),
        target=find_target(target),
        options=StaticOptions(
            activations=ActivationScheme(type=kind, symmetric=symmetric_activations),
            weights=parse_weight_type(weights),
            per_channel=per_channel,
            symmetric_weights=symmetric,
            reduce_range=reduce_range,
            dynamic_matmul=dynamic_matmul,
            format=parse_calibrated_format(format),
            storage=storage,
            include=tuple(include),
            exclude=tuple(exclude),
            op_types=tuple(op_types),
        ),
        samples=opened,
        range_options=RangeOptions(method=method, percentile=percentile),
        accuracy=accuracy,
        budget=Budget.parse(min_sqnr, min_agreement, max_accuracy_drop, labels, time_limit),
        range_files=RangeFiles(load=optional_path(ranges), save=optional_path(save_ranges)),
        force=force,
        in_place=in_place,
        dry_run=dry_run,
        keep_metadata=keep_metadata,
        progress=progress,
    )
