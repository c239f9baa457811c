"""What a technique sees of one layer in a sweep, and what it may change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.algorithms.layers import Layer
from onnxq.calibration import Range
from onnxq.numerics.affine import Array
from onnxq.plan import ActivationPlan, TensorPlan


@dataclass(frozen=True, kw_only=True)
class LayerSample:
    """What one layer reads, and how it stands.

    Attributes:
        layer: the layer.
        float_rows: its input in the float model, as rows; shape [groups, rows, inputs].
        quantized_rows: the same places in the quantized model.
        samples: of which sample each row is, shape [rows].
        tensor: the plan for its weight, with the ranges of its scales as they are now.
        stored_weight: the real values of the weight as it would be stored now.
        output: the activation plan of its output, behind its Relu or Clip; None if it stays float.
        ranges: of all activations.
    """

    layer: Layer
    float_rows: Array
    quantized_rows: Array
    samples: Array
    tensor: TensorPlan
    stored_weight: Array
    output: ActivationPlan | None
    ranges: Mapping[ir.Value, Range]

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
