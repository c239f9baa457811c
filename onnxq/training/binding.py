"""From a quantized graph to everything in it that can be trained.

The graph is not changed. Constants that several nodes read are one quantity, so tied tensors stay
tied.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
import torch

from onnxq.graph.constants import constant_tensor
from onnxq.graph.scopes import iterate_scopes
from onnxq.training.operators.fused import clip_limits, range_of
from onnxq.training.operators.quantization import TYPE_LIMITS
from onnxq.training.pairs import find_pairs
from onnxq.training.quantities import (
    FloatTensor,
    IntegerBias,
    IntegerWeight,
    ProductScale,
    Quantities,
    Quantity,
    RepeatedScale,
    Scale,
    make_learned,
)
from onnxq.training.tensors import to_torch
from onnxq.training.weights import WeightUse, iterate_weights

_SYMMETRIC_LIMITS = (1, 3, 7, 63, 127)

_FLOAT_INPUTS: Mapping[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (0, 1),
    "LSTM": (1, 2, 3),
    "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
    "LayerNormalization": (1, 2),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "Add": (0, 1),
    "Sub": (0, 1),
    "MatMulIntegerToFloat": (6,),
    "DynamicQuantizeMatMul": (4,),
}
"""Inputs that hold floats which were trained once."""

_LARGEST_FLOAT = 1e3
"""A constant of Add beyond this is a mask, not a bias."""


@dataclass(frozen=True)
class WeightLimits:
    """Integers that weights may take.

    Attributes:
        bits: 8 for what the type has, or as many as the weights of the start use.
    """

    bits: int = 8

    def of(self, tensor: ir.TensorProtocol) -> tuple[int, int]:
        """Smallest and largest integer of a weight."""
        low, high = TYPE_LIMITS[tensor.dtype]
        if self.bits < 4 and tensor.dtype is ir.DataType.INT4:
            return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1
        if tensor.dtype is ir.DataType.INT8:
            # Weights that keep to 7 bits do so for the processor.
            largest = int(np.abs(tensor.numpy().astype(np.int32)).max(initial=0))
            limit = next((one for one in _SYMMETRIC_LIMITS if one >= largest), 128)
            return (-limit, limit) if limit < 128 else (low, high)
        return low, high


@dataclass
class Binder:
    """Collects quantities of one model.

    Attributes:
        model: quantized.
        device: where to train.
        limits: of weights.
        masters: real weights to start from, by the name of the integers; only those elements count
            that round to the same integers.
        keeps_integers: whether integers stay as they are, and only what they stand for is trained.
    """

    model: ir.Model
    device: torch.device
    limits: WeightLimits = field(default_factory=WeightLimits)
    masters: Mapping[str, torch.Tensor] = field(default_factory=dict)
    keeps_integers: bool = False

    def __post_init__(self) -> None:
        self._scales: dict[ir.Value, Quantity] = {}
        self._others: dict[ir.Value, Quantity] = {}

    def bind(self) -> Quantities:
        """Everything that can be trained."""
        nodes = [node for scope in iterate_scopes(self.model) for node in scope.graph]
        for node in nodes:
            if node.op_type == "QuantizeLinear" and not node.domain:
                self._add_activation(node)
        for use in iterate_weights(self.model):
            self._add_weight(use)
        for node in nodes:
            if node.op_type == "DequantizeLinear" and not node.domain:
                self._add_repeated(node)
        for node in nodes:
            self._add_bias(node)
        for node in nodes:
            self._add_floats(node)
        return Quantities((*self._scales.values(), *self._others.values()))

    def _tensor(self, value: ir.Value | None) -> torch.Tensor | None:
        tensor = constant_tensor(value)
        return None if tensor is None else to_torch(tensor.numpy()).to(self.device)

    def _add_scale(self, value: ir.Value, ceiling: float | None = None) -> Scale | None:
        known = self._scales.get(value)
        if known is not None:
            if isinstance(known, Scale) and ceiling is not None:
                self._scales[value] = known = _lower_ceiling(known, ceiling)
            return known if isinstance(known, Scale) else None
        first = self._tensor(value)
        if first is None or first.dtype is not torch.float32 or bool((first <= 0).any()):
            return None
        scale = Scale(value, first, make_learned(first.shape, self.device), ceiling)
        self._scales[value] = scale
        return scale

    def _add_activation(self, node: ir.Node) -> None:
        scale = node.inputs[1]
        if scale is None or constant_tensor(scale) is None:
            return
        self._add_scale(scale, _find_ceiling(node))

    def _add_repeated(self, node: ir.Node) -> None:
        """One scale that is written once for each channel."""
        source = None if node.inputs[0] is None else node.inputs[0].producer()
        value = node.inputs[1]
        if source is None or source.op_type != "QuantizeLinear" or value in self._scales:
            return
        first, own = self._tensor(source.inputs[1]), self._tensor(value)
        if first is None or own is None or value is None or source.inputs[1] is None:
            return
        if first.numel() == 1 and bool((own == first.reshape(())).all()):
            shape = tuple(own.shape)
            self._scales[value] = RepeatedScale(value, source.inputs[1], shape)

    def _add_weight(self, use: WeightUse) -> None:
        tensor = constant_tensor(use.elements)
        if tensor is None:
            return
        scale = None if use.scale is None else self._add_scale(use.scale)
        if self.keeps_integers:
            return
        low, high = self.limits.of(tensor)
        integers = to_torch(tensor.numpy()).to(self.device, torch.float32)
        zero_point = None if use.is_symmetric else self._tensor(use.zero_point)
        if zero_point is not None:
            zero_point = zero_point.to(torch.float32).reshape(use.axes)
        first = integers if zero_point is None else integers - zero_point
        if scale is not None and scale.learned.numel() > 1 and not use.axes:
            scale = None
        master = self.masters.get(use.elements.name or "")
        if master is not None and scale is not None:
            steps = master.to(self.device) / scale.first.reshape(use.axes)
            first = torch.where(torch.round(steps) == first, steps, first)
        learned = make_learned(first.shape, self.device)
        pairs = find_pairs(use.elements) if zero_point is None else None
        self._others[use.elements] = IntegerWeight(
            use.elements, first, learned, low, high, zero_point, scale, use.axes, pairs
        )

    def _add_bias(self, node: ir.Node) -> None:
        if node.op_type not in ("Conv", "Gemm", "ConvTranspose") or len(node.inputs) < 3:
            return
        bias, weight, activation = (_dequantizer(node.inputs[at]) for at in (2, 1, 0))
        if bias is None or bias.inputs[0] is None or bias.inputs[0] in self._others:
            return
        integers, scale = constant_tensor(bias.inputs[0]), self._tensor(bias.inputs[1])
        if integers is None or integers.dtype is not ir.DataType.INT32 or scale is None:
            return
        value, own = bias.inputs[0], bias.inputs[1]
        assert own is not None
        self._add_product(own, activation, weight, tuple(scale.shape))
        first = to_torch(integers.numpy()).to(self.device, torch.float32) * scale
        learned = make_learned(first.shape, self.device)
        self._others[value] = IntegerBias(value, own, first, _unit_of(first), learned)

    def _add_product(
        self,
        value: ir.Value,
        activation: ir.Node | None,
        weight: ir.Node | None,
        shape: tuple[int, ...],
    ) -> None:
        if value in self._scales:
            return
        if activation is not None and weight is not None:
            sources = activation.inputs[1], weight.inputs[1]
            a, b = sources
            if a is not None and b is not None and a in self._scales and b in self._scales:
                self._scales[value] = ProductScale(value, a, b, shape)
                return
        self._add_scale(value)

    def _add_floats(self, node: ir.Node) -> None:
        for index in _FLOAT_INPUTS.get(node.op_type, ()):
            value = node.inputs[index] if index < len(node.inputs) else None
            if value is None or value in self._others or value in self._scales:
                continue
            tensor = self._tensor(value)
            if tensor is None or tensor.dtype is not torch.float32 or tensor.numel() < 2:
                continue
            if node.op_type in ("Add", "Sub") and (
                tensor.dim() > 1 or float(tensor.abs().max()) > _LARGEST_FLOAT
            ):
                continue
            if not bool(torch.isfinite(tensor).all()):
                continue
            learned = make_learned(tensor.shape, self.device)
            self._others[value] = FloatTensor(value, tensor, _unit_of(tensor), learned)


def bind(
    model: ir.Model,
    *,
    device: torch.device | None = None,
    bits: int = 8,
    masters: Mapping[str, torch.Tensor] | None = None,
    keeps_integers: bool = False,
) -> Quantities:
    """Everything in a quantized graph that can be trained.

    Args:
        model: quantized; it is not changed.
        device: where to train; the CPU if None.
        bits: of weights, where fewer than their type has are wanted.
        masters: real weights by the name of their integers.
        keeps_integers: see ``Binder``.
    """
    place, limits = device or torch.device("cpu"), WeightLimits(bits)
    return Binder(model, place, limits, masters or {}, keeps_integers).bind()


def _unit_of(tensor: torch.Tensor) -> float:
    """The root mean square, or 1 of zeros."""
    found = float(tensor.square().mean().sqrt())
    return found if found > 0 and math.isfinite(found) else 1.0


def _lower_ceiling(scale: Scale, ceiling: float) -> Scale:
    lowest = ceiling if scale.ceiling is None else min(scale.ceiling, ceiling)
    return Scale(scale.value, scale.first, scale.learned, lowest)


def _dequantizer(value: ir.Value | None) -> ir.Node | None:
    producer = None if value is None else value.producer()
    return producer if producer is not None and producer.op_type == "DequantizeLinear" else None


def _find_ceiling(node: ir.Node) -> float | None:
    """How far the log of a scale may grow until an integer stands for more than a Clip gives.

    Beyond that the runtime keeps the Clip, and then does not fuse the layer before it.
    """
    clip = None if node.inputs[0] is None else node.inputs[0].producer()
    if clip is None or clip.op_type != "Clip" or clip.domain:
        return None
    ceilings = []
    for reached, limit in zip(range_of(node), clip_limits(clip), strict=True):
        if reached == 0.0 or not math.isfinite(reached) or not math.isfinite(limit):
            continue
        room = math.log(limit / reached) if limit / reached > 0 else -math.inf
        # A start that is beyond the Clip is not fused anyway.
        if room > -1e-3:
            ceilings.append(max(0.0, room - 1e-6))
    return min(ceilings, default=None)
