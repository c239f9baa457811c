"""Inputs for a model: from a folder, or made up where nothing else is there."""

from onnxq.samples.folder import SampleFolder
from onnxq.samples.synthetic import Hints, propose_feeds

__all__ = ["Hints", "SampleFolder", "propose_feeds"]
