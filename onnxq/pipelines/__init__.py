"""Each mode as a list of steps, to be read like a table of contents."""

from onnxq.pipelines.budget import Budget
from onnxq.pipelines.calibrate import Progress
from onnxq.pipelines.common import (
    CalibrationReport,
    Planner,
    QuantizationResult,
    default_output,
    open_float_model,
    plan_with_opset,
    prepare_model,
)
from onnxq.pipelines.dynamic import run_dynamic
from onnxq.pipelines.improve import choose_level
from onnxq.pipelines.processor import adapt_target, note_products
from onnxq.pipelines.range_options import RangeFiles, RangeOptions
from onnxq.pipelines.round_blocks import RoundingReport
from onnxq.pipelines.static import run_static

__all__ = [
    "Budget",
    "CalibrationReport",
    "Planner",
    "Progress",
    "QuantizationResult",
    "RangeFiles",
    "RangeOptions",
    "RoundingReport",
    "adapt_target",
    "choose_level",
    "default_output",
    "note_products",
    "open_float_model",
    "plan_with_opset",
    "prepare_model",
    "run_dynamic",
    "run_static",
]
