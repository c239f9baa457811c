"""Inputs for a model: from files, from a function, or made up where nothing else is there."""

from onnxq.samples.choice import held_back
from onnxq.samples.folder import SampleFolder
from onnxq.samples.options import ImageOptions, SampleOptions
from onnxq.samples.reading import Sample, Samples, open_samples
from onnxq.samples.synthetic import Hints, propose_feeds

__all__ = [
    "Hints",
    "ImageOptions",
    "Sample",
    "SampleFolder",
    "SampleOptions",
    "Samples",
    "held_back",
    "open_samples",
    "propose_feeds",
]
