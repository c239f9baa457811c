"""Calibration: what the activations of the float model are on samples."""

from onnxq.calibration.observe import Observations, observe, write_probed
from onnxq.calibration.probes import Probe, ProbedModel, add_probes
from onnxq.calibration.resolve import Range, choose_ranges, resolve_ranges

__all__ = [
    "Observations",
    "Probe",
    "ProbedModel",
    "Range",
    "add_probes",
    "choose_ranges",
    "observe",
    "resolve_ranges",
    "write_probed",
]
