"""Scales with which no sum of two products overflows, for processors that add them in 16 bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxq.graph.constants import Constant, Use, release
from onnxq.numerics.affine import Array
from onnxq.numerics.pairs import MOST_IN_A_PAIR, largest_pairs
from onnxq.plan.statistics import WeightStatistics, read_real
from onnxq.rules.roles import Form
from onnxq.schemes import Scheme, WeightType

LARGEST_INTEGER = Scheme(type=WeightType.INT8).range[1]

_MEASURED_FORMS = frozenset({Form.CALIBRATED, Form.INTEGER_MATMUL})
"""Forms of which it is known which weights are added in pairs (docs/targets.md)."""


def limit_pairs(
    constant: Constant,
    uses: tuple[tuple[Use, Form], ...],
    axes: tuple[int, ...],
    scheme: Scheme,
    statistics: WeightStatistics,
) -> tuple[Scheme, WeightStatistics]:
    """All 8 bits instead of 7, and ranges wide enough for the pairs of each channel.

    Args:
        constant: the weight.
        uses: its readers, each with its form.
        axes: of its output channels.
        scheme: with 7 bits, or one that stays as it is.
        statistics: along the axes of the scale, which are those of the channels, or none.
    """
    is_known = len(uses) == 1 and uses[0][1] in _MEASURED_FORMS
    is_reduced = scheme.reduce_range and scheme.symmetric and scheme.type is WeightType.INT8
    if not (is_known and is_reduced):
        return scheme, statistics
    use = uses[0][0]
    pairs = largest_pairs(_order_rows(read_real(constant.tensor), use, axes))
    reach = pairs * (LARGEST_INTEGER / MOST_IN_A_PAIR)
    release(constant.tensor)
    shape, dtype = statistics.maximum.shape, statistics.maximum.dtype
    wanted = (reach if statistics.maximum.size > 1 else reach.max(keepdims=True)).reshape(shape)
    wide = wanted > np.maximum(-statistics.minimum, statistics.maximum)
    return replace(scheme, reduce_range=False, limits_pairs=True), replace(
        statistics,
        minimum=np.where(wide, -wanted, statistics.minimum).astype(dtype),
        maximum=np.where(wide, wanted, statistics.maximum).astype(dtype),
    )


def _order_rows(real: Array, use: Use, axes: tuple[int, ...]) -> Array:
    """One row a channel, in the order in which kernels add: a Conv goes over channels last."""
    inputs = [axis for axis in range(real.ndim) if axis not in axes]
    if use.node.op_type == "Conv":
        inputs = [*inputs[1:], *inputs[:1]]
    channels = int(np.prod([real.shape[axis] for axis in axes]))
    return real.transpose(*axes, *inputs).reshape(channels, -1)
