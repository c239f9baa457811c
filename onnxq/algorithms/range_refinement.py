"""Ranges of activations by what they do to the layers that read them.

A range that is best for a tensor is not best for the sums that a layer makes of it: values that are
multiplied by large weights count for more. For each range that is tried, the error of the outputs
of all layers that read the tensor is added up, and the least one wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxq.algorithms.visits import LayerChange, LayerSample
from onnxq.calibration import Range
from onnxq.numerics.activations import choose_activation_parameters
from onnxq.numerics.affine import Array, dequantize, quantize
from onnxq.plan import ActivationPlan, Plan

FACTORS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
"""Of the range, at both ends; 1 first, so that it stays where nothing is better."""

MOST_ROWS = 512


@dataclass
class RangeSearch:
    """A visit that changes nothing, and adds up errors for each range.

    Attributes:
        plan: whose activations are looked at.
        ranges: of them, to start from.
        errors: for each activation the error of its readers, by the factor on its range.
    """

    plan: Plan
    ranges: Mapping[ir.Value, Range]
    errors: dict[ir.Value, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._owners: dict[ir.Value, ActivationPlan] = {
            member: one for one in self.plan.decisions.activations for member in one.members
        }
        self._nodes = {node.one.node for node in self.plan.decisions.nodes}

    def __call__(self, sample: LayerSample) -> LayerChange:
        """Add up what each range of its input does to the output of a layer."""
        layer = sample.layer
        activation = self._owners.get(layer.input)
        if activation is not None and layer.node in self._nodes:
            step = max(1, sample.float_rows.shape[1] // MOST_ROWS)
            rows = sample.float_rows[:, ::step]
            matrices = layer.read_weight().transpose(0, 2, 1)
            power = float(np.square(np.matmul(rows, matrices)).mean()) or 1.0
            errors = [
                float(np.square(np.matmul(self._round(rows, activation, factor), matrices)).mean())
                for factor in FACTORS
            ]
            known = self.errors.setdefault(activation.value, np.zeros(len(FACTORS)))
            known += np.array(errors) / power
        return LayerChange()

    def _round(self, rows: Array, activation: ActivationPlan, factor: float) -> Array:
        """What rounding to a smaller range takes from the rows."""
        low, high = self.ranges[activation.value]
        scheme = activation.scheme
        parameters = choose_activation_parameters(
            low * factor, high * factor, scheme, activation.bounds
        )
        smallest, largest = scheme.range
        integers = quantize(rows, parameters, quantized_min=smallest, quantized_max=largest)
        return rows - dequantize(integers, parameters)

    @property
    def best(self) -> dict[ir.Value, Range]:
        """The range with the least error of each activation; those no layer reads keep theirs."""
        found = dict(self.ranges)
        for value, errors in self.errors.items():
            factor = FACTORS[int(np.argmin(errors))]
            low, high = self.ranges[value]
            found[value] = (low * factor, high * factor)
        return found
