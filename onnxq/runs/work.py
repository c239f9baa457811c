"""One model of a pipeline: what has changed is done again, the rest is taken from the lock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnxq.comparison.results import ComparisonReport
from onnxq.pipelines import (
    Progress,
    QuantizationResult,
    RangeFiles,
    run_dynamic,
    run_static,
)
from onnxq.pipelines.compare import run_compare
from onnxq.plan import DynamicOptions
from onnxq.report.files import write_report
from onnxq.runs.fingerprints import Fingerprints, find_output, take_fingerprints
from onnxq.runs.folders import make_folder
from onnxq.runs.jobs import Evaluation, ModelJob
from onnxq.runs.lock import LockedRanges, LockEntry
from onnxq.runs.messages import Finished
from onnxq.runs.numbers import Numbers
from onnxq.targets import find_target


@dataclass(frozen=True)
class _Quantized:
    """A quantized model that is there: made just now, or earlier."""

    output: str
    ranges: LockedRanges | None
    numbers: Numbers
    is_new: bool


def run_job(
    job: ModelJob,
    recorded: LockEntry | None,
    *,
    force: bool,
    progress: Progress,
    announce: Callable[[str], None],
) -> Finished:
    """See to one model. Paths in it are relative to the current directory.

    Args:
        job: what to do.
        recorded: what the lock has of it.
        force: do everything anew.
        progress: shows it.
        announce: called with the name of what begins.

    Raises:
        OnnxqError: any of its kinds.
    """
    fingerprints = take_fingerprints(job)
    known = None if force else recorded
    quantized = _take_from_lock(job, fingerprints, known)
    if quantized is None:
        announce("quantizing")
        quantized = _quantize(job, progress)
        known = None
    report, is_new = _measure(job, fingerprints, quantized, known, progress)
    entry = LockEntry(
        fingerprints=fingerprints,
        output=quantized.output,
        ranges=quantized.ranges,
        numbers=Numbers.of_report(report),
        gates=report.gates,
    )
    return Finished(entry, report, quantized.is_new or is_new)


def _take_from_lock(
    job: ModelJob, fingerprints: Fingerprints, recorded: LockEntry | None
) -> _Quantized | None:
    if recorded is None or not fingerprints.gives_same_model(recorded.fingerprints):
        return None
    if job.evaluation is None and recorded.fingerprints.evaluation:
        return None  # its numbers are of samples that are asked for no more
    save = None if job.calibration is None else job.calibration.save
    if save is not None and not save.is_file():
        return None
    if not recorded.output or find_output(job) != recorded.output:
        return None
    return _Quantized(recorded.output, recorded.ranges, recorded.numbers, is_new=False)


def _quantize(job: ModelJob, progress: Progress) -> _Quantized:
    make_folder(job.output)
    result = _run_mode(job, progress)
    calibration = result.calibration
    ranges = None
    if calibration is not None:
        tensors = {name: (low, high) for name, low, high in calibration.ranges}
        ranges = LockedRanges(calibration.method, tensors)
    numbers = Numbers.of_verification(result)
    return _Quantized(find_output(job), ranges, numbers, is_new=True)


def _run_mode(job: ModelJob, progress: Progress) -> QuantizationResult:
    target, options, calibration = find_target(job.target), job.options, job.calibration
    chosen = None if calibration is None else calibration.samples
    samples = None if chosen is None else chosen.open()
    if isinstance(options, DynamicOptions):
        return run_dynamic(
            job.source,
            job.output,
            target=target,
            options=options,
            samples=samples,
            force=True,
            keep_metadata=job.keep_metadata,
            progress=None if samples is None else progress,
        )
    assert calibration is not None
    if calibration.save is not None:
        make_folder(calibration.save)
    return run_static(
        job.source,
        job.output,
        target=target,
        options=options,
        samples=samples,
        range_options=calibration.options,
        accuracy=calibration.accuracy,
        budget=calibration.budget,
        range_files=RangeFiles(load=calibration.load, save=calibration.save),
        force=True,
        keep_metadata=job.keep_metadata,
        progress=progress,
    )


def _measure(
    job: ModelJob,
    fingerprints: Fingerprints,
    quantized: _Quantized,
    recorded: LockEntry | None,
    progress: Progress,
) -> tuple[ComparisonReport, bool]:
    """The comparison, and whether it was made just now."""
    evaluation = job.evaluation
    if evaluation is None:
        return quantized.numbers.recall(job.source, job.output, {}), False
    if recorded is not None and fingerprints.gives_same_numbers(recorded.fingerprints):
        report = recorded.numbers.recall(job.source, job.output, evaluation.options.limits)
        if _are_current(evaluation, report, recorded):
            return report, False
    return _compare(job, evaluation, progress), True


def _are_current(evaluation: Evaluation, report: ComparisonReport, recorded: LockEntry) -> bool:
    """Whether the reports say what a new one would: they show the gates, too."""
    if not evaluation.reports:
        return True
    same = [(one.name, one.limit) for one in report.gates] == [
        (one.name, one.limit) for one in recorded.gates
    ]
    return same and all(path.is_file() for path in evaluation.reports)


def _compare(job: ModelJob, evaluation: Evaluation, progress: Progress) -> ComparisonReport:
    for path in evaluation.reports:
        make_folder(path)
    report = run_compare(
        job.source,
        job.output,
        samples=evaluation.samples.open(),
        options=evaluation.options,
        progress=progress,
    )
    for path in evaluation.reports:
        write_report(report, path)
    return report
