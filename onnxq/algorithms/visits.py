"""What a technique sees of one layer in a sweep, and what it may change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from onnxq.algorithms.layers import Layer
from onnxq.calibration import Range
from onnxq.numerics.affine import Array
from onnxq.plan import ActivationPlan, TensorPlan

ROWS_OF_MEANS = 1024
"""That a mean is taken over: of differences, whose spread is small."""


@dataclass(frozen=True, kw_only=True)
class FloatRows:
    """What one layer reads in the float model; the same for all techniques that visit it.

    Attributes:
        layer: the layer.
        rows: its input, as rows; shape [groups, rows, inputs].
        samples: of which sample each row is, shape [rows].
    """

    layer: Layer
    rows: Array
    samples: Array

    @property
    def few(self) -> slice:
        """Which rows are enough for a mean."""
        return slice(None, None, max(1, self.rows.shape[1] // ROWS_OF_MEANS))

    @cached_property
    def outputs(self) -> Array:
        """What the layer makes of these few, without its bias; shape [rows, channels]."""
        return multiply_rows(self.layer.read_weight(), self.rows[:, self.few])


@dataclass(frozen=True, kw_only=True)
class LayerSample:
    """What one layer reads, and how it stands.

    Attributes:
        layer: the layer.
        floats: its input in the float model.
        quantized_rows: the same places in the quantized model.
        tensor: the plan for its weight, with the ranges of its scales as they are now.
        stored_weight: the real values of the weight as it would be stored now.
        output: the activation plan of its output, behind its Relu or Clip; None if it stays float.
        ranges: of all activations.
    """

    layer: Layer
    floats: FloatRows
    quantized_rows: Array
    tensor: TensorPlan
    stored_weight: Array
    output: ActivationPlan | None
    ranges: Mapping[ir.Value, Range]

    @property
    def float_rows(self) -> Array:
        """Its input in the float model, as rows; shape [groups, rows, inputs]."""
        return self.floats.rows

    @property
    def is_usable(self) -> bool:
        """Whether there are rows, all of numbers: a mask of infinities has no moments."""
        return bool(
            self.float_rows.shape[1]
            and np.isfinite(self.float_rows).all()
            and np.isfinite(self.quantized_rows).all()
        )


@dataclass(frozen=True, kw_only=True)
class LayerChange:
    """What to change at one layer; None for what stays.

    Attributes:
        weight: integers on the grid of the scales, in the axes of the model, as real values.
        tensor: the plan for the weight where its scales change.
        bias: one value a channel.
        range: of its output.
    """

    weight: Array | None = None
    tensor: TensorPlan | None = None
    bias: Array | None = None
    range: Range | None = None


Visit = Callable[[LayerSample], LayerChange]


def multiply_rows(matrices: Array, rows: Array) -> Array:
    """What matrices make of rows.

    Args:
        matrices: shape [groups, channels, inputs].
        rows: shape [groups, rows, inputs].

    Returns:
        Shape [rows, groups times channels].
    """
    products: Array = np.matmul(rows, matrices.transpose(0, 2, 1))
    return products.transpose(1, 0, 2).reshape(rows.shape[1], -1)
