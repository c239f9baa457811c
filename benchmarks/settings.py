"""The settings that are compared, and what each is called in tables."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Tool(Enum):
    """Who quantizes."""

    ONNXQ = "onnxq"
    ONNXRUNTIME = "onnxruntime"


@dataclass(frozen=True)
class Setting:
    """One way to quantize a model.

    Attributes:
        name: for file names and command lines.
        label: for people.
        tool: who quantizes.
        weights: type of the weights.
        storage: onnxq only: also store small what no integer kernel reads.
        per_channel: onnxruntime only: signed weights with a scale for each channel, Conv left out.
        static: calibrated on samples: default options of onnxq; for onnxruntime Q/DQ pairs, uint8
            activations, int8 weights with a scale for each channel, min-max.
    """

    name: str
    label: str
    tool: Tool
    weights: str = "int8"
    storage: bool = True
    per_channel: bool = False
    static: bool = False


ORT_DEFAULTS = Setting("ort-defaults", "onnxruntime, defaults", Tool.ONNXRUNTIME)
ORT_PER_CHANNEL = Setting(
    "ort-per-channel",
    "onnxruntime, int8 per channel, no Conv",
    Tool.ONNXRUNTIME,
    per_channel=True,
)
ONNXQ_INT8 = Setting("onnxq-int8", "onnxq int8", Tool.ONNXQ)
ONNXQ_INT8_COMPUTE = Setting(
    "onnxq-int8-no-storage", "onnxq int8 --no-storage", Tool.ONNXQ, storage=False
)
ONNXQ_FP16 = Setting("onnxq-fp16", "onnxq fp16", Tool.ONNXQ, weights="fp16")

ORT_STATIC = Setting(
    "ort-static", "onnxruntime static, u8/s8 per channel", Tool.ONNXRUNTIME, static=True
)
ONNXQ_STATIC = Setting("onnxq-static", "onnxq static", Tool.ONNXQ, static=True)

INCUMBENTS = (ORT_DEFAULTS, ORT_PER_CHANNEL)
DYNAMIC = (*INCUMBENTS, ONNXQ_INT8, ONNXQ_INT8_COMPUTE, ONNXQ_FP16)
SETTINGS = {setting.name: setting for setting in (*DYNAMIC, ORT_STATIC, ONNXQ_STATIC)}
