"""The range from the smallest to the largest value that was seen."""

from __future__ import annotations

from onnxq.ranges.grid import Grid
from onnxq.ranges.observation import Observation


def choose_range(observation: Observation, grid: Grid) -> tuple[float, float]:  # noqa: ARG001
    """The extremes without masks, widened to 0.

    A single outlier stays in the range, however far it is: this method clips nothing that it has
    seen.

    Args:
        observation: values of the tensor.
        grid: not used; the same call as for every other method.

    Returns:
        (low, high) with low <= 0 <= high.

    >>> import numpy as np
    >>> observation = Observation()
    >>> observation.add(np.float32([-1, 0, 500]))
    >>> choose_range(observation, Grid(quantized_min=0, quantized_max=255, symmetric=False))
    (-1.0, 500.0)
    """
    extent = observation.extent()
    return extent.low, extent.high
