"""16-bit floats: conversion, and whether a tensor survives it."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from onnxq.numerics.affine import Array, FloatArray
from onnxq.numerics.metrics import ErrorAccumulator
from onnxq.schemes import WeightType

LOWEST_HALF_SQNR_DB = {WeightType.FP16: 60.0, WeightType.BF16: 45.0}
"""A normal tensor reaches 73 dB in fp16 and 55 dB in bf16 (11 and 8 significant bits);
less means that part of it fell below the smallest number of the type."""

STRETCH_ELEMENTS = 1 << 18
"""Elements looked at in one go, to keep memory small."""


def to_half(real: FloatArray, weight_type: WeightType) -> Array:
    """The nearest 16-bit floats.

    >>> to_half(np.float32([1.0009765625]), WeightType.FP16).tolist()
    [1.0009765625]
    >>> to_half(np.float32([1.0009765625]), WeightType.BF16).tolist()
    [1.0]
    """
    dtype = np.float16 if weight_type is WeightType.FP16 else ml_dtypes.bfloat16
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(real).astype(dtype)


def reason_half_does_not_fit(real: FloatArray, weight_type: WeightType) -> str | None:
    """Why ``real`` cannot be stored in the type, or None if it can.

    >>> reason_half_does_not_fit(np.float32([1e6]), WeightType.FP16)
    'largest value 1e+06 is beyond fp16 (65504)'
    >>> reason_half_does_not_fit(np.float32([1e6]), WeightType.BF16) is None
    True
    """
    flat = np.asarray(real).reshape(-1)
    error = ErrorAccumulator()
    for start in range(0, flat.size, STRETCH_ELEMENTS):
        values = flat[start : start + STRETCH_ELEMENTS]
        half = to_half(values, weight_type).astype(values.dtype)
        error.add(values, half)
        if error.non_finite:
            largest = float(np.abs(values[np.isfinite(values)]).max())
            limit = "65504" if weight_type is WeightType.FP16 else "3.39e38"
            return f"largest value {largest:.3g} is beyond {weight_type.value} ({limit})"
    if error.sqnr_db < LOWEST_HALF_SQNR_DB[weight_type]:
        return f"values too small for {weight_type.value}: {error.sqnr_db:.0f} dB would be left"
    return None
