"""``onnxq.compare``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from onnxq.api.paths import optional_path, required_path

if TYPE_CHECKING:
    from onnxq.comparison.results import ComparisonReport
    from onnxq.pipelines import Progress
    from onnxq.samples import ImageOptions


def compare(
    float_model: str | os.PathLike[str],
    quantized_model: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    reader: str | None = None,
    samples: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    images: ImageOptions | None = None,
    labels: str | os.PathLike[str] | None = None,
    metric: str | None = None,
    layers: bool = False,
    latency: bool = True,
    threads: int = 1,
    rounds: int = 15,
    gates: Mapping[str, float] | None = None,
    progress: Progress | None = None,
) -> ComparisonReport:
    """Compare a quantized model with its float original.

    Args:
        float_model: path of the original.
        quantized_model: path of its quantized form.
        data: folder of samples; None with ``reader``.
        reader: 'module:function' that gives samples.
        samples: use so many of them; None for all.
        seed: chooses which.
        skip_bad: go on without samples that do not fit.
        images: how images become inputs.
        labels: file of classes; None to look for one beside the data.
        metric: 'module:function' that rates the outputs of a sample; higher is better.
        layers: find which layers the error comes from.
        latency: measure times of both models.
        threads: for one operator, while times are measured.
        rounds: of that measurement.
        gates: limits by name, as {'min-sqnr': 30.0}; ``report.is_passed`` says whether all hold.
        progress: as for ``quantize_static``.

    Raises:
        OnnxqError: one of its kinds, with one line of text.
    """
    from onnxq.pipelines.compare import CompareOptions, run_compare
    from onnxq.samples import SampleOptions, open_samples

    sample_options = SampleOptions(limit=samples, seed=seed, skip_bad=skip_bad, images=images)
    options = CompareOptions(
        limits=gates or {},
        labels=optional_path(labels),
        metric=metric,
        layers=layers,
        latency=latency,
        threads=threads,
        rounds=rounds,
    )
    return run_compare(
        required_path(float_model),
        required_path(quantized_model),
        samples=open_samples(optional_path(data), reader=reader, options=sample_options),
        options=options,
        progress=progress,
    )
