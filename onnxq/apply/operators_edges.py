"""Where the integers of a calibrated node are, once its pairs are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir

from onnxq.apply.rewriter import Rewriter
from onnxq.graph.constants import require_constant
from onnxq.numerics.affine import Array
from onnxq.plan import CalibratedNode
from onnxq.plan.integer_nodes import IntegerNode


@dataclass(frozen=True)
class Integers:
    """A quantized tensor, as the operators take it."""

    values: ir.Value
    scale: ir.Value
    zero_point: ir.Value

    @property
    def inputs(self) -> tuple[ir.Value, ir.Value, ir.Value]:
        """All three, in the order that most operators have."""
        return self.values, self.scale, self.zero_point


class Edges:
    """Reads pairs and takes them away."""

    def __init__(self, rewriter: Rewriter, nodes: Sequence[CalibratedNode]) -> None:
        self._rewriter = rewriter
        # A body quantizes again what it reads dequantized from outside: these are recognised here.
        self._dequantizers = {
            reader
            for node in nodes
            if node.quantizes_output
            for value in node.one.outputs
            for reader, _ in find_quantizer(value).outputs[0].uses()
            if reader.op_type == "DequantizeLinear"
        }

    def read(self, value: ir.Value | None) -> Integers:
        """The integers that stand behind a dequantized input of a calibrated node."""
        source = _dequantizer(value)
        values, scale, zero_point = source.inputs
        if values is None or scale is None or zero_point is None:
            raise ValueError(f"node '{source.name}' has no zero point")
        again = values.producer()
        if again is not None and again.op_type == "QuantizeLinear" and again.inputs[0] is not None:
            outer = again.inputs[0].producer()
            if outer in self._dequantizers and outer is not None and outer.inputs[0] is not None:
                values = outer.inputs[0]
        return Integers(values, scale, zero_point)

    def finish(self, one: IntegerNode, values: ir.Value) -> None:
        """Let ``values`` be the integers of ``one``, whose float nodes disappear."""
        quantizer = find_quantizer(one.outputs[0])
        operator, name = values.producer(), one.node.name
        self.skip_quantizer(one.outputs[0], values)
        for node in (one.absorbed, one.node):
            if node is not None:
                self._rewriter.scope_of(node).graph.remove(node, safe=True)
        if operator is None or quantizer.graph is not None:
            raise ValueError(f"node '{name}' was not replaced")
        operator.name = name

    def skip_quantizer(self, value: ir.Value, values: ir.Value) -> None:
        """Put ``values`` in the place of what QuantizeLinear makes of ``value``."""
        quantizer = find_quantizer(value)
        (old,) = quantizer.outputs
        old.shape, old.type = value.shape, ir.TensorType(self.numbers(value)[1].dtype)
        self._rewriter.replace(quantizer, (values,))

    def numbers(self, value: ir.Value) -> tuple[ir.TensorProtocol, ir.TensorProtocol]:
        """Scale and zero point that ``value`` is quantized with; scales are known at writing."""
        scale, zero_point = output_numbers(value)
        return require_constant(scale), require_constant(zero_point)

    def clip(self, one: IntegerNode, values: ir.Value) -> ir.Value:
        """Integers limited as the absorbed Relu or Clip would, where their range exceeds it."""
        scale, zero_point = self.numbers(one.outputs[0])
        dtype, name = zero_point.dtype, one.node.name or one.node.op_type.lower()
        limits = [
            self._rewriter.add_lazily(
                self._rewriter.scope_of(one.node),
                partial(_quantize_bound, bound, scale, zero_point),
                dtype,
                (),
                name=f"{name}_{end}",
            )
            for bound, end in zip(one.bounds or (-np.inf, np.inf), ("min", "max"), strict=True)
        ]
        inputs = (values, *limits)
        return self._rewriter.add_node(one.node, "Clip", inputs, name=f"{name}_clipped")[0]


def find_quantizer(value: ir.Value) -> ir.Node:
    """The QuantizeLinear that alone reads an output of a calibrated node."""
    readers = [reader for reader, _ in value.uses()]
    if len(readers) != 1 or readers[0].op_type != "QuantizeLinear":
        raise ValueError(f"'{value.name}' is not quantized")
    return readers[0]


def output_numbers(value: ir.Value) -> tuple[ir.Value | None, ir.Value | None]:
    """Scale and zero point that ``value`` is quantized with."""
    _, scale, zero_point = find_quantizer(value).inputs
    return scale, zero_point


def read_bias(layer: ir.Node) -> ir.Value | None:
    """The int32 bias of a Conv or Gemm, or None."""
    if len(layer.inputs) < 3 or layer.inputs[2] is None:
        return None
    return _dequantizer(layer.inputs[2]).inputs[0]


def _dequantizer(value: ir.Value | None) -> ir.Node:
    producer = None if value is None else value.producer()
    if producer is None or producer.op_type != "DequantizeLinear":
        raise ValueError(f"'{'' if value is None else value.name}' is not dequantized")
    return producer


def _quantize_bound(bound: float, scale: ir.TensorProtocol, zero_point: ir.TensorProtocol) -> Array:
    numbers = zero_point.numpy()
    steps = np.rint(np.float64(bound) / np.float64(scale.numpy())) + numbers
    limits = np.iinfo(numbers.dtype)
    return np.asarray(np.clip(steps, limits.min, limits.max), numbers.dtype)
