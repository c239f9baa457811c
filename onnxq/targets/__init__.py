"""Presets: what runs fast on a runtime, as frozen values."""

from onnxq.targets.base import Target
from onnxq.targets.presets import TARGETS, find_target

__all__ = ["TARGETS", "Target", "find_target"]
