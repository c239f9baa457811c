"""Quantizing weights and activations, calibrated on samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import onnx_ir as ir

from onnxq.algorithms.recipe import Recipe, apply_recipe
from onnxq.calibration import fingerprint_model, save_ranges
from onnxq.errors import UsageError
from onnxq.graph.files import ModelFile
from onnxq.graph.offload import offload_weights
from onnxq.graph.output import Output, stage_output
from onnxq.pipelines.budget import Budget
from onnxq.pipelines.calibrate import (
    Calibration,
    Progress,
    calibrate_from_file,
    calibrate_on_samples,
    describe_ranges,
)
from onnxq.pipelines.common import (
    CalibrationReport,
    QuantizationResult,
    choose_destination,
    open_float_model,
    pass_through,
    plan_model,
    write_smaller,
)
from onnxq.pipelines.conflicts import Writing, list_readings, refuse_conflicts
from onnxq.pipelines.improve import Improved, check_measured, choose_level, improve
from onnxq.pipelines.processor import adapt_target, note_products
from onnxq.pipelines.publishing import publish_verified
from onnxq.pipelines.range_options import RangeFiles, RangeOptions
from onnxq.pipelines.reference import Reference
from onnxq.pipelines.trials import Trials
from onnxq.plan import Plan, Selection, StaticOptions, plan_static
from onnxq.plan.planner import StaticPlanner
from onnxq.runtime.damage import explain_damage
from onnxq.runtime.memory import refuse_beyond_memory
from onnxq.runtime.signatures import read_signatures
from onnxq.samples import Part, Samples, calibration_part, verification_part
from onnxq.targets import Target
from onnxq.verification import find_hints, verify

KIND = "static"


def run_static(
    source: Path,
    output: Path | None,
    *,
    target: Target,
    options: StaticOptions,
    samples: Samples | None,
    range_options: RangeOptions | None = None,
    range_files: RangeFiles | None = None,
    accuracy: str | None = None,
    budget: Budget | None = None,
    force: bool = False,
    in_place: bool = False,
    dry_run: bool = False,
    keep_metadata: bool = False,
    progress: Progress | None = None,
    extra: Part | None = None,
) -> QuantizationResult:
    """Quantize with calibration; layers are tuned on ``extra`` samples, too.

    Raises:
        OnnxqError: any of its kinds; then no output file exists.
    """
    destination = choose_destination(
        source, output, kind=KIND, in_place=in_place, force=force or dry_run
    )
    options.check_target(target)
    files, limits = range_files or RangeFiles(), budget or Budget()
    level = choose_level(accuracy, has_ranges=files.load is not None)
    asked = range_options or RangeOptions()
    if not dry_run:
        files.check(source, asked, has_samples=samples is not None, force=force)
        check_measured(level, limits, samples)
    _refuse_conflicts(source, destination, files, limits, samples, in_place=in_place)
    with explain_damage(source):
        plain = options.uncalibrated
        file, selection = open_float_model(source, plain, keep_metadata=keep_metadata)
        target = adapt_target(target)
        make_plan = partial(_plan, target, options)
        file, result, selection = plan_model(file, destination, target, make_plan, selection)
        result = replace(result, notes=note_products(result.plan, options.reduce_range, target))
        if dry_run:
            return result
        job = _Job(
            file=file,
            target=target,
            options=options,
            selection=selection,
            samples=samples,
            range_options=asked,
            range_files=files,
            level=level,
            budget=limits,
            progress=progress or (lambda _label: pass_through),
            extra=extra,
        )
        refuse_beyond_memory(source, file.size_bytes, advice="free some, or take onnxq dynamic")
        with stage_output(destination) as staged:
            # Nothing else may hold the weights in memory any more.
            return job.run(job.offload(result, staged), staged, force=force, in_place=in_place)


def _refuse_conflicts(
    source: Path,
    destination: Path,
    files: RangeFiles,
    budget: Budget,
    samples: Samples | None,
    *,
    in_place: bool,
) -> None:
    named = {"--ranges": files.load, "--labels": budget.labels}
    refuse_conflicts(
        (Writing("-o", destination, has_data=True), Writing("--save-ranges", files.save)),
        list_readings(source, samples, "--calib", in_place=in_place, files=named),
    )


def _plan(target: Target, options: StaticOptions, model: ir.Model, selection: Selection) -> Plan:
    return plan_static(model, target, options, selection)


def _work_folder(staged: Output) -> Path:
    return staged.staged_path.parent / "work"


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One run, with everything that its steps share."""

    file: ModelFile
    target: Target
    options: StaticOptions
    selection: Selection
    samples: Samples | None
    range_options: RangeOptions
    range_files: RangeFiles
    level: str
    budget: Budget
    progress: Progress
    extra: Part | None

    def offload(self, result: QuantizationResult, staged: Output) -> QuantizationResult:
        """Keep the weights in a file while the runtime has them in memory, too."""
        folder = _work_folder(staged)
        folder.mkdir()
        if not self.file.external_files:
            offload_weights(self.file.model, folder)
        return replace(result, plan=result.plan.follow_tensors())

    def run(
        self, result: QuantizationResult, staged: Output, *, force: bool, in_place: bool
    ) -> QuantizationResult:
        """Calibrate, improve, write, verify, publish."""
        hints = find_hints(self.file.model)
        calibration = self._calibrate(result.plan, staged)
        evaluation = self._hold_back()
        improved = improve(
            self._make_recipes(calibration),
            None if evaluation is None else self._make_trials(evaluation, staged),
            self.samples,
            self.level,
            self.budget,
            percentile=self.range_options.percentile,
            folder=_work_folder(staged),
            extra=self.extra,
        )
        recipe = improved.recipe
        written = replace(self.file, model=apply_recipe(recipe))
        size_bytes = write_smaller(written, staged, force=force, in_place=in_place)
        verification = verify(
            self.file.path,
            staged.staged_path,
            data=evaluation,
            hints=hints,
            size_bytes=self.file.size_bytes,
            track=self.progress("comparing"),
            needs_fusion=self.target.folds_casts,
        )
        self._save(calibration, improved.method)
        verification = publish_verified(
            self.file, staged, verification, force=force, in_place=in_place
        )
        return replace(
            result,
            plan=recipe.plan,
            opset=recipe.model.opset_imports[""],
            notes=note_products(recipe.plan, self.options.reduce_range, self.target),
            size_bytes=size_bytes,
            verification=verification,
            calibration=self._report(calibration, improved, evaluation, verification.samples),
        )

    def _make_recipes(self, calibration: Calibration) -> dict[str, Recipe]:
        """One for each method that chose ranges."""
        planner = self._planner.refuse(calibration.settled.refused)
        return {
            method: Recipe(planner=planner, plan=calibration.plan, ranges=ranges)
            for method, ranges in calibration.candidates.items()
        }

    def _make_trials(self, evaluation: Part, staged: Output) -> Trials:
        return Trials(
            file=self.file,
            staged=staged,
            evaluation=evaluation,
            progress=self.progress,
            reference=Reference(self.file.path),
            labels=self.budget.find_labels(None if self.samples is None else self.samples.folder),
        )

    @property
    def _planner(self) -> StaticPlanner:
        return StaticPlanner(
            model=self.file.model,
            target=self.target,
            options=self.options,
            selection=self.selection,
        )

    def _make_plan(self, refused: Mapping[ir.Node, str]) -> Plan:
        return self._planner.refuse(refused).plan()

    def _calibrate(self, plan: Plan, staged: Output) -> Calibration:
        if self.range_files.load is not None:
            fingerprint = self._fingerprint()
            return calibrate_from_file(
                self.range_files.load, fingerprint, plan, self._make_plan, self.target
            )
        samples = self.samples
        if samples is None:
            raise UsageError("calibration needs samples")
        return calibrate_on_samples(
            self.file.model,
            plan,
            self._make_plan,
            calibration_part(samples),
            self.range_options,
            target=self.target,
            source=self.file.path,
            folder=_work_folder(staged),
            progress=self.progress,
        )

    def _hold_back(self) -> Part | None:
        if self.samples is None:
            return None
        return verification_part(self.samples, read_signatures(self.file.model))

    def _save(self, calibration: Calibration, method: str) -> None:
        if self.range_files.save is not None:
            data = "" if self.samples is None else self.samples.fingerprint()
            saved = describe_ranges(calibration, method, model=self._fingerprint(), data=data)
            save_ranges(saved, self.range_files.save)

    def _fingerprint(self) -> str:
        folder = self.file.path.parent
        return fingerprint_model(
            (self.file.path, *(folder / name for name in self.file.external_files))
        )

    def _report(
        self,
        calibration: Calibration,
        improved: Improved,
        evaluation: Part | None,
        compared: int,
    ) -> CalibrationReport:
        recipe, samples = improved.recipe, self.samples
        return CalibrationReport(
            data=str(self.range_files.load or ("" if samples is None else samples.label)),
            samples=calibration.samples,
            held_back=compared if evaluation is not None and evaluation.is_held_back else 0,
            skipped=() if samples is None else samples.skipped,
            notes=() if samples is None else samples.notes,
            method=improved.method,
            candidates=improved.tried,
            ranges=tuple(
                (one.name, *recipe.find_range(one)) for one in recipe.plan.decisions.activations
            ),
            accuracy=self.level,
            stages=improved.stages,
            curve=improved.curve,
        )
