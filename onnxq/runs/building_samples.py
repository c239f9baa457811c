"""The part of a ``ModelJob`` that has to do with samples: calibration, and what is measured."""

from __future__ import annotations

from pathlib import Path

from onnxq.comparison.gates import GATE_RULES, check_limits, read_limit
from onnxq.pipelines import Budget, RangeOptions, choose_level
from onnxq.pipelines.compare import CompareOptions
from onnxq.report.files import check_report_path
from onnxq.runs.jobs import Calibration, Evaluation, SampleChoice
from onnxq.runs.keys import ROUNDING_KEYS, STATIC
from onnxq.runs.settings import Settings, takes_samples
from onnxq.samples import ImageOptions, SampleOptions


def build_calibration(settings: Settings) -> Calibration | None:
    """Where the ranges of a static model come from; what is wrong is noted."""
    load, save = settings.get("ranges", ""), settings.get("save_ranges", "")
    samples = None
    if settings.has("calib", "reader"):
        samples = _choose_samples(settings, "calib", "reader", "samples")
    elif not load:
        settings.note("calib: is missing; static needs calib, reader or ranges", "mode")
    level, budget = _read_level(settings, has_ranges=bool(load)), _read_budget(settings)
    with settings.blame("method"):
        return Calibration(
            samples=samples,
            accuracy=level,
            budget=budget,
            options=RangeOptions(
                method=settings.get("method", RangeOptions.method),
                percentile=settings.get("percentile", RangeOptions.percentile),
            ),
            load=Path(load) if load else None,
            save=Path(save) if save else None,
        )
    return None


def build_rounding(settings: Settings) -> Calibration | None:
    """The samples to round the 4-bit weights of a dynamic model with, if any."""
    if not takes_samples(settings.own, settings.defaults):
        for key in ROUNDING_KEYS:
            if key in settings.own:
                settings.note(f"{key}: is for {STATIC}, and for 4-bit weights; leave it out", key)
        return None
    if not settings.has("calib", "reader"):
        if "samples" in settings.own:
            settings.note("samples: needs calib or reader", "samples")
        return None
    samples = _choose_samples(settings, "calib", "reader", "samples")
    return None if samples is None else Calibration(samples=samples, options=RangeOptions())


def _read_level(settings: Settings, *, has_ranges: bool) -> str | None:
    with settings.blame("accuracy"):
        return choose_level(settings.get("accuracy", None), has_ranges=has_ranges)
    return None


def _read_budget(settings: Settings) -> Budget:
    values = {name: setting.value for name, setting in settings.merge_table("budget").items()}
    labels = values.get("labels")
    with settings.blame_line(settings.find_line("budget")):
        return Budget.parse(
            min_sqnr_db=values.get("min_sqnr"),
            min_agreement_percent=values.get("min_agreement"),
            max_accuracy_drop=values.get("max_accuracy_drop"),
            labels=None if labels is None else Path(labels),
            time_limit_s=values.get("time_limit"),
        )
    return Budget()


def build_evaluation(settings: Settings) -> Evaluation | None:
    """What to measure on which samples; None without any, or where something is wrong."""
    if not settings.has("eval", "eval_reader"):
        return None
    samples = _choose_samples(settings, "eval", "eval_reader", "eval_samples")
    limits = _read_limits(settings)
    reports: tuple[str, ...] = settings.get("report", ())
    for report in reports:
        with settings.blame("report"):
            check_report_path(Path(report))
    labels = settings.get("labels", "")
    if samples is None:
        return None
    with settings.blame("metric", "eval"):
        return Evaluation(
            samples=samples,
            options=CompareOptions(
                limits=limits,
                labels=Path(labels) if labels else None,
                metric=settings.get("metric", None),
                layers=settings.get("layers", CompareOptions.layers),
                latency=settings.get("latency", CompareOptions.latency),
                threads=settings.get("threads", CompareOptions.threads),
                rounds=settings.get("rounds", CompareOptions.rounds),
            ),
            reports=tuple(map(Path, reports)),
        )
    return None


def _choose_samples(
    settings: Settings, folder: str, reader: str, limit: str
) -> SampleChoice | None:
    if settings.has(folder) and settings.has(reader):
        settings.note(f"{reader}: stands beside {folder}; give one of the two", reader)
    images = None
    # The first of them that is refused is noted; a second one for the same values is the same.
    with settings.blame("size", "mean", "std", "scale", "layout", "channels"):
        images = ImageOptions(
            size=settings.get("size", None),
            mean=settings.get("mean", None),
            std=settings.get("std", None),
            layout=settings.get("layout", None),
            channels=settings.get("channels", ImageOptions.channels),
            scale=settings.get("scale", None),
        )
    with settings.blame(limit):
        return SampleChoice(
            folder=Path(settings.get(folder, "")) if settings.has(folder) else None,
            reader=settings.get(reader, None),
            options=SampleOptions(
                limit=settings.get(limit, None),
                seed=settings.get("seed", SampleOptions.seed),
                skip_bad=settings.get("skip_bad", SampleOptions.skip_bad),
                images=images,
            ),
        )
    return None


def _read_limits(settings: Settings) -> dict[str, float]:
    """The limits that can be taken; those of the model come before those of the defaults."""
    limits: dict[str, float] = {}
    for key, setting in settings.merge_table("gates").items():
        name = key.replace("_", "-")
        rule = GATE_RULES[name]
        with settings.blame_line(setting.line):
            check_limits({name: setting.value})
            # The value of a metric of the user need not be a share; nothing is known of it here.
            is_share = rule.is_share and not settings.has("metric")
            read_limit(rule, setting.value, is_share=is_share)
            limits[name] = setting.value
    return limits
