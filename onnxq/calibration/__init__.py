"""Calibration: what the activations of the float model are on samples."""

from onnxq.calibration.files import SavedRanges, fingerprint_model, load_ranges, save_ranges
from onnxq.calibration.gains import (
    count_multiplications,
    find_joined_regions,
    find_unprofitable_nodes,
)
from onnxq.calibration.guards import find_overloaded_nodes
from onnxq.calibration.observe import Observations, observe, write_probed
from onnxq.calibration.probes import Probe, ProbedModel, add_probes
from onnxq.calibration.resolve import Range, choose_ranges, resolve_ranges

__all__ = [
    "Observations",
    "Probe",
    "ProbedModel",
    "Range",
    "SavedRanges",
    "add_probes",
    "choose_ranges",
    "count_multiplications",
    "find_joined_regions",
    "find_overloaded_nodes",
    "find_unprofitable_nodes",
    "fingerprint_model",
    "load_ranges",
    "observe",
    "resolve_ranges",
    "save_ranges",
    "write_probed",
]
