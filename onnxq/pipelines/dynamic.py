"""Quantizing weights; activations at run time, so that data is needed for 4-bit weights at most."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import onnx_ir as ir

from onnxq.apply import Blocks, apply_plan
from onnxq.errors import UsageError
from onnxq.graph.output import stage_output
from onnxq.pipelines.calibrate import Progress
from onnxq.pipelines.common import (
    QuantizationResult,
    choose_destination,
    open_float_model,
    pass_through,
    plan_model,
    write_smaller,
)
from onnxq.pipelines.conflicts import Kind, Reading, Writing, list_readings, refuse_conflicts
from onnxq.pipelines.processor import adapt_target, note_products
from onnxq.pipelines.publishing import publish_verified
from onnxq.pipelines.round_blocks import BlockRounding
from onnxq.plan import DynamicOptions, Plan, Selection, plan_dynamic
from onnxq.runtime.damage import explain_damage
from onnxq.samples import SampleFolder, Samples
from onnxq.targets import Target
from onnxq.verification import Evaluation, find_hints, verify


def run_dynamic(
    source: Path,
    output: Path | None,
    *,
    target: Target,
    options: DynamicOptions,
    data: Path | None = None,
    samples: Samples | None = None,
    force: bool = False,
    in_place: bool = False,
    dry_run: bool = False,
    keep_metadata: bool = False,
    progress: Progress | None = None,
) -> QuantizationResult:
    """Quantize weights.

    Args:
        source: the float model.
        output: where the result goes; None for a name beside the model.
        target: to quantize for.
        options: what the user asks.
        data: folder of samples to compare on; None for those of ``samples`` that are held back, or
            made-up inputs.
        samples: to round 4-bit weights with; None to round to nearest.
        force: replace an output that exists.
        in_place: replace the model itself.
        dry_run: only plan.
        keep_metadata: keep the texts that exporters leave at nodes for debugging.
        progress: shows it.

    Raises:
        OnnxqError: any of its kinds; then no output file exists.
    """
    destination = choose_destination(
        source, output, kind=options.weights.value, in_place=in_place, force=force or dry_run
    )
    _refuse_samples(options, samples)
    read = list_readings(source, samples, "--calib", in_place=in_place)
    written = Writing("-o", destination, has_data=True)
    refuse_conflicts((written,), (*read, Reading("--data", data, Kind.SAMPLES)))
    evaluation: Evaluation | None = None if data is None else SampleFolder.open(data)
    show = progress or (lambda _label: pass_through)
    with explain_damage(source):
        file, selection = open_float_model(source, options, keep_metadata=keep_metadata)
        target = adapt_target(target)
        make_plan = partial(_plan, target, options)
        file, result, _ = plan_model(file, destination, target, make_plan, selection)
        result = replace(result, notes=note_products(result.plan, options.reduce_range, target))
        if dry_run:
            return result
        hints = find_hints(file.model)
        with stage_output(destination) as staged:
            blocks: Blocks = {}
            if samples is not None:
                rounding = BlockRounding(file, result.plan, target, samples, staged, show)
                blocks, report, held_back = rounding.run()
                result = replace(result, rounding=report)
                evaluation = evaluation or held_back
            apply_plan(file.model, result.plan, target, blocks=blocks)
            size_bytes = write_smaller(file, staged, force=force, in_place=in_place)
            verification = verify(
                source,
                staged.staged_path,
                data=evaluation,
                hints=hints,
                size_bytes=file.size_bytes,
                track=show("comparing"),
            )
            verification = publish_verified(
                file, staged, verification, force=force, in_place=in_place
            )
        return replace(result, size_bytes=size_bytes, verification=verification)


def _refuse_samples(options: DynamicOptions, samples: Samples | None) -> None:
    if samples is not None and options.weights.bits != 4:
        raise UsageError(
            f"--calib is for 4-bit weights; {options.weights.value} weights are rounded without "
            "data: leave it out, or calibrate activations with onnxq static"
        )


def _plan(target: Target, options: DynamicOptions, model: ir.Model, selection: Selection) -> Plan:
    return plan_dynamic(model, target, options, selection)
