"""Means and second moments of what a layer reads, in the float and in the quantized model.

For a linear layer the error of the output over all samples is a quadratic form of the error of the
weight, so these moments replace the samples (Nagel et al. 2020, arXiv:2004.10568, section 3.2;
Frantar et al. 2022, arXiv:2210.17323, section 3). They are centred: what the error of a weight adds
to the mean of the output is left to the bias.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from onnxq.numerics.affine import FloatArray

Float64Array = npt.NDArray[np.float64]


@dataclass
class Moments:
    """Moments of a stream of inputs, merged as in Chan, Golub and LeVeque 1983.

    Attributes:
        groups: G, independent groups of a convolution; 1 for a matrix product.
        size: K, inputs of one output channel: kernel elements times channels of the group.
        count: positions seen.
        mean_float: of the inputs in the float model, shape [G, K].
        mean_quantized: of the inputs in the quantized model, shape [G, K].
        hessian: sum over positions of xq xq', centred, shape [G, K, K].
        difference: sum of xq (xf - xq)', centred, shape [G, K, K]. Kept instead of the sum of
            xq xf', from which it would come out as a small difference of large numbers.

    >>> moments = Moments(groups=1, size=1)
    >>> moments.add(np.float32([[[2], [4]]]), np.float32([[[1], [3]]]))
    >>> moments.mean_float.tolist(), moments.hessian.tolist(), moments.cross.tolist()
    ([[3.0]], [[[2.0]]], [[[2.0]]])
    """

    groups: int
    size: int
    count: int = 0
    mean_float: Float64Array = field(init=False)
    mean_quantized: Float64Array = field(init=False)
    hessian: Float64Array = field(init=False)
    difference: Float64Array = field(init=False)

    def __post_init__(self) -> None:
        self.mean_float = np.zeros((self.groups, self.size))
        self.mean_quantized = np.zeros((self.groups, self.size))
        self.hessian = np.zeros((self.groups, self.size, self.size))
        self.difference = np.zeros((self.groups, self.size, self.size))

    @property
    def cross(self) -> Float64Array:
        """Sum over positions of xq xf', centred; shape [G, K, K]."""
        return self.hessian + self.difference

    def add(self, float_inputs: FloatArray, quantized_inputs: FloatArray) -> None:
        """Add positions.

        Args:
            float_inputs: what the layer reads in the float model, shape [G, N, K].
            quantized_inputs: what it reads at the same positions in the quantized model. The same
                array object as ``float_inputs`` says that there is no difference, and costs half.
        """
        added = float_inputs.shape[1]
        if not added:
            return
        total = self.count + added
        weight = np.sqrt(self.count * added / total)
        mean = quantized_inputs.mean(axis=1, dtype=np.float64)
        step = mean - self.mean_quantized
        # The step between the means is one more position, of a weight of its own.
        centred = _stack(quantized_inputs, mean, weight * step)
        self.hessian += np.matmul(centred.transpose(0, 2, 1), centred)
        same = np.array_equal(self.mean_float, self.mean_quantized)
        self.mean_quantized += step * (added / total)
        if float_inputs is quantized_inputs and same:
            self.mean_float[...] = self.mean_quantized
        else:
            drift = float_inputs - quantized_inputs
            drift_mean = drift.mean(axis=1, dtype=np.float64)
            drift_step = mean + drift_mean - self.mean_float - step
            drifts = _stack(drift, drift_mean, weight * drift_step)
            self.difference += np.matmul(centred.transpose(0, 2, 1), drifts)
            self.mean_float += (step + drift_step) * (added / total)
        self.count = total

    def merge(self, other: Moments) -> None:
        """Add the positions of another stream of the same layer."""
        if not other.count:
            return
        total = self.count + other.count
        step = other.mean_quantized - self.mean_quantized
        float_step = other.mean_float - self.mean_float
        weighted = step[:, :, None] * (self.count * other.count / total)
        self.hessian += other.hessian + weighted * step[:, None, :]
        self.difference += other.difference + weighted * (float_step - step)[:, None, :]
        self.mean_quantized += step * (other.count / total)
        self.mean_float += float_step * (other.count / total)
        self.count = total


def _stack(values: FloatArray, mean: Float64Array, step: Float64Array) -> npt.NDArray[np.float32]:
    """Centred values and one more position, shape [G, N + 1, K]."""
    stacked = np.empty((values.shape[0], values.shape[1] + 1, values.shape[2]), np.float32)
    np.subtract(values, mean.astype(np.float32)[:, None], out=stacked[:, :-1])
    stacked[:, -1] = step
    return stacked
