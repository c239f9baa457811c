"""Running the float model over samples and summing up what its activations are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxq.calibration.probes import Probe, ProbedModel
from onnxq.errors import DataError, ExecutionError
from onnxq.graph.offload import OFFLOADED_TENSOR_BYTES, WEIGHTS_NAME
from onnxq.numerics.affine import Array
from onnxq.ranges import Observation
from onnxq.runtime.session import Session
from onnxq.samples import Sample

OWN_WEIGHTS_NAME = "probed.weights"
MODEL_NAME = "probed.onnx"


@dataclass
class Observations:
    """What was seen.

    Attributes:
        by_value: of each activation.
        samples: how many were run.
        elements: of each activation, over all samples.
    """

    by_value: dict[ir.Value, Observation] = field(default_factory=dict)
    samples: int = 0
    elements: dict[ir.Value, int] = field(default_factory=dict)


def write_probed(probed: ProbedModel, folder: Path) -> Path:
    """Write a probed model.

    Weights that ``offload_weights`` moved into the same folder are read from there; otherwise they
    go to a file of their own, one tensor at a time.
    """
    path = folder / MODEL_NAME
    is_offloaded = (folder / WEIGHTS_NAME).exists()
    ir.save(
        probed.model,
        path,
        external_data=None if is_offloaded else OWN_WEIGHTS_NAME,
        size_threshold_bytes=OFFLOADED_TENSOR_BYTES,
        max_workers=1,
    )
    return path


def observe(session: Session, probes: tuple[Probe, ...], samples: Iterable[Sample]) -> Observations:
    """Run a probed model over samples.

    Args:
        session: of the probed model.
        probes: its summaries.
        samples: each is run once.

    Raises:
        DataError: the model cannot run on a sample, or an activation is NaN.
    """
    observations = Observations({probe.activation.value: Observation() for probe in probes})
    names = [name for probe in probes for name in probe.outputs]
    for sample in samples:
        try:
            results = dict(zip(names, session.run(sample.feeds, names), strict=True))
        except ExecutionError as error:
            raise DataError(
                f"sample {sample.name}: the model cannot run: {error.reason}"
            ) from error
        for probe in probes:
            value = probe.activation.value
            seen = observations.elements.get(value, 0)
            observations.elements[value] = seen + int(results[probe.size])
            _add(observations.by_value[probe.activation.value], probe, results, sample.name)
        observations.samples += 1
    return observations


def _add(
    observation: Observation, probe: Probe, results: dict[str, Array], sample_name: str
) -> None:
    nothing = np.float32(0.0)
    minimum = float(results.get(probe.minimum, nothing))
    maximum = float(results[probe.maximum])
    elements = results.get(probe.sample)
    if elements is not None:
        observation.histogram.add(elements)
    unknown = elements is not None and bool(np.isnan(elements).any())
    if unknown or np.isnan(minimum) or np.isnan(maximum):
        raise DataError(
            f"sample {sample_name}: tensor '{probe.activation.name}' holds NaN in the float model; "
            "remove the sample, or leave out the nodes before it with --exclude"
        )
    if minimum <= maximum:
        observation.add_extremes(minimum, maximum)
