"""What a result depends on, as hashes."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from onnxq.calibration import fingerprint_model
from onnxq.comparison.labels import Labels, find_labels
from onnxq.errors import OnnxqError
from onnxq.graph.files import ModelFile, load_model
from onnxq.plan import DynamicOptions, StaticOptions
from onnxq.runs.jobs import Calibration, Evaluation, ModelJob, SampleChoice
from onnxq.runtime.processor import adds_products_exactly
from onnxq.runtime.session import InputSignature
from onnxq.runtime.signatures import read_signatures
from onnxq.samples.user_code import load_function

PACKAGES = ("onnxq", "onnx", "onnx-ir", "onnxruntime", "numpy")


@dataclass(frozen=True, kw_only=True)
class Fingerprints:
    """Hashes of what goes in.

    Attributes:
        model: the float model and its external data.
        calibration: the samples to calibrate with, and saved ranges; empty without.
        options: everything that the quantized model depends on besides.
        evaluation: the samples to compare on, labels and metric; empty without.
        measures: what is measured; empty without.
        versions: of packages, by name, and how the processor adds, where that decides.
    """

    model: str
    calibration: str
    options: str
    evaluation: str
    measures: str
    versions: Mapping[str, str]

    def gives_same_model(self, other: Fingerprints) -> bool:
        """Whether the quantized model is the same."""
        return (self.model, self.calibration, self.options, dict(self.versions)) == (
            *(other.model, other.calibration, other.options, dict(other.versions)),
        )

    def gives_same_numbers(self, other: Fingerprints) -> bool:
        """Whether a comparison of the same quantized model is the same."""
        return (self.evaluation, self.measures) == (other.evaluation, other.measures)


def take_fingerprints(job: ModelJob) -> Fingerprints:
    """Read everything that goes into a job. Paths in it are relative to the current directory.

    Raises:
        OnnxqError: something cannot be read.
    """
    file = load_model(job.source)
    inputs = read_signatures(file.model)
    calibration, evaluation = job.calibration, job.evaluation
    parts = []
    if calibration is not None:
        if calibration.samples is not None:
            parts.append(_fingerprint_samples(calibration.samples, inputs))
        if calibration.load is not None:
            parts.append(fingerprint_model((calibration.load,)))
        folder = None if calibration.samples is None else calibration.samples.folder
        parts += _fingerprint_labels(calibration.budget.find_labels(folder))
    return Fingerprints(
        model=fingerprint_file(file),
        calibration=_hash(parts) if parts else "",
        options=_hash(
            [job.mode, job.target, job.options, job.keep_metadata]
            + ([] if calibration is None else _list_options(calibration))
        ),
        evaluation="" if evaluation is None else _fingerprint_evaluation(evaluation, inputs),
        measures=""
        if evaluation is None
        else _hash([dataclasses.replace(evaluation.options, limits={}), evaluation.samples]),
        versions={name: version(name) for name in PACKAGES} | _describe_processor(job.options),
    )


def _list_options(calibration: Calibration) -> list[Any]:
    return [
        calibration.options,
        calibration.samples,
        calibration.accuracy,
        calibration.budget,
    ]


def _fingerprint_labels(labels: Labels | None) -> list[str]:
    """None where the folders of the samples are the classes."""
    if labels is None or not Path(labels.source).is_file():
        return []
    return [fingerprint_model((Path(labels.source),))]


def _describe_processor(options: DynamicOptions | StaticOptions) -> dict[str, str]:
    """What of the processor decides about the quantized model."""
    if options.reduce_range is not None or options.weights.is_half:
        return {}
    return {"8-bit addition": "exact" if adds_products_exactly() else "inexact"}


def fingerprint_file(file: ModelFile) -> str:
    """A hash over a model and its external data.

    Raises:
        DataError: a file cannot be read.
    """
    folder = file.path.parent
    return fingerprint_model((file.path, *(folder / name for name in file.external_files)))


def find_output(job: ModelJob) -> str:
    """The hash of the output that is there; empty where none is, or none that can be read."""
    try:
        return fingerprint_file(load_model(job.output)) if job.output.is_file() else ""
    except OnnxqError:
        return ""


def _fingerprint_evaluation(evaluation: Evaluation, inputs: Sequence[InputSignature]) -> str:
    parts = [_fingerprint_samples(evaluation.samples, inputs)]
    labels = find_labels(evaluation.samples.folder, evaluation.options.labels)
    parts += _fingerprint_labels(labels)
    metric = evaluation.options.metric
    if metric is not None:
        # Not what else it imports: that cannot be told from the rest of Python.
        source = inspect.getsourcefile(load_function("--metric", metric).function)
        parts.append(metric if source is None else fingerprint_model((Path(source),)))
    return _hash(parts)


def _fingerprint_samples(choice: SampleChoice, inputs: Sequence[InputSignature]) -> str:
    samples = choice.open()
    if choice.reader is None:
        return samples.fingerprint()
    # Where a function takes its samples from cannot be seen, so it is asked for them.
    digest = hashlib.sha256()
    for sample in samples.read(inputs):
        for name in sorted(sample.feeds):
            array = np.ascontiguousarray(sample.feeds[name])
            digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
            texts = array.dtype.kind in "OUS"
            digest.update(repr(array.tolist()).encode() if texts else array.tobytes())
    return digest.hexdigest()


def _hash(values: Sequence[Any]) -> str:
    text = json.dumps([_to_plain(value) for value in values], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _to_plain(value: Any) -> Any:
    """Frozen values as JSON that is the same on every system."""
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return {one.name: _to_plain(getattr(value, one.name)) for one in fields}
    if isinstance(value, Enum):
        return _to_plain(value.value)
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, Mapping):
        return {str(name): _to_plain(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [_to_plain(one) for one in value]
    return value
