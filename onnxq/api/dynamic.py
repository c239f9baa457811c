"""``onnxq.quantize_dynamic``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from onnxq.api.paths import optional_path, required_path

if TYPE_CHECKING:
    from onnxq.pipelines import Progress, QuantizationResult
    from onnxq.samples import ImageOptions


def quantize_dynamic(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    weights: str = "int8",
    per_channel: bool = True,
    block_size: int | None = None,
    symmetric: bool | None = None,
    reduce_range: bool | None = None,
    storage: bool = True,
    target: str = "ort-cpu",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    op_types: Sequence[str] = (),
    data: str | os.PathLike[str] | None = None,
    calib: str | os.PathLike[str] | None = None,
    reader: str | None = None,
    samples: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    images: ImageOptions | None = None,
    force: bool = False,
    in_place: bool = False,
    dry_run: bool = False,
    keep_metadata: bool = False,
    progress: Progress | None = None,
) -> QuantizationResult:
    """Quantize the weights of a model.

    Args:
        model: path of the float model.
        output: path of the result; ``model.int8.onnx`` (by type) beside the model if None.
        weights: int8, uint8, int4, uint4, fp16 or bf16.
        per_channel: one scale for each output channel; False for one a tensor.
        block_size: elements that share a scale in 4-bit weights; None for the target's default.
        symmetric: None for the default of the type (asymmetric for 4 bits and the unsigned ones).
        reduce_range: 7-bit weights; None for larger scales where this processor adds inexactly
            (x86 without VNNI).
        storage: also store small what no integer kernel reads.
        target: name of a target.
        include: globs on node names to quantize; empty for all.
        exclude: globs on node names to leave alone.
        op_types: operator types to quantize; empty for all.
        data: folder of samples to compare on; if None those of ``calib`` that are held back, or
            made-up inputs.
        calib: folder of samples to round 4-bit weights with; None rounds to nearest.
        reader: 'module:function' that gives these samples instead.
        samples: use so many of them; None for all.
        seed: chooses which.
        skip_bad: go on without samples that do not fit.
        images: how images become inputs.
        force: replace an output that exists.
        in_place: replace the model itself.
        dry_run: only plan.
        keep_metadata: keep the texts that exporters leave at nodes for debugging.
        progress: called with a label, gives a function that wraps an iterable of known length
            or None, to show how far it is.

    Raises:
        OnnxqError: one of its kinds, with one line of text; no output file is left then.
    """
    from onnxq.pipelines import run_dynamic
    from onnxq.plan import DynamicOptions, parse_weight_type
    from onnxq.samples import SampleOptions, open_samples_if_named
    from onnxq.targets import find_target

    chosen = SampleOptions(limit=samples, seed=seed, skip_bad=skip_bad, images=images)
    opened = open_samples_if_named(optional_path(calib), reader=reader, options=chosen)
    options = DynamicOptions(
        weights=parse_weight_type(weights),
        per_channel=per_channel,
        block_size=block_size,
        symmetric=symmetric,
        reduce_range=reduce_range,
        storage=storage,
        include=tuple(include),
        exclude=tuple(exclude),
        op_types=tuple(op_types),
    )
    return run_dynamic(
        required_path(model),
        optional_path(output),
        target=find_target(target),
        options=options,
        data=optional_path(data),
        samples=opened,
        force=force,
        in_place=in_place,
        dry_run=dry_run,
        keep_metadata=keep_metadata,
        progress=progress,
    )
