"""Storing a tensor as integers, and the cases where that would spoil it."""

from __future__ import annotations

import math
from dataclasses import replace

from onnxq.graph.constants import Constant, dimensions
from onnxq.plan.context import Context, describe_tensor
from onnxq.plan.half import SMALLEST_OPERAND_ELEMENTS, plan_half_tensor
from onnxq.plan.pairs import limit_pairs
from onnxq.plan.readings import Reading, align_reading, read_use
from onnxq.plan.small_kernels import is_small_kernel
from onnxq.plan.statistics import WeightStatistics, expect_sqnr_db
from onnxq.plan.types import TensorPlan
from onnxq.rules.forms import refuse_filter_bank
from onnxq.rules.products import adds_pairs_of_products
from onnxq.rules.roles import Form
from onnxq.schemes import Scheme, WeightType

STORAGE_OVERHEAD_BYTES = 160
"""Two nodes with their names and a scale tensor, in the file."""


def plan_integer_tensor(constant: Constant, context: Context) -> TensorPlan:
    """Decide how an integer type can hold this tensor, or why it cannot."""
    readings = [read_use(use, constant, context) for use in constant.uses]
    weights = [reading for reading in readings if reading.role is not None]
    if not weights:
        return _plan_operand(constant, context)
    order = list(Form)
    primary = min(weights, key=lambda reading: order.index(reading.form))
    readings = [align_reading(reading, primary, context) for reading in readings]
    if any(reading.form is Form.BLOCKED_MATMUL for reading in readings):
        return _plan_blocked(constant, context, readings, primary)
    if primary.form is Form.CALIBRATED:
        return _plan_calibrated(constant, context, readings, primary)
    return _plan_channels(constant, context, readings, primary)


def _reason_not_to_store(readings: list[Reading], primary: Reading, context: Context) -> str | None:
    options = context.options
    if not primary.form.is_integer and not options.storage:
        return "--no-storage"
    if not options.folds_constants and any(one.form is Form.STORAGE for one in readings):
        return "would be dequantized at every run"
    return None


def _plan_channels(
    constant: Constant, context: Context, readings: list[Reading], primary: Reading
) -> TensorPlan:
    options = context.options
    if unwanted := _reason_not_to_store(readings, primary, context):
        return context.leave(constant, _explain(primary, unwanted))
    four_bit = options.weights.bits == 4
    scheme = Scheme(
        type=WeightType.INT8 if four_bit else options.weights,
        axes=_scale_axes(primary, context),
        symmetric=True if four_bit else options.is_symmetric,
        reduce_range=primary.form.is_integer and options.reduces_range(context.target),
    )
    obstacle = _refuse_asymmetric(scheme, primary, constant)
    if obstacle is not None:
        scheme = replace(scheme, symmetric=True)
    elif four_bit and primary.form.is_integer and not primary.reason:
        obstacle = f"int8: there is no 4-bit kernel for {primary.use.node.op_type}"
    if not primary.form.is_integer:
        reason = _reason_for_half(constant, scheme, primary, context)
        if reason is not None:
            return plan_half_tensor(constant, context, WeightType.FP16, _explain(primary, reason))
    statistics = context.measure(constant, scheme.axes)
    if not statistics.is_finite:
        return context.leave(constant, "holds NaN or infinity")
    if context.options.reduce_range is None:
        uses = tuple((one.use, one.form) for one in readings)
        scheme, statistics = limit_pairs(constant, uses, primary.axes, scheme, statistics)
    expected = expect_sqnr_db(statistics, scheme)
    bulk = expect_sqnr_db(statistics, scheme, bulk=True)
    spoiled = _reason_spoiled(expected, bulk, scheme, primary, context)
    if spoiled is not None and not _is_judged_on_samples(primary, context):
        return plan_half_tensor(constant, context, WeightType.FP16, spoiled)
    if spoiled is not None:
        obstacle = f"judged on samples, not by the {expected:.0f} dB that is left of it"
    refusal = _refuse_storage(constant, scheme, primary, context)
    if refusal is not None:
        return context.leave(constant, refusal)
    return replace(
        _describe(constant, context, readings, primary, scheme, statistics),
        reason=obstacle or "",
        expected_sqnr_db=None if math.isinf(expected) else round(expected, 1),
    )


def _plan_calibrated(
    constant: Constant, context: Context, readings: list[Reading], primary: Reading
) -> TensorPlan:
    calibrated = (one.use.node for one in readings if one.form is Form.CALIBRATED)
    wanted = context.find_scheme(calibrated)
    scheme = replace(
        wanted,
        axes=_scale_axes(primary, context),
        reduce_range=wanted.reduce_range
        and any(adds_pairs_of_products(one.use, one.form, constant.tensor) for one in readings),
    )
    obstacle = _refuse_zero_points(scheme, primary, context)
    if obstacle is not None:
        scheme = replace(scheme, symmetric=True)
    if scheme.type.bits != 8:
        # The other integer kernels, and lookups, take 8 bits.
        reason = f"shares its weight with {context.label(primary.use.node)}, in {scheme.type.value}"
        readings = [
            one if one.form is Form.CALIBRATED else replace(one, form=Form.STORAGE, reason=reason)
            for one in readings
        ]
    statistics = context.measure(constant, scheme.axes)
    if not statistics.is_finite:
        return context.leave(constant, "holds NaN or infinity")
    if context.options.reduce_range is None:
        uses = tuple((one.use, one.form) for one in readings)
        scheme, statistics = limit_pairs(constant, uses, primary.axes, scheme, statistics)
    expected = expect_sqnr_db(statistics, scheme)
    return replace(
        _describe(constant, context, readings, primary, scheme, statistics),
        reason=obstacle or "",
        expected_sqnr_db=None if math.isinf(expected) else round(expected, 1),
    )


def _plan_blocked(
    constant: Constant, context: Context, readings: list[Reading], primary: Reading
) -> TensorPlan:
    shared = len(readings) > 1 and not context.target.contrib_operators
    if shared or any(reading.form is not Form.BLOCKED_MATMUL for reading in readings):
        eight_bit = [replace(one, form=_without_blocks(one)) for one in readings]
        reason = "8-bit: its readers do not all take 4-bit blocks"
        plan = _plan_channels(
            constant, context, eight_bit, replace(primary, form=_without_blocks(primary))
        )
        return replace(plan, reason="; ".join(filter(None, (reason, plan.reason))))
    statistics = context.measure(constant, primary.axes)
    if not statistics.is_finite:
        return context.leave(constant, "holds NaN or infinity")
    options = context.options
    scheme = Scheme(
        type=options.weights,
        axes=primary.axes,
        block_size=options.block_size or context.target.default_block_size,
        symmetric=options.is_symmetric,
    )
    return _describe(constant, context, readings, primary, scheme, statistics)


def _describe(
    constant: Constant,
    context: Context,
    readings: list[Reading],
    primary: Reading,
    scheme: Scheme,
    statistics: WeightStatistics,
) -> TensorPlan:
    return describe_tensor(
        constant,
        scheme=scheme,
        reason="",
        uses=tuple(context.plan_use(one.use, one.form, one.reason) for one in readings),
        statistics=statistics,
        channel_axes=primary.axes,
    )


def _without_blocks(reading: Reading) -> Form:
    return Form.INTEGER_MATMUL if reading.form is Form.BLOCKED_MATMUL else reading.form


def _plan_operand(constant: Constant, context: Context) -> TensorPlan:
    if not context.options.storage or not context.options.folds_constants:
        return context.leave(constant, "no weight of a layer; --no-storage")
    if constant.tensor.size < SMALLEST_OPERAND_ELEMENTS:
        return context.leave(constant, "no weight of a layer (bias, table or factor)")
    return plan_half_tensor(
        constant, context, WeightType.FP16, "no weight of a layer: int8 is not safe for it"
    )


def _scale_axes(primary: Reading, context: Context) -> tuple[int, ...]:
    if context.options.per_channel:
        return primary.axes
    # Recurrent kernels want one scale for each direction even when it is one "per tensor".
    return primary.axes[:1] if primary.form is Form.INTEGER_LSTM else ()


def _explain(primary: Reading, reason: str) -> str:
    return "; ".join(dict.fromkeys(filter(None, (primary.reason, reason))))


def _refuse_asymmetric(scheme: Scheme, primary: Reading, constant: Constant) -> str | None:
    if scheme.symmetric or not primary.form.is_integer:
        return None
    if primary.form is not Form.INTEGER_MATMUL or len(constant.tensor.shape) > 2:
        return "symmetric: the kernel takes one zero point only"
    return None


def _refuse_zero_points(scheme: Scheme, primary: Reading, context: Context) -> str | None:
    """Why the integers of a calibrated layer have to be symmetric."""
    if scheme.symmetric or not scheme.axes or primary.use.node.op_type != "Conv":
        return None
    if scheme.type.bits != 8 or context.target.convolves_zero_points:
        return None
    return "symmetric: with zero points for each channel convolutions are slower than float"


def _reason_for_half(
    constant: Constant, scheme: Scheme, primary: Reading, context: Context
) -> str | None:
    shape = dimensions(constant.tensor)
    if scheme.axes and context.keep_small_kernels and is_small_kernel(constant):
        per_scale = constant.tensor.size // _count_indices(constant, scheme.axes)
        return f"fp16: int8 saves little with {per_scale} elements a scale"
    filter_bank = refuse_filter_bank(primary.use.node, shape, context.target)
    return None if filter_bank is None else f"fp16: {filter_bank}"


def _reason_spoiled(
    expected_db: float, bulk_db: float, scheme: Scheme, primary: Reading, context: Context
) -> str | None:
    target = context.target
    lowest = (
        target.lowest_integer_sqnr_db if primary.form.is_integer else target.lowest_storage_sqnr_db
    )
    # Up to one bit less leaves up to 6 dB less of any weight: that spoils none.
    allowance_db = 6.02 if scheme.reduce_range or scheme.limits_pairs else 0.0
    name = scheme.type.value
    if expected_db < lowest - allowance_db:
        return f"fp16: {name} would leave only {expected_db:.0f} dB of it"
    if bulk_db < target.lowest_bulk_sqnr_db - allowance_db:
        return f"fp16: beside its outliers {name} would leave only {bulk_db:.0f} dB of it"
    return None


def _is_judged_on_samples(primary: Reading, context: Context) -> bool:
    return primary.form.is_integer and primary.use.node in context.judged_on_samples


def _refuse_storage(
    constant: Constant, scheme: Scheme, primary: Reading, context: Context
) -> str | None:
    if primary.form.is_integer:
        return None
    tensor = constant.tensor
    scales = _count_indices(constant, scheme.axes)
    saved = tensor.size * (tensor.dtype.itemsize - 1) - 4 * scales - STORAGE_OVERHEAD_BYTES
    if saved <= 0:
        return "too small to shrink"
    if primary.form is Form.STORAGE and tensor.nbytes > context.target.fold_limit_bytes:
        return "too large for the runtime to dequantize once, at load"
    return None


def _count_indices(constant: Constant, axes: tuple[int, ...]) -> int:
    """How many scales a tensor has with one for each index along ``axes``."""
    shape = dimensions(constant.tensor)
    return int(math.prod(shape[axis] for axis in axes))
