"""From observations to scales and zero points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir

from onnxq.numerics.activations import choose_activation_parameters
from onnxq.numerics.affine import Parameters
from onnxq.plan import ActivationKey, ActivationPlan
from onnxq.ranges import DEFAULT_PERCENTILE, Grid, Observation, find_method

Range = tuple[float, float]


def choose_ranges(
    activations: Iterable[ActivationPlan],
    observations: Mapping[ir.Value, Observation],
    method: str,
    *,
    percentile: float = DEFAULT_PERCENTILE,
) -> dict[ir.Value, Range]:
    """A range for each activation.

    Args:
        activations: of a plan.
        observations: of each.
        method: a key of ``METHODS``.
        percentile: for the method of that name.
    """
    choose = find_method(method, percentile=percentile)
    ranges = {}
    for one in activations:
        low, high = one.scheme.range
        grid = Grid(quantized_min=low, quantized_max=high, symmetric=one.scheme.symmetric)
        ranges[one.value] = choose(observations[one.value], grid)
    return ranges


def resolve_ranges(
    activations: Iterable[ActivationPlan], ranges: Mapping[ir.Value, Range]
) -> dict[ActivationKey, Parameters]:
    """Scale and zero point of each activation, both of rank 0."""
    return {
        one.key: choose_activation_parameters(*ranges[one.value], one.scheme, one.bounds)
        for one in activations
    }
