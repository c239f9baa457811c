"""The stored form of each weight, made once and shared by all its readers.

Elements are computed when the file is written (``ir.LazyTensor``), one tensor at a time, so that
memory stays a few times the largest tensor whatever the size of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxq.apply.editor import Editor
from onnxq.graph.constants import release
from onnxq.numerics.affine import Array, Parameters, quantize
from onnxq.numerics.half import to_half
from onnxq.numerics.rounding import round_keeping_sums
from onnxq.plan import TensorPlan
from onnxq.plan.statistics import resolve_parameters, widen
from onnxq.rules.roles import Form
from onnxq.schemes import Scheme, WeightType

DATA_TYPES = {
    WeightType.INT8: ir.DataType.INT8,
    WeightType.UINT8: ir.DataType.UINT8,
    WeightType.INT4: ir.DataType.INT4,
    WeightType.UINT4: ir.DataType.UINT4,
    WeightType.INT16: ir.DataType.INT16,
    WeightType.FP16: ir.DataType.FLOAT16,
    WeightType.BF16: ir.DataType.BFLOAT16,
}

Layout = tuple[int, ...]

STRETCH_ELEMENTS = 1 << 18
"""Elements rounded at a time: a few copies of them fit the cache of one core."""


class WeightStore:
    """Stored weights of one model."""

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self._stored: dict[tuple[ir.Value, Layout], ir.Value] = {}
        self._layouts: dict[ir.Value, Layout] = {}
        self._packed: dict[Hashable, tuple[ir.Value, ...]] = {}
        self._arrays: dict[tuple[Any, ...], ir.Value] = {}

    def elements(self, plan: TensorPlan, layout: Layout, *, preferred: bool = False) -> ir.Value:
        """The stored elements with their axes in the order ``layout``.

        Args:
            plan: the weight.
            layout: a permutation of the axes of the float tensor.
            preferred: whether to store in this order, if nothing was stored yet.
        """
        natural = tuple(range(len(plan.shape)))
        value = plan.constant.value
        if value not in self._layouts:
            first = layout if preferred else natural
            self._layouts[value] = first
            self._stored[value, first] = self._store(plan, first)
        if (value, layout) not in self._stored:
            stored = self._layouts[value]
            self._stored[value, layout] = self._editor.add_node_at_start(
                plan.constant.scope,
                "Transpose",
                (self._stored[value, stored],),
                name=f"{value.name}_transposed",
                attributes={"perm": [stored.index(axis) for axis in layout]},
                after=self._stored[value, stored].producer(),
            )
        return self._stored[value, layout]

    def share_packed(
        self, key: Hashable, make: Callable[[], tuple[ir.Value, ...]]
    ) -> tuple[ir.Value, ...]:
        """The constants that ``make`` adds, added once for each key."""
        if key not in self._packed:
            self._packed[key] = make()
        return self._packed[key]

    def scale(
        self,
        plan: TensorPlan,
        shape: tuple[int, ...],
        *,
        factor: float = 1.0,
        dtype: ir.DataType = ir.DataType.FLOAT,
    ) -> ir.Value:
        """The scales in a given shape and float type, multiplied by ``factor``."""
        scale = parameters_of(plan).scale * np.float32(factor)
        return self._array(plan, "scale", scale.reshape(shape).astype(dtype.numpy()), factor)

    def offset(
        self, plan: TensorPlan, shape: tuple[int, ...], dtype: ir.DataType = ir.DataType.FLOAT
    ) -> ir.Value | None:
        """The zero points to subtract from widened elements; None if all are 0."""
        parameters = parameters_of(plan)
        if not parameters.has_zero_point:
            return None
        array = parameters.zero_point.reshape(shape).astype(dtype.numpy())
        return self._array(plan, "offset", array, 1.0)

    def zero_point(self, plan: TensorPlan, shape: tuple[int, ...]) -> ir.Value | None:
        """The zero points in a given shape and the weight's type; None if all are 0."""
        if not parameters_of(plan).has_zero_point:
            return None
        return self._array(plan, "zero_point", _stored_zero_point(plan, shape), 1.0)

    def explicit_zero_point(self, plan: TensorPlan, shape: tuple[int, ...]) -> ir.Value:
        """The same for kernels that insist on zero points, also where all are 0.

        Each weight has its own: with ``session.x64quantprecision`` onnxruntime 1.32 makes new ones
        for each weight, under the name of the old, and does not load where two share them.
        """
        array = _stored_zero_point(plan, shape)
        # A short name, as every layer has one.
        return self._array(plan, "explicit_zero_point", array, 1.0, name="zero_point")

    def no_zero_point(
        self, plan: TensorPlan, shape: tuple[int, ...], dtype: ir.DataType
    ) -> ir.Value:
        """The same for elements that became another type, and had theirs subtracted."""
        array = np.zeros(shape, dtype.numpy())
        return self._array(plan, "no_zero_point", array, 1.0, name="zero_point")

    def _array(
        self, plan: TensorPlan, kind: str, array: Array, factor: float, *, name: str | None = None
    ) -> ir.Value:
        key = (plan.constant.value, kind, array.shape, array.dtype, factor)
        if key not in self._arrays:
            self._arrays[key] = self._editor.add_array(
                plan.constant.scope, array, name=name or f"{plan.constant.value.name}_{kind}"
            )
        return self._arrays[key]

    def _store(self, plan: TensorPlan, layout: Layout) -> ir.Value:
        scheme = scheme_of(plan)

        def compute() -> Array:
            return np.ascontiguousarray(compute_elements(plan).transpose(layout))

        return self._editor.add_lazily(
            plan.constant.scope,
            compute,
            DATA_TYPES[scheme.type],
            [plan.shape[axis] for axis in layout],
            name=f"{plan.constant.value.name}_{scheme.type.value}",
        )


def scheme_of(plan: TensorPlan) -> Scheme:
    """The scheme of a tensor that the plan changes."""
    if plan.scheme is None:
        raise ValueError(f"{plan.name} has no scheme")
    return plan.scheme


def parameters_of(plan: TensorPlan) -> Parameters:
    """Scales and zero points of a planned tensor, with reduced axes kept at length 1."""
    if plan.statistics is None:
        raise ValueError(f"{plan.name} has no scale")
    return resolve_parameters(plan.statistics, scheme_of(plan))


def compute_elements(plan: TensorPlan) -> Array:
    """The stored elements of a planned tensor, in the axes of the float tensor.

    Works on one stretch of channels after the other, so that besides the tensor and the result only
    a few megabytes are in memory.
    """
    scheme = scheme_of(plan)
    real = plan.constant.tensor.numpy()
    # A lookup reads one row at a time: there is no sum over it to keep.
    keeps_sums = not scheme.type.is_half and plan.best_form is not Form.LOOKUP
    axes = plan.channel_axes if keeps_sums else ()
    order = (*axes, *(axis for axis in range(real.ndim) if axis not in axes))
    source = real.transpose(order)
    result = np.empty(source.shape, DATA_TYPES[scheme.type].numpy())
    if scheme.type.is_half:
        for part in _stretches(source.shape):
            result[part] = to_half(source[part], scheme.type)
    else:
        parameters = parameters_of(plan)
        for part in _stretches(source.shape):
            result[part] = _round(source, part, parameters, plan, order, len(axes))
    # The memory map can only be closed once no array looks into it.
    del real, source
    release(plan.constant.tensor)
    return result.transpose(np.argsort(order))


def _round(
    source: Array,
    part: slice,
    parameters: Parameters,
    plan: TensorPlan,
    order: Layout,
    channel_axes: int,
) -> Array:
    """The integers of one stretch; the first ``channel_axes`` axes of ``source`` are channels."""
    low, high = scheme_of(plan).range
    real = widen(source[part])
    scale, zero_point = parameters.scale.transpose(order), parameters.zero_point.transpose(order)
    if scale.shape[0] > 1:
        scale, zero_point = scale[part], zero_point[part]
    if not channel_axes:
        own = Parameters(scale, zero_point)
        return quantize(real, own, quantized_min=low, quantized_max=high)
    steps = real / scale.astype(real.dtype)
    if parameters.has_zero_point:
        steps += zero_point
    channels = int(np.prod(steps.shape[:channel_axes]))
    rows = np.ascontiguousarray(steps).reshape(channels, -1)
    rounded = round_keeping_sums(rows, quantized_min=low, quantized_max=high)
    return rounded.reshape(steps.shape)


def _stored_zero_point(plan: TensorPlan, shape: tuple[int, ...]) -> Array:
    dtype = DATA_TYPES[scheme_of(plan).type].numpy()
    return parameters_of(plan).zero_point.reshape(shape).astype(dtype)


def _stretches(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices along the first axis that hold about ``STRETCH_ELEMENTS`` elements each."""
    row = max(1, int(np.prod(shape[1:])))
    step = max(1, STRETCH_ELEMENTS // row)
    for start in range(0, shape[0], step):
        yield slice(start, start + step)
