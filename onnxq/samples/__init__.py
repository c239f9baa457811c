"""Inputs for a model: from files, from a function, or made up where nothing else is there."""

from onnxq.samples.choice import held_back
from onnxq.samples.folder import SampleFolder
from onnxq.samples.options import ImageOptions, SampleOptions
from onnxq.samples.reading import Sample, Samples, open_samples, open_samples_if_named
from onnxq.samples.split import Part, calibration_part, verification_part
from onnxq.samples.synthetic import Hints, propose_feeds

__all__ = [
    "Hints",
    "ImageOptions",
    "Part",
    "Sample",
    "SampleFolder",
    "SampleOptions",
    "Samples",
    "calibration_part",
    "held_back",
    "open_samples",
    "open_samples_if_named",
    "propose_feeds",
    "verification_part",
]
