"""The real values of weights as they would be stored without any data."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq.apply.weights import compute_elements, parameters_of
from onnxq.numerics.affine import Array, dequantize
from onnxq.plan import TensorPlan


class StoredWeights:
    """Computes them once for several models that are alike; keeps only what it is told to."""

    def __init__(self) -> None:
        self._known: dict[ir.Value, tuple[TensorPlan, Array]] = {}

    def read(self, value: ir.Value, tensor: TensorPlan) -> Array:
        """The real values, which are not to be changed.

        Args:
            value: the weight.
            tensor: the plan for it; another one than before has other values.
        """
        known = self._known.get(value)
        if known is None or known[0] is not tensor:
            known = tensor, simulate_weight(tensor)
            self._known[value] = known
        return known[1]

    def forget(self) -> None:
        """Hold no weight any more."""
        self._known.clear()


def simulate_weight(tensor: TensorPlan) -> Array:
    """The real values of a weight as it would be stored without any data."""
    scheme = tensor.scheme
    if scheme is None or scheme.block_size is not None:
        return np.array(tensor.constant.tensor.numpy())
    elements = compute_elements(tensor)
    if scheme.type.is_half:
        return elements.astype(tensor.constant.tensor.dtype.numpy())
    return dequantize(elements.astype(np.int32), parameters_of(tensor))
