"""Weights and ranges of activations as a quantized file, of any tool, has them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxq.graph.attributes import int_attribute
from onnxq.graph.constants import FLOAT_TYPES, iterate_constants, release
from onnxq.graph.files import load_model
from onnxq.graph.scopes import iterate_scopes
from onnxq.pipelines import prepare_model
from onnxq.plan import DynamicOptions
from onnxq.report.stored_weights import (
    LIMITS,
    StoredWeight,
    find_stored_weights,
    name_of,
    read_constant,
)
from onnxq.runtime.damage import explain_damage

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
_Candidates = list[tuple[str, ir.TensorProtocol]]

BINS = 64
LARGEST_TENSORS = 200
_SAMPLED_ABOVE = 2**22
_COMPARED_FIRST = 4096
_LOWEST_MATCH_DB = 6.0


@dataclass(frozen=True, kw_only=True)
class WeightHistogram:
    """How the elements of a weight lie between the points where rounding clips them.

    Attributes:
        name: of the float weight, or of the integers where it was not found.
        shape, type, scales: of the integers, and how many scales they have.
        counts: elements in ``BINS`` bins of equal width from ``low`` to ``high``.
        low: left end of the first bin.
        high: right end of the last bin.
        clip_low, clip_high: smallest and largest of the lower and upper clip points of the scales.
        sqnr_db: of the weight itself; None where the float weight was not found.
    """

    name: str
    shape: Shape
    type: str
    scales: int
    counts: tuple[int, ...]
    low: float
    high: float
    clip_low: tuple[float, float]
    clip_high: tuple[float, float]
    sqnr_db: float | None


@dataclass(frozen=True)
class ActivationRange:
    """The real numbers that the integers of an activation can stand for."""

    name: str
    type: str
    low: float
    high: float


@dataclass(frozen=True)
class QuantizedTensors:
    """What was found in a quantized file.

    Weights are sorted by size; ``left_out`` counts the weights and activations not in here.
    """

    weights: tuple[WeightHistogram, ...]
    activations: tuple[ActivationRange, ...]
    left_out: tuple[int, int]


def read_quantized_tensors(
    float_path: Path, quantized_path: Path, *, limit: int = LARGEST_TENSORS
) -> QuantizedTensors:
    """Histograms of the weights, from the float model, and ranges of the activations.

    Raises:
        ModelError: a model cannot be read.
    """
    quantized = load_model(quantized_path).model
    with explain_damage(quantized_path):
        ranges = list({one.name: one for one in _find_ranges(quantized)}.values())
        found = {id(one.elements): one for one in find_stored_weights(quantized)}
        stored = sorted(found.values(), key=lambda one: -one.elements.size)
    candidates = _read_float_weights(float_path) if stored else []
    weights = [_study(one, candidates) for one in stored[:limit]]
    drawn = tuple(one for one in weights if one is not None)
    left_out = (len(stored) - len(drawn), len(ranges[limit:]))
    return QuantizedTensors(drawn, tuple(ranges[:limit]), left_out)


def _read_float_weights(path: Path) -> _Candidates:
    """The weights as they are, and as they are once batch norms and the like are folded in."""
    model = load_model(path).model
    with explain_damage(path):
        found = {id(one.tensor): one for one in iterate_constants(model)}
        prepare_model(model, DynamicOptions(), keep_metadata=True)
        found.update((id(one.tensor), one) for one in iterate_constants(model))
    return [(one.name, one.tensor) for one in found.values() if one.tensor.dtype in FLOAT_TYPES]


def _study(stored: StoredWeight, candidates: _Candidates) -> WeightHistogram | None:
    """The histogram of one weight; None where its parts do not fit together."""
    shape = tuple(stored.elements.shape.numpy())
    step = math.ceil(stored.elements.size / _SAMPLED_ABOVE)
    try:
        scale, offset = (_spread(one, shape, stored) for one in (stored.scale, stored.zero_point))
        scale, offset = (_thin(np.broadcast_to(one, shape), step) for one in (scale, offset))
        real = (_thin(stored.elements.numpy(), step).astype(np.float32) - offset) * scale
    except ValueError:
        return None
    name, values = _find_float(real, shape, step, candidates)
    clips = [(limit - offset) * scale for limit in LIMITS[stored.elements.dtype]]
    kept = (real if values is None else values).reshape(-1)
    kept = kept[np.isfinite(kept)]
    # The clip points are to be seen, too.
    low = float(kept.min(initial=clips[0].min()))
    high = float(kept.max(initial=clips[1].max()))
    if not 0.0 < high - low < math.inf:
        return None
    release(stored.elements)
    return WeightHistogram(
        name=name or stored.name,
        shape=shape,
        type=stored.elements.dtype.name.lower(),
        scales=stored.scale.size,
        counts=tuple(map(int, np.histogram(kept, BINS, (low, high))[0])),
        low=low,
        high=high,
        clip_low=(float(clips[0].min()), float(clips[0].max())),
        clip_high=(float(clips[1].min()), float(clips[1].max())),
        sqnr_db=None if values is None else _measure_sqnr(values, real),
    )


def _find_float(
    real: Array, shape: Shape, step: int, candidates: _Candidates
) -> tuple[str, Array | None]:
    """The float weight with the nearest values, if they are near.

    By values, because each tool gives names of its own, and folding changes values under a name.
    """
    every = max(1, real.size // _COMPARED_FIRST)
    wanted = real.reshape(-1)[::every]
    best, best_name, best_values = _LOWEST_MATCH_DB, "", None
    for name, tensor in candidates:
        if tensor.size != math.prod(shape):
            continue
        array = tensor.numpy()
        for view in (array, array.swapaxes(-1, -2) if array.ndim > 1 else array):
            if view.shape == shape:
                values = _thin(view, step)
                sqnr_db = _measure_sqnr(values.reshape(-1)[::every], wanted)
                if sqnr_db > best:
                    best, best_name = sqnr_db, name
                    best_values = values.astype(np.float32)
        release(tensor)
    return best_name, best_values


def _spread(tensor: ir.TensorProtocol | None, shape: Shape, stored: StoredWeight) -> Array:
    """Scales or zero points in a shape that broadcasts to that of the elements."""
    array = np.zeros((), np.float32) if tensor is None else tensor.numpy().astype(np.float32)
    if array.size == 1:
        return array.reshape(())
    axis = stored.axis % len(shape)
    if stored.block_size:
        blocks = np.repeat(array, stored.block_size, axis)
        return blocks[(*[slice(None)] * axis, slice(shape[axis]))]
    if array.ndim == 1:
        return array.reshape([-1 if index == axis else 1 for index in range(len(shape))])
    return array


def _thin(array: Array, step: int) -> Array:
    """Every ``step``-th index of the longest axis."""
    return array[(*[slice(None)] * int(np.argmax(array.shape)), slice(None, None, step))]


def _measure_sqnr(values: Array, rounded: Array) -> float:
    exact = values.astype(np.float64)
    with np.errstate(all="ignore"):
        signal, noise = np.sum(exact**2), np.sum((exact - rounded) ** 2)
        sqnr_db = 10.0 * np.log10(signal / noise)
    return math.inf if noise == 0.0 else -math.inf if np.isnan(sqnr_db) else float(sqnr_db)


def _find_ranges(model: ir.Model) -> Iterator[ActivationRange]:
    """Every activation that is quantized with a scale that is a constant."""
    for scope in iterate_scopes(model):
        for node in scope.graph:
            scale, zero_point = (read_constant(node, at) for at in (1, 2))
            is_computed = node.op_type == "QuantizeLinear" and read_constant(node, 0) is None
            if not is_computed or scale is None or scale.size != 1:
                continue
            dtype = ir.DataType(int_attribute(node, "output_dtype", 0) or ir.DataType.UINT8)
            dtype = dtype if zero_point is None else zero_point.dtype
            offset = 0 if zero_point is None else int(zero_point.numpy().item())
            step = float(scale.numpy().item())
            if dtype in LIMITS and math.isfinite(step):
                ends = ((limit - offset) * step for limit in LIMITS[dtype])
                name = scope.path_of(name_of(node.inputs[0]))
                yield ActivationRange(name, dtype.name.lower(), *ends)
