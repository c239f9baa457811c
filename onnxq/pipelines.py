"""Each mode as a list of steps, to be read like a table of contents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnx_ir.passes.common as passes

from onnxq.apply import apply_plan
from onnxq.errors import (
    AlreadyQuantizedError,
    InvalidModelError,
    NothingToQuantizeError,
    UsageError,
)
from onnxq.graph.check import explain_damage
from onnxq.graph.files import ModelFile, load_model
from onnxq.graph.opset import raise_opset
from onnxq.graph.output import Output, check_output, publish, stage_output, write_model
from onnxq.plan import (
    DynamicOptions,
    Plan,
    Selection,
    follow_nodes,
    name_excluded_nodes,
    plan_dynamic,
    select,
)
from onnxq.plan.requirements import required_ir_version, required_opset
from onnxq.rules.quantized import find_quantization
from onnxq.runtime.session import Feeds
from onnxq.samples import SampleFolder
from onnxq.simplify import simplify
from onnxq.targets import Target
from onnxq.verification import Track, Verification, find_hints, verify


@dataclass(frozen=True)
class DynamicResult:
    """What ``quantize_dynamic`` did.

    Attributes:
        source: the float model.
        output: where the quantized model is, or would be.
        plan: every decision.
        float_size_bytes: of the float model, external data included.
        opset: operator set of the quantized model.
        float_opset: operator set of the float model.
        size_bytes: of the quantized model; None after a dry run.
        verification: how it compares; None after a dry run.
    """

    source: Path
    output: Path
    plan: Plan
    float_size_bytes: int
    opset: int
    float_opset: int
    size_bytes: int | None = None
    verification: Verification | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data of everything above."""
        return {
            "schema_version": 1,
            "mode": self.plan.mode,
            "source": str(self.source),
            "output": str(self.output),
            "written": self.size_bytes is not None,
            "float_size_bytes": self.float_size_bytes,
            "size_bytes": self.size_bytes,
            "float_opset": self.float_opset,
            "opset": self.opset,
            "plan": self.plan.to_json(),
            "verification": None if self.verification is None else self.verification.to_json(),
        }


def default_output(source: Path, options: DynamicOptions) -> Path:
    """``model.onnx`` -> ``model.int8.onnx`` in the same folder.

    Raises:
        InvalidModelError: ``source`` names no file.

    >>> str(default_output(Path("net.onnx"), DynamicOptions()))
    'net.int8.onnx'
    """
    if not source.name:
        raise InvalidModelError("'': no such file; name the .onnx file")
    return source.with_name(f"{source.stem}.{options.weights.value}.onnx")


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
) -> DynamicResult:
    """Quantize without data.

    Raises:
        OnnxqError: any of its kinds; then no output file exists.
    """
    if in_place and output is not None:
        raise UsageError("--in-place replaces the input; leave out -o")
    destination = source if in_place else output or default_output(source, options)
    _check_paths(source, destination, data=data, force=force or dry_run, in_place=in_place)
    with explain_damage(source):
        file, selection = open_float_model(source, options, keep_metadata=keep_metadata)
        model, plan = plan_with_opset(file, target, options, selection)
        if not plan.changes:
            raise NothingToQuantizeError(_explain_nothing(source, plan))
        result = DynamicResult(
            source=source,
            output=destination,
            plan=plan,
            float_size_bytes=file.size_bytes,
            opset=model.opset_imports[""],
            float_opset=file.model.opset_imports[""],
        )
        if dry_run:
            return result
        hints = find_hints(model)
        apply_plan(model, plan, target)
        with stage_output(destination) as staged:
            quantized = replace(file, model=model)
            size_bytes = _write_smaller(quantized, staged, force=force, in_place=in_place)
            verification = verify(
                source,
                staged.staged_path,
                data=data,
                hints=hints,
                size_bytes=file.size_bytes,
                track=track or _pass_through,
            )
            publish(staged)
        return replace(result, size_bytes=size_bytes, verification=verification)


def open_float_model(
    source: Path, options: DynamicOptions, *, keep_metadata: bool
) -> tuple[ModelFile, Selection]:
    """Load, refuse what is quantized already, and prepare.

    Raises:
        InvalidModelError, ExternalDataError, UnsupportedModelError: see ``load_model``.
        AlreadyQuantizedError: a second layer is never added.
        SelectorError: a selector in the options matches no node.
    """
    file = load_model(source)
    evidence = find_quantization(file.model)
    if evidence is not None:
        raise AlreadyQuantizedError(
            f"{source}: already quantized: {evidence}; quantize the float model instead"
        )
    return file, prepare_model(file.model, options, keep_metadata=keep_metadata)


def prepare_model(model: ir.Model, options: DynamicOptions, *, keep_metadata: bool) -> Selection:
    """Select nodes, then simplify.

    Raises:
        SelectorError: a selector in the options matches no node.
    """
    selection = select(model, options)
    if not keep_metadata:
        passes.ClearMetadataAndDocStringPass()(model)
    simplify(model, selection.excluded)
    return selection


def plan_with_opset(
    file: ModelFile, target: Target, options: DynamicOptions, selection: Selection
) -> tuple[ir.Model, Plan]:
    """Plan, and raise the operator set first where the plan needs newer operators."""
    model = file.model
    plan = plan_dynamic(model, target, options, selection)
    wanted = required_opset(plan, target)
    if model.opset_imports[""] < wanted:
        name_excluded_nodes(selection)
        model = raise_opset(model, wanted, path=file.path)
        selection = follow_nodes(selection, model)
        simplify(model, selection.excluded)
        plan = plan_dynamic(model, target, options, selection)
    model.ir_version = max(model.ir_version, required_ir_version(plan, target))
    return model, plan


def _check_paths(
    source: Path, destination: Path, *, data: Path | None, force: bool, in_place: bool
) -> None:
    """Refuse before the work what would fail after it."""
    if not in_place:
        check_output(source, destination, force=force)
    if data is not None:
        SampleFolder.open(data)


def _write_smaller(file: ModelFile, staged: Output, *, force: bool, in_place: bool) -> int:
    """Write the model; returns its bytes, of which there must be fewer than before."""
    write_model(file, staged, force=force, in_place=in_place)
    size_bytes = staged.size_bytes()
    if size_bytes >= file.size_bytes:
        raise NothingToQuantizeError(
            f"{file.path}: would not get smaller ({file.size_bytes} -> {size_bytes} bytes)"
        )
    return size_bytes


def _explain_nothing(source: Path, plan: Plan) -> str:
    reasons = list(dict.fromkeys(tensor.explanation for tensor in plan.tensors))
    why = "; ".join(reasons[:3]) if reasons else "it has no float weights of 64 elements or more"
    return f"{source}: nothing to quantize: {why}"


def _pass_through(feeds: Iterable[Feeds], _total: int) -> Iterable[Feeds]:
    return feeds
