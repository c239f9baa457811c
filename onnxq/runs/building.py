"""The settings of one model to a ``ModelJob``."""

from __future__ import annotations

from pathlib import Path

from onnxq.pipelines import default_output
from onnxq.plan import DynamicOptions, StaticOptions, parse_activation_type, parse_weight_type
from onnxq.plan.options import parse_calibrated_format
from onnxq.runs.building_samples import build_calibration, build_evaluation, build_rounding
from onnxq.runs.jobs import ModelJob
from onnxq.runs.keys import DYNAMIC, MODES, STATIC
from onnxq.runs.settings import Settings
from onnxq.schemes import ActivationScheme, ActivationType, CalibratedFormat, WeightType
from onnxq.targets import Target, find_target


def build_job(settings: Settings) -> ModelJob | None:
    """What is to be done with one model; None, and the reasons noted, where that is not clear."""
    if not settings.has("source"):
        settings.note("source: is missing; name the .onnx file of the float model")
    mode = settings.get("mode", "")
    if mode not in MODES:
        told = f"'{mode}' is no mode" if mode else "is missing"
        settings.note(f"mode: {told}; write {DYNAMIC} or {STATIC}", "mode")
        return None
    settings.check_use(mode)
    target = None
    with settings.blame("target"):
        target = find_target(settings.get("target", "ort-cpu"))
    options = _build_static(settings, target) if mode == STATIC else _build_dynamic(settings)
    build = build_calibration if mode == STATIC else build_rounding
    calibration = build(settings)
    evaluation = build_evaluation(settings)
    if not settings.has("source") or options is None or target is None:
        return None
    source = Path(settings.get("source", ""))
    kind = STATIC if isinstance(options, StaticOptions) else options.weights.value
    with settings.blame("source"):
        return ModelJob(
            name=settings.get("name", source.stem),
            source=source,
            output=Path(settings.get("output", "") or default_output(source, kind)),
            target=target.name,
            options=options,
            keep_metadata=settings.get("keep_metadata", False),
            calibration=calibration,
            evaluation=evaluation,
        )
    return None


def _build_dynamic(settings: Settings) -> DynamicOptions | None:
    with settings.blame("weights"):
        return DynamicOptions(
            weights=_read_weights(settings),
            per_channel=settings.get("per_channel", True),
            block_size=settings.get("block_size", None),
            symmetric=settings.get("symmetric", None),
            reduce_range=settings.get("reduce_range", None),
            storage=settings.get("storage", True),
            include=settings.get("include", ()),
            exclude=settings.get("exclude", ()),
            op_types=_split_names(settings.get("op_types", ())),
        )
    return None


def _build_static(settings: Settings, target: Target | None) -> StaticOptions | None:
    activations = form = None
    with settings.blame("activations"):
        activations = parse_activation_type(settings.get("activations", ActivationType.UINT8.value))
    with settings.blame("format"):
        form = parse_calibrated_format(settings.get("format", CalibratedFormat.PAIRS.value))
    with settings.blame("weights"):
        weights = _read_weights(settings)
        if activations is None or form is None:
            return None
        options = StaticOptions(
            activations=ActivationScheme(
                type=activations, symmetric=settings.get("symmetric_activations", False)
            ),
            weights=weights,
            per_channel=settings.get("per_channel", True),
            symmetric_weights=settings.get("symmetric", None),
            reduce_range=settings.get("reduce_range", None),
            dynamic_matmul=settings.get("dynamic_matmul", None),
            format=form,
            storage=settings.get("storage", True),
            include=settings.get("include", ()),
            exclude=settings.get("exclude", ()),
            op_types=_split_names(settings.get("op_types", ())),
        )
        if target is not None:
            options.check_target(target)
        return options
    return None


def _read_weights(settings: Settings) -> WeightType:
    return parse_weight_type(settings.get("weights", WeightType.INT8.value))


def _split_names(values: tuple[str, ...]) -> tuple[str, ...]:
    """As on the command line, a text may hold several names.

    >>> _split_names(("Conv, Gemm", "Add"))
    ('Conv', 'Gemm', 'Add')
    """
    return tuple(part.strip() for one in values for part in one.split(",") if part.strip())
