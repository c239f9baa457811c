"""Which part of the real line an activation is quantized on: observe it, then choose a range.

An `Observation` is fed one sample after the other, or several are merged. A method turns it into
(low, high), which always contains 0, because `choose_parameters` would widen it to 0 anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Protocol

from onnxq.errors import UsageError
from onnxq.ranges import entropy, mean_squared_error, min_max
from onnxq.ranges import percentile as percentile_method
from onnxq.ranges.grid import Grid
from onnxq.ranges.histogram import Bins, Histogram
from onnxq.ranges.observation import Extent, Observation
from onnxq.ranges.percentile import DEFAULT_PERCENTILE, check_percentile

__all__ = [
    "DEFAULT_PERCENTILE",
    "METHODS",
    "Bins",
    "Extent",
    "Grid",
    "Histogram",
    "Method",
    "Observation",
    "check_percentile",
    "find_method",
]


class ChooseRange(Protocol):
    """The call that all methods share."""

    def __call__(self, observation: Observation, grid: Grid) -> tuple[float, float]:
        """The range (low, high), low <= 0 <= high, to quantize the tensor on."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to choose a range.

    Attributes:
        choose_range: from an observation and a grid to (low, high), with default parameters.
        description: one line for a help text.
    """

    choose_range: ChooseRange
    description: str


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "minmax": Method(
            choose_range=min_max.choose_range,
            description="smallest and largest value that was seen",
        ),
        "percentile": Method(
            choose_range=percentile_method.choose_range,
            description="cut 0.01 % of the values off each tail",
        ),
        "entropy": Method(
            choose_range=entropy.choose_range,
            description="clip where the distribution changes least (Kullback-Leibler)",
        ),
        "mse": Method(
            choose_range=mean_squared_error.choose_range,
            description="clip where rounding and clipping cost least (mean squared error)",
        ),
    }
)
"""Every method by the name that users know it under."""


def find_method(name: str, *, percentile: float = DEFAULT_PERCENTILE) -> ChooseRange:
    """The call of the method called ``name``.

    Args:
        name: a key of ``METHODS``.
        percentile: for the method of that name, in percent.

    Raises:
        UsageError: there is no such method.
    """
    if name not in METHODS:
        raise UsageError(f"no method is called '{name}'; known methods: {', '.join(METHODS)}")
    if name == "percentile":
        return partial(percentile_method.choose_range, percentile=percentile)
    return METHODS[name].choose_range
