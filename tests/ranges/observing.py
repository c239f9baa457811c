"""What the tests of this folder share."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxq.ranges import Grid, Observation

Floats = npt.NDArray[np.floating[Any]]

GRIDS = {
    "u8": Grid(quantized_min=0, quantized_max=255, symmetric=False),
    "s8": Grid(quantized_min=-128, quantized_max=127, symmetric=False),
    "s8_symmetric": Grid(quantized_min=-127, quantized_max=127, symmetric=True),
    "u8_symmetric": Grid(quantized_min=0, quantized_max=255, symmetric=True),
    "u7": Grid(quantized_min=0, quantized_max=127, symmetric=False),
}

BIN = 2.0**-7
"""Largest relative width of a bin of the histogram."""

every_float32 = hnp.arrays(
    np.float32, st.integers(0, 60), elements=st.floats(width=32, allow_subnormal=True)
)
ordinary_floats = hnp.arrays(
    np.float32, st.integers(1, 60), elements=st.floats(-(2.0**60), 2.0**60, width=32)
)


def observe(*samples: Floats, stride: int = 1) -> Observation:
    observation = Observation()
    for sample in samples:
        observation.add(np.asarray(sample, np.float32), stride=stride)
    return observation
