"""Blocked quantization: every ``block_size`` elements along the reduction share a scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from onnxq.numerics.affine import (
    Array,
    FloatArray,
    Parameters,
    choose_parameters,
    quantize,
)
from onnxq.schemes import Scheme


def quantize_blocks(weight: FloatArray, scheme: Scheme) -> tuple[npt.NDArray[np.int32], Parameters]:
    """Round a matrix to nearest with one scale a block.

    Args:
        weight: shape [K, N]; blocks run along K, the last one may be short.
        scheme: integer type, block size and symmetry.

    Returns:
        Integers of shape [blocks, block_size, N] (short blocks padded with the zero point) and
        parameters of shape [blocks, 1, N].

    >>> from onnxq.schemes import WeightType
    >>> scheme = Scheme(type=WeightType.INT4, block_size=2)
    >>> q, p = quantize_blocks(np.float32([[-8], [7], [1]]), scheme)
    >>> q[:, :, 0].tolist(), p.scale.ravel().tolist()
    ([[-8, 7], [-8, 0]], [1.0, -0.125])
    """
    if scheme.block_size is None:
        raise ValueError("a blocked scheme needs a block size")
    blocks = -(-weight.shape[0] // scheme.block_size)
    padding = blocks * scheme.block_size - weight.shape[0]
    padded = np.pad(weight, ((0, padding), (0, 0))).reshape(blocks, scheme.block_size, -1)
    parameters = _choose_block_parameters(padded, scheme)
    low, high = scheme.range
    return quantize(padded, parameters, quantized_min=low, quantized_max=high), parameters


def pack_nibbles(values: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.uint8]:
    """Pack 4-bit values two to a byte along the last axis, the first in the low half.

    >>> pack_nibbles(np.array([1, 2, 15])).tolist()
    [33, 15]
    """
    nibbles: npt.NDArray[np.uint8] = np.asarray(values).astype(np.uint8) & np.uint8(0xF)
    if nibbles.shape[-1] % 2:
        nibbles = np.concatenate([nibbles, np.zeros_like(nibbles[..., :1])], axis=-1)
    high: npt.NDArray[np.uint8] = np.left_shift(nibbles[..., 1::2], np.uint8(4))
    return np.bitwise_or(nibbles[..., 0::2], high)


def _choose_block_parameters(padded: Array, scheme: Scheme) -> Parameters:
    low, high = scheme.range
    minimum, maximum = padded.min(axis=1, keepdims=True), padded.max(axis=1, keepdims=True)
    if not scheme.symmetric:
        return choose_parameters(minimum, maximum, quantized_min=low, quantized_max=high)
    # The integers reach one step further down than up. Giving the value of largest magnitude the
    # longer side (a negative scale where that value is positive) uses every integer: the block of
    # a Gaussian weight gains about 0.6 dB over maximum / 7.
    extreme = np.where(-minimum > maximum, minimum, maximum)
    scale = (extreme / (low - scheme.midpoint)).astype(np.float32)
    # Kernels add up before they subtract the zero point; what is left of the rounding of that is
    # multiplied by the scale, so a block of zeros gets the smallest one.
    smallest = np.finfo(np.float32).tiny
    scale[np.abs(scale) < smallest] = smallest
    return Parameters(scale, np.full(scale.shape, scheme.midpoint, np.int32))
