"""``onnxq.quantize_dynamic``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxq.pipelines import QuantizationResult


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
    force: bool = False,
    in_place: bool = False,
    dry_run: bool = False,
    keep_metadata: bool = False,
) -> QuantizationResult:
    """Quantize the weights of a model, without data.

    Args:
        model: path of the float model.
        output: path of the result; ``model.int8.onnx`` (by type) beside the model if None.
        weights: int8, uint8, int4, uint4, fp16 or bf16.
        per_channel: one scale for each output channel; False for one a tensor.
        block_size: elements that share a scale in 4-bit weights; None for the target's default.
        symmetric: None for the default of the type (asymmetric for the unsigned ones).
        reduce_range: 7-bit weights; None for where this processor adds 8-bit products inexactly
            (x86 without VNNI).
        storage: also store small what no integer kernel reads.
        target: name of a target.
        include: globs on node names to quantize; empty for all.
        exclude: globs on node names to leave alone.
        op_types: operator types to quantize; empty for all.
        data: folder of samples to compare on; made-up inputs if None.
        force: replace an output that exists.
        in_place: replace the model itself.
        dry_run: only plan.
        keep_metadata: keep the texts that exporters leave at nodes for debugging.

    Raises:
        OnnxqError: one of its kinds, with one line of text; no output file is left then.
    """
    from onnxq.pipelines import run_dynamic
    from onnxq.plan import DynamicOptions, parse_weight_type
    from onnxq.targets import find_target

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
        Path(model),
        None if output is None else Path(output),
        target=find_target(target),
        options=options,
        data=None if data is None else Path(data),
        force=force,
        in_place=in_place,
        dry_run=dry_run,
        keep_metadata=keep_metadata,
    )
