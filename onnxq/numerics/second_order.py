"""Rounding that minimises the error of a layer's output, not of its weight.

With H the sum of x x' over the inputs of a layer, an error e of the weights of one output channel
costs e' H e at the output. Rounding one weight after the other, each at its best given the errors
made before, is GPTQ (Frantar et al. 2022, arXiv:2210.17323); it equals Babai's nearest plane
algorithm on the Cholesky factor of H (Chen et al. 2025, arXiv:2507.18553), which needs no inverse
and is what is written here. Cyclic coordinate descent over the integers follows until no single
weight can be moved with a gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxq.numerics.affine import FloatArray
from onnxq.numerics.grids import IntegerGrid
from onnxq.numerics.moments import Moments

BLOCK = 128
"""Columns between two updates of all others, as in the paper."""

LEAST_GAIN = 1e-3
"""How far, in steps, beyond the middle between two integers a weight's optimum has to lie before
it moves: at the middle itself it would go back and forth by rounding errors of float32."""

LEAST_DAMPING = 1e-6
"""Share of the mean of the diagonal; more is added until a singular Hessian has a factor."""

Float32Array = npt.NDArray[np.float32]


def damp(hessian: FloatArray, damping: float) -> npt.NDArray[np.float64]:
    """Divide by the mean of the diagonal and add ``damping`` to the diagonal.

    Args:
        hessian: shape [G, K, K], positive semidefinite.
        damping: share of the mean of the diagonal.

    Returns:
        Shape [G, K, K]. Inputs that never vary, whose weights do not matter, get the diagonal 1.

    >>> damp(np.float64([[[4, 0], [0, 0]]]), 0.0).tolist()
    [[[2.0, 0.0], [0.0, 1.0]]]
    """
    diagonal = np.diagonal(hessian, axis1=1, axis2=2)
    mean = diagonal.mean(axis=1, dtype=np.float64)
    mean[mean <= 0] = 1.0
    with np.errstate(invalid="ignore"):
        result: npt.NDArray[np.float64] = hessian / mean[:, None, None]
        at = np.arange(result.shape[1])
        result[:, at, at] = np.where(diagonal > 0, diagonal / mean[:, None] + damping, 1.0)
    return result


def quadratic_loss(error: FloatArray, hessian: FloatArray) -> npt.NDArray[Any]:
    """``e' H e`` of each output channel.

    Args:
        error: rounded minus real weights, shape [G, M, K].
        hessian: shape [G, K, K].

    Returns:
        Shape [G, M].

    >>> quadratic_loss(np.float64([[[1, 2]]]), np.float64([[[3, 1], [1, 5]]])).tolist()
    [[27.0]]
    """
    loss: npt.NDArray[Any] = np.einsum("gmk,gmk->gm", np.matmul(error, hessian), error)
    return loss


def shift_target(weight: FloatArray, moments: Moments, *, damping: float = 0.01) -> Float32Array:
    """Real weights that undo, as far as a linear layer can, the error of its inputs.

    Minimises the sum of |W xf - W* xq|^2 + damping |W* - W|^2 over centred inputs: without damping
    the least-squares solution, with much of it the weight itself.

    Args:
        weight: shape [G, M, K].
        moments: of the inputs.
        damping: share of the mean of the diagonal of the Hessian.

    Returns:
        W*, shape [G, M, K].
    """
    diagonal = np.diagonal(moments.hessian, axis1=1, axis2=2)
    mean = diagonal.mean(axis=1, dtype=np.float64)
    mean[mean <= 0] = 1.0
    towards = np.matmul(moments.difference, weight.transpose(0, 2, 1)) / mean[:, None, None]
    shift = np.linalg.solve(damp(moments.hessian, damping), towards)
    return (weight + shift.transpose(0, 2, 1)).astype(np.float32)


def choose_damping(
    weight: FloatArray,
    halves: tuple[Moments, Moments],
    dampings: Sequence[float],
) -> float | None:
    """The damping of ``shift_target`` that does best on samples that it was not learnt from.

    With few samples most of what undoes an error on them is chance, and does harm on others. So
    the shift is learnt from one half of the samples and judged on the other, and the other way
    round.

    Args:
        weight: shape [G, M, K].
        halves: moments of the inputs in two parts of the samples.
        dampings: to try.

    Returns:
        One of ``dampings``; None where no shift at all is better than any.
    """
    errors = np.zeros(len(dampings))
    for learnt, judged in (halves, halves[::-1]):
        for at, damping in enumerate(dampings):
            shift = shift_target(weight, learnt, damping=damping) - weight
            # |W xf - W* xq|^2 less |W (xf - xq)|^2, which is the same for all.
            gained = np.vdot(np.matmul(shift, judged.difference), weight)
            errors[at] += np.vdot(np.matmul(shift, judged.hessian), shift) - 2.0 * gained
    best = int(np.argmin(errors))
    return dampings[best] if errors[best] < 0.0 else None


def round_second_order(
    target: FloatArray,
    hessian: FloatArray,
    scale: FloatArray,
    zero_point: npt.NDArray[np.integer[Any]],
    *,
    quantized_min: int,
    quantized_max: int,
    damping: float = 0.01,
    sweeps: int = 4,
) -> npt.NDArray[np.int32]:
    """Integers whose error ``e' H e`` is small: GPTQ, then coordinate descent.

    Args:
        target: real weights, shape [G, M, K].
        hessian: shape [G, K, K]; the mean of its diagonal times ``damping`` is added to the
            diagonal throughout.
        scale: broadcasts to the shape of ``target``; may be negative.
        zero_point: likewise.
        quantized_min: smallest integer in use.
        quantized_max: largest integer in use.
        damping: share of the mean of the diagonal.
        sweeps: of coordinate descent, at most.

    Returns:
        Shape [G, M, K]. No row has a larger error, with the damped Hessian, than the nearest
        integers have.

    Raises:
        ValueError: the Hessian holds NaN or infinity.
    """
    damped = damp(hessian, damping)
    # The last column is rounded first: the one with the largest diagonal.
    order = np.argsort(np.diagonal(damped, axis1=1, axis2=2), axis=1, kind="stable")
    damped = np.take_along_axis(damped, order[:, :, None], axis=1)
    damped = np.take_along_axis(damped, order[:, None, :], axis=2)
    grid = IntegerGrid.place(
        target, scale, zero_point, quantized_min=quantized_min, quantized_max=quantized_max
    ).reorder(order)
    factor = _factor(damped).astype(np.float32)
    form = damped.astype(np.float32)
    del damped
    starts = (_round_to_nearest_plane(grid, factor), grid.round(grid.steps))
    losses = [quadratic_loss(grid.error(one), form) for one in starts]
    best = np.where((losses[0] <= losses[1])[:, :, None], *starts)
    rounded = descend_coordinates(best, grid, form, sweeps)
    back = np.argsort(order, axis=1)[:, None, :]
    result = np.take_along_axis(rounded, back, axis=2).astype(np.int32)
    return result + np.asarray(zero_point, np.int32)


def _factor(damped: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Lower Cholesky factor, with more damping where the matrix is singular."""
    if not np.all(np.isfinite(damped)):
        raise ValueError("the Hessian holds NaN or infinity")
    more = LEAST_DAMPING
    while True:
        try:
            return np.asarray(np.linalg.cholesky(damped), np.float64)
        except np.linalg.LinAlgError:
            damped = damped + more * np.eye(damped.shape[1])
            more *= 10


def _round_to_nearest_plane(grid: IntegerGrid, factor: Float32Array) -> Float32Array:
    """Round the columns from the last to the first, H = ``factor`` ``factor``'.

    The error is the sum over columns i of (sum over j >= i of factor[j, i] e[j])^2, so that with
    the later ones fixed each column has a best real value, which is rounded.
    """
    size = grid.steps.shape[2]
    rounded = np.empty_like(grid.steps)
    error = np.zeros_like(grid.steps)
    for stop in range(size, 0, -BLOCK):
        start = max(0, stop - BLOCK)
        pull = np.matmul(error[:, :, stop:], factor[:, stop:, start:stop])
        for column in range(stop - 1, start - 1, -1):
            here = column - start
            pivot = factor[:, column, column, None] * grid.scale[:, :, column]
            best = grid.steps[:, :, column] - pull[:, :, here] / pivot
            rounded[:, :, column] = grid.round(best, column)
            made = (rounded[:, :, column] - grid.steps[:, :, column]) * grid.scale[:, :, column]
            error[:, :, column] = made
            pull[:, :, :here] += made[:, :, None] * factor[:, None, column, start:column]
    return rounded


def descend_coordinates(
    start: Float32Array, grid: IntegerGrid, hessian: Float32Array, sweeps: int
) -> Float32Array:
    """Move one weight of each row after the other to its best integer, until none moves.

    Args:
        start: integers without their zero point, shape [G, M, K].
        grid: where they may move.
        hessian: damped, shape [G, K, K].
        sweeps: over all weights, at most.

    Returns:
        Integers without their zero point, shape [G, M, K].
    """
    rounded = start.copy()
    if not sweeps:
        return rounded
    gradient = np.matmul(grid.error(rounded), hessian)
    for _ in range(sweeps):
        moved = False
        for first in range(0, rounded.shape[2], BLOCK):
            block = slice(first, first + BLOCK)
            change = _descend_block(rounded, gradient[:, :, block], grid, hessian, block)
            if np.any(change):
                moved = True
                gradient += np.matmul(change, hessian[:, block, :])
        if not moved:
            break
    return rounded


def _descend_block(
    rounded: Float32Array,
    gradient: Float32Array,
    grid: IntegerGrid,
    hessian: Float32Array,
    block: slice,
) -> Float32Array:
    """Update ``rounded`` in a block of columns; return the change of the error."""
    local = gradient.copy()
    change = np.zeros_like(local)
    for here in range(local.shape[2]):
        column = block.start + here
        scale = grid.scale[:, :, column]
        old = rounded[:, :, column]
        way = -local[:, :, here] / (hessian[:, column, column, None] * scale)
        new = np.where(np.abs(way) > 0.5 + LEAST_GAIN, grid.round(old + way, column), old)
        made = (new - old) * scale
        if np.any(made):
            change[:, :, here] = made
            rounded[:, :, column] = new
            local += made[:, :, None] * hessian[:, None, column, block]
    return change
