"""Blocked quantization: every ``block_size`` elements along the reduction share a scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from onnxq.numerics.affine import FloatArray, Parameters, quantize
from onnxq.numerics.block_scales import fit_blocks
from onnxq.numerics.block_sums import keep_column_sums
from onnxq.numerics.second_order import round_second_order
from onnxq.schemes import Scheme


def quantize_blocks(
    weight: FloatArray, scheme: Scheme, *, keeps_sums: bool = False
) -> tuple[npt.NDArray[np.int32], Parameters]:
    """Round a matrix with one scale a block, the one with the least error.

    Args:
        weight: shape [K, N]; blocks run along K, the last one may be short.
        scheme: integer type, block size and symmetry.
        keeps_sums: move a few elements off their nearest integers, so that the errors of each
            column sum to nearly 0.

    Returns:
        Integers of shape [blocks, block_size, N] (short blocks padded with the zero point) and
        parameters of shape [blocks, 1, N].

    >>> from onnxq.schemes import WeightType
    >>> scheme = Scheme(type=WeightType.INT4, block_size=2)
    >>> q, p = quantize_blocks(np.float32([[-8], [7], [1]]), scheme)
    >>> q[:, :, 0].tolist(), p.scale.ravel().tolist()
    ([[-8, 7], [-8, 0]], [1.0, -0.125])
    """
    padded = _split(weight, scheme)
    fit = fit_blocks(padded, scheme)
    low, high = scheme.range
    quantized = quantize(padded, fit.parameters, quantized_min=low, quantized_max=high)
    if keeps_sums and quantized.size:
        quantized = keep_column_sums(padded, quantized, fit, scheme, rows=len(weight))
    return quantized, fit.parameters


def quantize_blocks_second_order(
    weight: FloatArray, hessian: FloatArray, scheme: Scheme
) -> tuple[npt.NDArray[np.int32], Parameters]:
    """Round a matrix so that what it gives for its inputs changes little.

    Args:
        weight: shape [K, N].
        hessian: sum of x x' over the inputs, not centred, shape [K, K].
        scheme: as for ``quantize_blocks``.

    Returns:
        As ``quantize_blocks``. Scales have the least squared error weighted with the diagonal of
        the Hessian; integers are those of ``round_second_order``.
    """
    padded = _split(weight, scheme)
    blocks, size, columns = padded.shape
    importance = np.zeros(blocks * size)
    importance[: len(weight)] = np.diagonal(hessian)
    importance /= max(float(importance.mean()), np.finfo(np.float32).tiny)
    fit = fit_blocks(padded, scheme, importance=importance.reshape(blocks, size, 1))
    parameters = fit.parameters

    def spread(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        rows = np.broadcast_to(values, padded.shape).reshape(-1, columns)
        return np.ascontiguousarray(rows[: len(weight)].T)[None]

    low, high = scheme.range
    rounded = round_second_order(
        np.ascontiguousarray(weight.T)[None],
        hessian[None],
        spread(parameters.scale),
        spread(parameters.zero_point),
        quantized_min=low,
        quantized_max=high,
    )
    quantized = np.empty(padded.shape, np.int32)
    quantized[...] = parameters.zero_point
    quantized.reshape(-1, columns)[: len(weight)] = rounded[0].T
    return quantized, parameters


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


def _split(weight: FloatArray, scheme: Scheme) -> FloatArray:
    """[K, N] as [blocks, block_size, N], the last block filled up with zeros."""
    if scheme.block_size is None:
        raise ValueError("a blocked scheme needs a block size")
    blocks = -(-weight.shape[0] // scheme.block_size)
    padding = blocks * scheme.block_size - weight.shape[0]
    padded = np.pad(weight, ((0, padding), (0, 0)))
    return padded.reshape(blocks, scheme.block_size, weight.shape[1])
