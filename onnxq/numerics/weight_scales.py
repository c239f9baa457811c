"""Ranges of weights with the least error of rounding and clipping together.

A range from the smallest to the largest weight spends its integers on a few outliers. A range that
clips them a little has finer steps for all others (Nagel et al. 2021, arXiv:2106.08295, section
3.1; the search over shrink factors is that of Nahshan et al. 2019, arXiv:1911.07190, with a grid).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from onnxq.numerics.affine import (
    Array,
    FloatArray,
    choose_parameters,
    dequantize,
    quantize,
)
from onnxq.schemes import Scheme

FACTORS_4_BITS = np.linspace(1.0, 0.3, 36)
"""Of 200 channels of a normal distribution with 4608 elements the best factors are 0.49 to 0.7;
outliers need smaller ones."""

FACTORS_8_BITS = np.linspace(1.0, 0.8, 21)
"""Likewise 0.95 to 1."""


def shrink_ranges(
    real: FloatArray,
    minimum: FloatArray,
    maximum: FloatArray,
    scheme: Scheme,
    *,
    importance: FloatArray | None = None,
) -> tuple[Array, Array]:
    """Shrink the range of each channel to where the squared error is least.

    Args:
        real: the weight, any shape.
        minimum: of each channel, the reduced axes at length 1.
        maximum: likewise.
        scheme: of integers, not blocked.
        importance: weight of each squared error, broadcasts to ``real``; for a layer the diagonal
            of its Hessian. None counts all errors alike.

    Returns:
        The new minimum and maximum, in the shapes of the old ones and never outside them.
        A symmetric range has one factor, an asymmetric one also a factor for each end.

    >>> from onnxq.schemes import WeightType
    >>> weight = np.linspace(-1, 1, 1001)
    >>> weight[0] = -8
    >>> low, high = shrink_ranges(
    ...     weight, weight.min(keepdims=True), weight.max(keepdims=True),
    ...     Scheme(type=WeightType.INT4))
    >>> low.round(2).tolist(), high.round(2).tolist()
    ([-3.52], [0.44])
    """
    reduced = tuple(axis for axis in range(real.ndim) if np.shape(minimum)[axis] == 1)
    factors = FACTORS_4_BITS if scheme.type.bits <= 4 else FACTORS_8_BITS
    search = _Search(real, np.asarray(minimum), np.asarray(maximum), scheme, importance, reduced)
    if not scheme.symmetric:
        search.try_factors(factors, low=True, high=False)
        search.try_factors(factors, low=False, high=True)
    search.try_factors(factors, low=True, high=True)
    return search.minimum, search.maximum


class _Search:
    """The best ranges so far."""

    def __init__(
        self,
        real: FloatArray,
        minimum: FloatArray,
        maximum: FloatArray,
        scheme: Scheme,
        importance: FloatArray | None,
        reduced: tuple[int, ...],
    ) -> None:
        self.minimum, self.maximum = minimum, maximum
        self._real, self._importance = real, importance
        self._scheme, self._reduced = scheme, reduced
        self._error: npt.NDArray[np.float64] = np.full(minimum.shape, np.inf)

    def try_factors(self, factors: npt.NDArray[np.float64], *, low: bool, high: bool) -> None:
        """Keep, for each channel, the first factor with the least error, if it beats the best."""
        start_low, start_high = self.minimum, self.maximum
        for factor in factors:
            minimum = (start_low * factor if low else start_low).astype(start_low.dtype)
            maximum = (start_high * factor if high else start_high).astype(start_high.dtype)
            error = self._measure(minimum, maximum)
            better = error < self._error
            self._error = np.where(better, error, self._error)
            self.minimum = np.where(better, minimum, self.minimum)
            self.maximum = np.where(better, maximum, self.maximum)

    def _measure(self, minimum: Array, maximum: Array) -> npt.NDArray[np.float64]:
        low, high = self._scheme.range
        parameters = choose_parameters(
            minimum,
            maximum,
            quantized_min=low,
            quantized_max=high,
            midpoint=self._scheme.midpoint if self._scheme.symmetric else None,
        )
        integers = quantize(self._real, parameters, quantized_min=low, quantized_max=high)
        error: npt.NDArray[Any] = dequantize(integers, parameters) - self._real
        error *= error
        if self._importance is not None:
            error *= self._importance
        total: npt.NDArray[np.float64] = error.sum(
            axis=self._reduced, keepdims=True, dtype=np.float64
        )
        return total
