"""How far one tensor is from another."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from onnxq.numerics.affine import Array


@dataclass
class ErrorAccumulator:
    """Sums over a stream of (reference, measured) pairs; constant memory, order does not matter."""

    signal: float = 0.0
    noise: float = 0.0
    cosine_sum: float = 0.0
    samples: int = 0
    max_abs_error: float = 0.0
    non_finite: int = 0
    compared: int = 0

    def add(self, reference: Array, measured: Array) -> None:
        """Add one sample; both arrays have the same shape."""
        a = np.asarray(reference, np.float64).ravel()
        b = np.asarray(measured, np.float64).ravel()
        comparable = np.isfinite(a)
        self.non_finite += int(np.count_nonzero(comparable & ~np.isfinite(b)))
        comparable &= np.isfinite(b)
        a, b = a[comparable], b[comparable]
        self.compared += a.size
        difference = a - b
        signal = sum_of_products(a, a)
        self.signal += signal
        self.noise += sum_of_products(difference, difference)
        self.max_abs_error = max(self.max_abs_error, float(np.abs(difference).max(initial=0.0)))
        norms = math.sqrt(signal) * math.sqrt(sum_of_products(b, b))
        product = sum_of_products(a, b)
        self.cosine_sum += product / norms if norms else float(not np.any(difference))
        self.samples += 1

    @property
    def sqnr_db(self) -> float:
        """10 log10(signal / noise) over all samples; infinite when they are identical."""
        return _ratio_db(self.signal, self.noise)

    @property
    def cosine(self) -> float:
        """Mean over samples of the cosine between reference and measured."""
        return self.cosine_sum / self.samples if self.samples else 1.0


def mean_sqnr_db(errors: Iterable[ErrorAccumulator]) -> float:
    """Signal to noise of several tensors together, each counting the same.

    >>> one, other = ErrorAccumulator(), ErrorAccumulator()
    >>> one.add(np.float64([10]), np.float64([11]))
    >>> other.add(np.float64([1]), np.float64([1]))
    >>> round(mean_sqnr_db([one, other]), 2)
    23.01
    """
    ratios = [
        one.noise / one.signal if one.signal > 0.0 else float(one.noise > 0.0)
        for one in errors
        if one.compared
    ]
    noise = sum(ratios) / len(ratios) if ratios else 0.0
    return -10.0 * math.log10(noise) if noise > 0.0 else math.inf


def sum_of_products(a: Array, b: Array) -> float:
    """Inner product of two vectors, summed in float64 on one thread.

    A matrix library would wake all its threads, whose waiting costs more than the sum.

    >>> sum_of_products(np.float32([1, 2]), np.float32([3, 4]))
    11.0
    """
    return float(np.einsum("i,i->", a, b, dtype=np.float64, casting="safe"))


def sqnr_db(reference: Array, measured: Array) -> float:
    """Signal to quantization noise ratio in dB; infinite when both are identical.

    >>> round(sqnr_db(np.float32([3, 4]), np.float32([3, 4.5])), 2)
    20.0
    """
    accumulator = ErrorAccumulator()
    accumulator.add(reference, measured)
    return accumulator.sqnr_db


def expected_sqnr_db(mean_square: float, mean_square_scale: float) -> float:
    """SQNR that rounding to a uniform grid will leave, from the scale alone.

    The error of rounding is uniform in half a step, so its power is scale^2 / 12
    (Bennett 1948, "Spectra of quantized signals").

    >>> round(expected_sqnr_db(1.0, 12e-4), 1)
    40.0
    """
    return _ratio_db(mean_square, mean_square_scale / 12)


def _ratio_db(signal: float, noise: float) -> float:
    if noise == 0.0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0.0 else -math.inf
