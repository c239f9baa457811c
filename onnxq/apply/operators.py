"""Calibrated integers, written as operators that compute on them by themselves.

Pairs of QuantizeLinear and DequantizeLinear are fast only where the runtime fuses them. These
operators need no optimisation. They are made from the pairs, once all of them stand:

- Layers and arithmetic become QLinearConv, QLinearMatMul and so on; movements read the integers.
- DequantizeLinear is left where a float node reads, QuantizeLinear where a float tensor enters.
- A Relu or Clip that a range takes over disappears; where zero has to be in the middle of the
  integers, no range can do that, and it becomes a Clip of integers.

The ONNX standard has no QLinearAdd and the like: without contrib operators, arithmetic stays
between its pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxq.apply.operators_edges import (
    Edges,
    Integers,
    output_numbers,
    read_bias,
)
from onnxq.apply.rewriter import Rewriter
from onnxq.graph.attributes import is_set
from onnxq.graph.constants import dimensions, require_constant
from onnxq.numerics.affine import Array
from onnxq.plan import CalibratedNode, Plan
from onnxq.plan.integer_nodes import IntegerNode
from onnxq.rules.calibrated import Behaviour
from onnxq.rules.roles import MICROSOFT

_ARITHMETIC: Mapping[str, str] = {
    "Add": "QLinearAdd",
    "Mul": "QLinearMul",
    "Concat": "QLinearConcat",
    "Sigmoid": "QLinearSigmoid",
    "LeakyRelu": "QLinearLeakyRelu",
    "GlobalAveragePool": "QLinearGlobalAveragePool",
}


def write_operators(rewriter: Rewriter, plan: Plan) -> None:
    """Make operators of all pairs of a plan.

    Args:
        rewriter: of the model, for which ``write_pairs`` is done.
        plan: the same as there, with activations and weights of 8 bits.

    Post: no calibrated node computes in float, but for those that the head of this file names.
    """
    nodes = plan.decisions.nodes
    writer = _OperatorWriter(rewriter, plan, Edges(rewriter, nodes))
    for node in nodes:
        writer.write_node(node)


def write_float_products(rewriter: Rewriter, plan: Plan) -> None:
    """Make operators only of matrix products with a float output, where contrib ones may be used.

    What follows such a product, a Relu or a bias, the runtime fuses with it before it looks for
    integers, and then computes in float. From an operator it keeps away.
    """
    nodes = plan.decisions.nodes
    if not rewriter.target.contrib_operators:
        return
    writer = _OperatorWriter(rewriter, plan, Edges(rewriter, nodes))
    for node in nodes:
        has_operator = node.one.behaviour is Behaviour.PRODUCT and node.scheme.type.bits <= 8
        if has_operator and not node.quantizes_output:
            writer.write_node(node)


class _OperatorWriter:
    def __init__(self, rewriter: Rewriter, plan: Plan, edges: Edges) -> None:
        self._rewriter = rewriter
        self._edges = edges
        self._contrib = rewriter.target.contrib_operators
        self._schemes = {
            member: one.scheme for one in plan.decisions.activations for member in one.members
        }

    def write_node(self, node: CalibratedNode) -> None:
        """One node as an operator on integers."""
        one = node.one
        if one.behaviour is Behaviour.MOVEMENT:
            self._move(one)
        elif one.behaviour is Behaviour.ELEMENTWISE:
            if self._contrib:
                self._calculate(one)
        elif node.operator == "Conv":
            self._convolve(one)
        elif node.operator == "Gemm" and self._contrib:
            self._multiply_and_add(one, quantizes_output=node.quantizes_output)
        elif node.quantizes_output and read_bias(one.node) is None:
            weight = self._read_matrix(one.node)
            inputs = (*self._edges.read(one.node.inputs[0]).inputs, *weight.inputs)
            self._finish(one, "QLinearMatMul", (*inputs, *output_numbers(one.outputs[0])))
        elif node.operator == "MatMul" and self._contrib:
            self._multiply_to_float(one.node)
        else:
            self._multiply_by_parts(one.node)

    def _move(self, one: IntegerNode) -> None:
        one.node.replace_input_with(0, self._edges.read(one.node.inputs[0]).values)
        for value in one.outputs:
            self._edges.skip_quantizer(value, value)

    def _calculate(self, one: IntegerNode) -> None:
        inputs = [part for value in one.node.inputs for part in self._edges.read(value).inputs]
        numbers = output_numbers(one.outputs[0])
        operator = _ARITHMETIC[one.node.op_type]
        # Concat takes any number of tensors, so what belongs to its output comes first.
        ordered = (*numbers, *inputs) if one.node.op_type == "Concat" else (*inputs, *numbers)
        self._finish(one, operator, ordered, dict(one.node.attributes), domain=MICROSOFT)

    def _convolve(self, one: IntegerNode) -> None:
        layer, bias = one.node, read_bias(one.node)
        inputs = (
            *self._edges.read(layer.inputs[0]).inputs,
            *self._edges.read(layer.inputs[1]).inputs,
        )
        numbers = output_numbers(one.outputs[0])
        last = () if bias is None else (bias,)
        self._finish(one, "QLinearConv", (*inputs, *numbers, *last), dict(layer.attributes))

    def _multiply_and_add(self, one: IntegerNode, *, quantizes_output: bool) -> None:
        """A Gemm, whose operator can give integers as well as floats."""
        layer, bias = one.node, read_bias(one.node)
        inputs = (
            *self._edges.read(layer.inputs[0]).inputs,
            *self._edges.read(layer.inputs[1]).inputs,
        )
        attributes: dict[str, Any] = {"transB": int(is_set(layer, "transB"))}
        if quantizes_output:
            numbers = output_numbers(one.outputs[0])
            self._finish(one, "QGemm", (*inputs, bias, *numbers), attributes, domain=MICROSOFT)
            return
        last = () if bias is None else (bias,)
        outputs = self._rewriter.add_node(
            layer,
            "QGemm",
            (*inputs, *last),
            name=_name(layer),
            attributes=attributes,
            domain=MICROSOFT,
        )
        self._rewriter.succeed(layer, outputs)

    def _multiply_to_float(self, layer: ir.Node) -> None:
        left, right = self._edges.read(layer.inputs[0]), self._edges.read(layer.inputs[1])
        inputs = (left.values, right.values, left.scale, right.scale)
        outputs = self._rewriter.add_node(
            layer,
            "MatMulIntegerToFloat",
            (*inputs, left.zero_point, right.zero_point),
            name=_name(layer),
            domain=MICROSOFT,
        )
        self._rewriter.succeed(layer, outputs)

    def _multiply_by_parts(self, layer: ir.Node) -> None:
        """``(q W + b) * scale`` with standard operators; what quantizes it stays behind it."""
        rewriter, name, bias = self._rewriter, _name(layer), read_bias(layer)
        left, right = self._edges.read(layer.inputs[0]), self._read_matrix(layer)
        (sums,) = rewriter.add_node(
            layer,
            "MatMulInteger",
            (left.values, right.values, left.zero_point, right.zero_point),
            name=f"{name}_integers",
        )
        if bias is not None:
            (sums,) = rewriter.add_node(layer, "Add", (sums, bias), name=f"{name}_biased")
        widened = rewriter.cast(layer, sums, ir.DataType.FLOAT, name=f"{name}_widened")
        scale = self._multiply_scales(layer, left, right)
        rewriter.succeed(layer, rewriter.add_node(layer, "Mul", (widened, scale), name=name))

    def _multiply_scales(self, layer: ir.Node, left: Integers, right: Integers) -> ir.Value:
        first, second = require_constant(left.scale), require_constant(right.scale)

        def compute() -> Array:
            return np.asarray(first.numpy() * second.numpy(), np.float32)

        return self._rewriter.add_lazily(
            self._rewriter.scope_of(layer),
            compute,
            ir.DataType.FLOAT,
            dimensions(second),
            name=f"{_name(layer)}_scale",
        )

    def _read_matrix(self, layer: ir.Node) -> Integers:
        """The weight of a layer with the sums along its first axis."""
        weight = self._edges.read(layer.inputs[1])
        if not is_set(layer, "transB"):
            return weight
        tensor = require_constant(weight.values)
        shape, scope = dimensions(tensor)[::-1], self._rewriter.scope_of(layer)

        def compute() -> Array:
            return np.ascontiguousarray(tensor.numpy().T)

        def make() -> tuple[ir.Value, ...]:
            name = f"{weight.values.name}_transposed"
            return (self._rewriter.add_lazily(scope, compute, tensor.dtype, shape, name=name),)

        key = ("transposed", weight.values, scope.graph)
        (values,) = self._rewriter.weights.share_packed(key, make)
        return Integers(values, weight.scale, weight.zero_point)

    def _finish(
        self,
        one: IntegerNode,
        operator: str,
        inputs: tuple[ir.Value | None, ...],
        attributes: dict[str, Any] | None = None,
        *,
        domain: str = "",
    ) -> None:
        """Put an operator in the place of a node, its absorbed Relu or Clip and its quantizer."""
        (values,) = self._rewriter.add_node(
            one.node, operator, inputs, name=_name(one.node), attributes=attributes, domain=domain
        )
        scheme = self._schemes[one.outputs[0]]
        if one.bounds is not None and scheme.symmetric and scheme.type.is_signed:
            values = self._edges.clip(one, values)
        self._edges.finish(one, values)


def _name(node: ir.Node) -> str:
    return node.name or node.op_type.lower()
