"""The numbers of a calibrated graph, filled in when it is written.

The graph is made once; its scales, zero points and biases are computed at the time of writing. So
the same graph can be written with the ranges of one method after the other.
"""

from __future__ import annotations

from collections.abc import Mapping

from onnxq.numerics.affine import Parameters
from onnxq.plan import ActivationKey, ActivationPlan


class Encodings:
    """Scale and zero point of each calibrated activation."""

    def __init__(self) -> None:
        self._parameters: Mapping[ActivationKey, Parameters] = {}

    def fill(self, parameters: Mapping[ActivationKey, Parameters]) -> None:
        """Use these from now on; both arrays of each are rank 0."""
        self._parameters = parameters

    def __getitem__(self, activation: ActivationPlan) -> Parameters:
        """Parameters of an activation of the plan."""
        return self._parameters[activation.key]
