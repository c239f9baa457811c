"""The settings that are compared, and what each is called in tables."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class Tool(Enum):
    """Who quantizes."""

    ONNXQ = "onnxq"
    ONNXRUNTIME = "onnxruntime"
    NNCF = "nncf"


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
        static: calibrated on samples: for onnxruntime Q/DQ pairs, uint8 activations, int8 weights
            with a scale for each channel, min-max; for NNCF its defaults.
        accuracy: level of onnxq static; None for its default.
        reduce_range: 7-bit weights; None for what the tool does by itself.
        exact: on arithmetic without saturation, whatever the processor (``exact_products.py``).
    """

    name: str
    label: str
    tool: Tool
    weights: str = "int8"
    storage: bool = True
    per_channel: bool = False
    static: bool = False
    accuracy: str | None = None
    reduce_range: bool | None = None
    exact: bool = False


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
ORT_STATIC_7BIT = Setting(
    "ort-static-7bit",
    "onnxruntime static, 7-bit weights",
    Tool.ONNXRUNTIME,
    static=True,
    reduce_range=True,
)
ORT_STATIC_EXACT = replace(ORT_STATIC, name="ort-static-exact", exact=True)
NNCF = Setting("nncf", "NNCF", Tool.NNCF, static=True)

LEVELS = ("fast", "balanced", "best")
ONNXQ_STATIC = tuple(
    Setting(f"onnxq-{level}", f"onnxq static {level}", Tool.ONNXQ, static=True, accuracy=level)
    for level in LEVELS
)
ONNXQ_EXACT = tuple(
    replace(one, name=f"{one.name}-exact", reduce_range=False, exact=True) for one in ONNXQ_STATIC
)
ONNXQ_INT4 = tuple(replace(one, name=f"{one.name}-int4", weights="int4") for one in ONNXQ_STATIC)

INCUMBENTS = (ORT_DEFAULTS, ORT_PER_CHANNEL)
DYNAMIC = (*INCUMBENTS, ONNXQ_INT8, ONNXQ_INT8_COMPUTE, ONNXQ_FP16)
STATIC = (ORT_STATIC, ORT_STATIC_7BIT, NNCF, *ONNXQ_STATIC)
SETTINGS = {
    setting.name: setting
    for setting in (*DYNAMIC, *STATIC, ORT_STATIC_EXACT, *ONNXQ_EXACT, *ONNXQ_INT4)
}
