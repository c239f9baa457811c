"""The numbers of a calibrated graph, filled in when it is written.

The graph is made once; its scales, zero points and biases are computed at the time of writing. So
the same graph can be written with the ranges of one method after the other.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from onnxq.numerics.affine import Parameters


class Encodings:
    """Scale and zero point of each calibrated activation."""

    def __init__(self) -> None:
        self._parameters: Mapping[ir.Value, Parameters] = {}

    def fill(self, parameters: Mapping[ir.Value, Parameters]) -> None:
        """Use these from now on; both arrays of each are rank 0."""
        self._parameters = parameters

    def __getitem__(self, value: ir.Value) -> Parameters:
        """Parameters of the activation whose range decides."""
        return self._parameters[value]
