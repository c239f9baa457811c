"""Pipelines: a file of models, each quantized, compared and held to its limits."""

from onnxq.runs.folders import prepare_reports
from onnxq.runs.jobs import ModelJob, Pipeline
from onnxq.runs.problems import PipelineFileError
from onnxq.runs.reading import read_pipeline
from onnxq.runs.results import ModelResult, PipelineResult, State
from onnxq.runs.running import RunOptions, run_pipeline

__all__ = [
    "ModelJob",
    "ModelResult",
    "Pipeline",
    "PipelineFileError",
    "PipelineResult",
    "RunOptions",
    "State",
    "prepare_reports",
    "read_pipeline",
    "run_pipeline",
]
