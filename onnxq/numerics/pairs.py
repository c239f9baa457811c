"""Neighbouring weights whose products are added in 16 bits, as x86 without VNNI does.

Such a processor adds ``a[2k] w[2k] + a[2k+1] w[2k+1]`` in a saturating int16 (VPMADDUBSW). With
activations of at most 255 the sum fits if the two integers, where they have the same sign, add up
to at most 128. That costs about 2 dB of a weight, half the range of all integers costs 6.
"""

from __future__ import annotations

import numpy as np

from onnxq.numerics.affine import Array

MOST_IN_A_PAIR = 126
"""Of real steps: rounding moves each of the two by at most one, which leaves 128."""


def largest_pairs(rows: Array) -> Array:
    """Largest sum of the magnitudes of two neighbours with the same sign, in each row.

    Args:
        rows: shape [channels, inputs], inputs in the order in which a kernel adds them.

    Returns:
        Shape [channels].

    >>> largest_pairs(np.float32([[3, 4, -5, 6, 2]])).tolist()
    [7.0]
    """
    first, second = _split(rows)
    same = first * second >= 0
    sums: Array = np.where(same, np.abs(first) + np.abs(second), 0).max(axis=-1)
    return sums


def find_large_pairs(integers: Array) -> Array:
    """Which integers are in a pair that is too large.

    Args:
        integers: shape [..., inputs].

    Returns:
        Booleans of the same shape.

    >>> find_large_pairs(np.int32([[100, 60, -100, 60]])).tolist()
    [[True, True, False, False]]
    """
    first, second = _split(integers)
    large = (first * second > 0) & (np.abs(first + second) > MOST_IN_A_PAIR + 2)
    both = np.repeat(large, 2, axis=-1)
    return np.asarray(both[..., : integers.shape[-1]])


def _split(rows: Array) -> tuple[Array, Array]:
    odd = rows.shape[-1] % 2
    even = np.concatenate([rows, np.zeros_like(rows[..., :1])], axis=-1) if odd else rows
    return even[..., 0::2], even[..., 1::2]
