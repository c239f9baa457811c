"""Quantizing without data."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import onnx_ir as ir

from onnxq.apply import apply_plan
from onnxq.graph.output import publish, stage_output
from onnxq.pipelines.common import (
    QuantizationResult,
    choose_destination,
    open_float_model,
    pass_through,
    plan_model,
    write_smaller,
)
from onnxq.pipelines.processor import adapt_target, note_products
from onnxq.plan import DynamicOptions, Plan, Selection, plan_dynamic
from onnxq.runtime.damage import explain_damage
from onnxq.samples import SampleFolder
from onnxq.targets import Target
from onnxq.verification import Track, find_hints, verify


def run_dynamic(
    source: Path,
    output: Path | None,
    *,
    target: Target,
    options: DynamicOptions,
    data: Path | None = None,
    force: bool = False,
    in_place: bool = False,
    dry_run: bool = False,
    keep_metadata: bool = False,
    track: Track | None = None,
) -> QuantizationResult:
    """Quantize without data.

    Raises:
        OnnxqError: any of its kinds; then no output file exists.
    """
    destination = choose_destination(
        source, output, kind=options.weights.value, in_place=in_place, force=force or dry_run
    )
    folder = None if data is None else SampleFolder.open(data)
    with explain_damage(source):
        file, selection = open_float_model(source, options, keep_metadata=keep_metadata)
        target = adapt_target(target)
        make_plan = partial(_plan, target, options)
        file, result, _ = plan_model(file, destination, target, make_plan, selection)
        result = replace(result, notes=note_products(result.plan, options.reduce_range, target))
        if dry_run:
            return result
        hints = find_hints(file.model)
        apply_plan(file.model, result.plan, target)
        with stage_output(destination) as staged:
            size_bytes = write_smaller(file, staged, force=force, in_place=in_place)
            verification = verify(
                source,
                staged.staged_path,
                data=folder,
                hints=hints,
                size_bytes=file.size_bytes,
                track=track or pass_through,
            )
            publish(staged)
        return replace(result, size_bytes=size_bytes, verification=verification)


def _plan(target: Target, options: DynamicOptions, model: ir.Model, selection: Selection) -> Plan:
    return plan_dynamic(model, target, options, selection)
