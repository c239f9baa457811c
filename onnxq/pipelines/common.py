"""What the modes share: opening, planning, writing and verifying."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnx_ir.passes.common as passes

from onnxq.errors import (
    AlreadyQuantizedError,
    InvalidModelError,
    NothingToQuantizeError,
    UsageError,
)
from onnxq.graph.files import ModelFile, load_model
from onnxq.graph.opset import raise_opset
from onnxq.graph.output import Output, check_output, write_model
from onnxq.graph.protobuf import refuse_missing
from onnxq.pipelines.budget import TradeOff
from onnxq.pipelines.round_blocks import RoundingReport
from onnxq.pipelines.stages import StageReport
from onnxq.plan import (
    DynamicOptions,
    Plan,
    Selection,
    follow_nodes,
    name_excluded_nodes,
    select,
)
from onnxq.plan.requirements import required_ir_version, required_opset
from onnxq.rules.quantized import find_quantization
from onnxq.runtime.session import Feeds
from onnxq.simplify import simplify
from onnxq.targets import Target
from onnxq.verification import Verification

Planner = Callable[[ir.Model, Selection], Plan]


@dataclass(frozen=True)
class CalibrationReport:
    """How activations were calibrated.

    Attributes:
        data: where the samples came from.
        samples: how many were run.
        held_back: how many were kept to verify with.
        skipped: a message for each bad sample that was left out.
        notes: what a user should know of how files became inputs.
        method: the one whose ranges are used.
        candidates: SQNR in dB on the samples held back, for each method that was tried.
        ranges: of each activation, by name.
        accuracy: the level that was asked for.
        stages: what each technique of that level did.
        curve: what was tried to meet a budget, everything in integers first.
    """

    data: str
    samples: int
    held_back: int
    skipped: tuple[str, ...]
    notes: tuple[str, ...]
    method: str
    candidates: tuple[tuple[str, float | None], ...]
    ranges: tuple[tuple[str, float, float], ...]
    accuracy: str
    stages: tuple[StageReport, ...] = ()
    curve: tuple[TradeOff, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "data": self.data,
            "samples": self.samples,
            "held_back": self.held_back,
            "skipped": list(self.skipped),
            "notes": list(self.notes),
            "method": self.method,
            "candidates": [
                {"method": method, "sqnr_db": sqnr_db} for method, sqnr_db in self.candidates
            ],
            "ranges": [
                {"tensor": name, "low": low, "high": high} for name, low, high in self.ranges
            ],
            "accuracy": self.accuracy,
            "stages": [stage.to_json() for stage in self.stages],
            "trade_off": [point.to_json() for point in self.curve],
        }


@dataclass(frozen=True)
class QuantizationResult:
    """What a mode did.

    Attributes:
        source: the float model.
        output: where the quantized model is, or would be.
        plan: every decision.
        float_size_bytes: of the float model, external data included.
        opset: operator set of the quantized model.
        float_opset: operator set of the float model.
        size_bytes: of the quantized model; None after a dry run.
        verification: how it compares; None after a dry run.
        calibration: where the ranges of activations come from; None without calibration.
        notes: what a user should know of the processor.
        rounding: how 4-bit weights were rounded with samples; None without.
    """

    source: Path
    output: Path
    plan: Plan
    float_size_bytes: int
    opset: int
    float_opset: int
    size_bytes: int | None = None
    verification: Verification | None = None
    calibration: CalibrationReport | None = None
    notes: tuple[str, ...] = ()
    rounding: RoundingReport | None = None

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
            "notes": list(self.notes),
            "plan": self.plan.to_json(),
            "verification": None if self.verification is None else self.verification.to_json(),
        } | {
            name: part.to_json()
            for name, part in (("calibration", self.calibration), ("rounding", self.rounding))
            if part is not None
        }


def default_output(source: Path, kind: str) -> Path:
    """``model.onnx`` -> ``model.int8.onnx`` in the same folder.

    Args:
        source: the float model.
        kind: what goes between stem and suffix.

    Raises:
        InvalidModelError: ``source`` names no file.

    >>> str(default_output(Path("net.onnx"), "int8"))
    'net.int8.onnx'
    """
    if not source.name:
        raise InvalidModelError("'': no such file; name the .onnx file")
    return source.with_name(f"{source.stem}.{kind}.onnx")


def choose_destination(
    source: Path, output: Path | None, *, kind: str, in_place: bool, force: bool
) -> Path:
    """Where the result goes; refuses before the work what would fail after it.

    Raises:
        UsageError: ``in_place`` beside an output.
        InvalidModelError: ``source`` names no file.
        OutputError: the result must not be written there.
    """
    if in_place and output is not None:
        raise UsageError("--in-place replaces the input; leave out -o")
    refuse_missing(source)
    destination = source if in_place else output or default_output(source, kind)
    if not in_place:
        check_output(source, destination, force=force)
    return destination


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
    file: ModelFile, target: Target, make_plan: Planner, selection: Selection
) -> tuple[ir.Model, Plan, Selection]:
    """Plan, and raise the operator set first where the plan needs newer operators."""
    model = file.model
    plan = make_plan(model, selection)
    wanted = required_opset(plan, target)
    if model.opset_imports[""] < wanted:
        name_excluded_nodes(selection)
        model = raise_opset(model, wanted, path=file.path)
        selection = follow_nodes(selection, model)
        simplify(model, selection.excluded)
        plan = make_plan(model, selection)
    model.ir_version = max(model.ir_version, required_ir_version(plan, target))
    return model, plan, selection


def plan_model(
    file: ModelFile,
    destination: Path,
    target: Target,
    make_plan: Planner,
    selection: Selection,
) -> tuple[ModelFile, QuantizationResult, Selection]:
    """The model in the operator set that its plan needs, and a result that is not written yet.

    Raises:
        NothingToQuantizeError: the plan changes nothing.
    """
    model, plan, selection = plan_with_opset(file, target, make_plan, selection)
    if not plan.changes:
        raise NothingToQuantizeError(_explain_nothing(file.path, plan))
    result = QuantizationResult(
        source=file.path,
        output=destination,
        plan=plan,
        float_size_bytes=file.size_bytes,
        opset=model.opset_imports[""],
        float_opset=file.model.opset_imports[""],
    )
    return replace(file, model=model), result, selection


def write_smaller(file: ModelFile, staged: Output, *, force: bool, in_place: bool) -> int:
    """Write the model; returns its bytes, of which there must be fewer than before.

    Raises:
        NothingToQuantizeError: there are not.
        OutputError: it cannot be written.
    """
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


def pass_through(feeds: Iterable[Feeds], _total: int | None) -> Iterable[Feeds]:
    """No progress bar."""
    return feeds
