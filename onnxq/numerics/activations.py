"""Scale and zero point of an activation, from the range that a calibration chose."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnxq.numerics.affine import (
    Array,
    FloatArray,
    Parameters,
    choose_parameters,
    dequantize,
    fit_inside,
    quantize,
)
from onnxq.schemes import ActivationScheme

INT32 = np.iinfo(np.int32)


def choose_activation_parameters(
    low: float,
    high: float,
    scheme: ActivationScheme,
    bounds: tuple[float, float] | None = None,
) -> Parameters:
    """Parameters of one tensor; both arrays are rank 0, the only shape that kernels fuse.

    Args:
        low: of the range, any finite value; the range is widened to contain 0.
        high: likewise.
        scheme: type and symmetry.
        bounds: limits of a Relu or Clip that the range has to take over.

    >>> p = choose_activation_parameters(-0.3, 6.2, ActivationScheme(), (0.0, 6.0))
    >>> round(float(p.scale) * 255, 4), int(p.zero_point)
    (6.0, 0)
    """
    quantized_min, quantized_max = scheme.range
    symmetric = scheme.symmetric and (bounds is None or scheme.type.is_signed)
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    parameters = choose_parameters(
        np.asarray(low, np.float32),
        np.asarray(high, np.float32),
        quantized_min=quantized_min,
        quantized_max=quantized_max,
        midpoint=scheme.midpoint if symmetric else None,
    )
    if bounds is not None and not symmetric:
        parameters = fit_inside(
            parameters, *bounds, quantized_min=quantized_min, quantized_max=quantized_max
        )
    return parameters


def simulate_at_run_time(real: FloatArray) -> FloatArray:
    """What DynamicQuantizeLinear leaves of an activation: uint8, one scale for this tensor.

    >>> simulate_at_run_time(np.float32([0.0, 60.6, 255.0])).tolist()
    [0.0, 61.0, 255.0]
    """
    parameters = choose_parameters(real.min(), real.max(), quantized_min=0, quantized_max=255)
    return dequantize(quantize(real, parameters, quantized_min=0, quantized_max=255), parameters)


def quantize_bias(bias: Array, scale: Array) -> npt.NDArray[np.int32]:
    """A bias in the integers of the sums that it is added to, saturating.

    Args:
        bias: float, one value a channel.
        scale: of the activation times that of the weight, one value or one a channel.

    >>> quantize_bias(np.float32([0.5, -9e9]), np.float32([0.25, 1.0])).tolist()
    [2, -2147483648]
    """
    steps = np.rint(bias.astype(np.float64) / scale.astype(np.float64))
    return np.clip(steps, INT32.min, INT32.max).astype(np.int32)
