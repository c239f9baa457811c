"""Kernels of few elements a channel: depthwise convolutions, mostly.

They are a small part of most models and cause a large part of the error, because every one of
their few elements counts for a whole channel. So they keep more bits where that costs little.
"""

from __future__ import annotations

import math

from onnxq.graph.constants import Constant, dimensions
from onnxq.rules.roles import Form, find_role

MOST_ELEMENTS_PER_CHANNEL = 32
"""With this many, fp16 takes 1.8 times the bytes of int8 and its scales; with 9, 1.4 times."""

INTEGER_BUDGET = 0.02
"""Share of the bytes of all weights that fp16 for small kernels may cost in an int8 model. It gains
1.7 dB on efficientnet_lite0 and 3.2 dB on ppocr_v4_det; on ppocr_cls, where small kernels are most
of the file, it would cost a fifth of the compression."""

HALF_BUDGET = 0.04
"""Share that float32 for small kernels may cost in an fp16 model: 49.0 -> 57.3 dB on
efficientnet_lite0 and 49.5 -> 56.3 dB on ppocr_v4_det, for 4 and 6 % of the compressed file."""


def elements_per_channel(constant: Constant) -> int | None:
    """Fewest elements that make an output channel; None if a reader computes in integers."""
    counts = []
    shape = dimensions(constant.tensor)
    for use in constant.uses:
        role = find_role(use.node, use.input_index)
        if role is None or (role.forms and role.forms != (Form.LOOKUP,)):
            return None
        axes = role.axes(use.node, len(shape))
        if any(axis >= len(shape) for axis in axes):
            return None
        channels = math.prod(shape[axis] for axis in axes)
        counts.append(constant.tensor.size // max(1, channels))
    return min(counts, default=None)


def is_small_kernel(constant: Constant) -> bool:
    """Whether each channel has so few elements that it deserves more bits."""
    elements = elements_per_channel(constant)
    return elements is not None and elements <= MOST_ELEMENTS_PER_CHANNEL


def fit_budget(constants: list[Constant], *, extra_bytes_per_element: int, budget: float) -> bool:
    """Whether more bits for all small kernels of a model cost little of its bytes."""
    elements = sum(one.tensor.size for one in constants if is_small_kernel(one))
    all_bytes = sum(one.tensor.nbytes for one in constants)
    return elements * extra_bytes_per_element <= budget * all_bytes
