"""Which nodes compute on calibrated integers: whole regions, as their neighbours allow it.

A convolution can always start a region. What only calculates or moves joins where it sits between
integer nodes, because there the integers need not be widened and narrowed again. All candidates
start inside; those whose neighbourhood does not hold are taken out until nothing changes, so the
result does not depend on the order. A region without a layer that gains from integers is dissolved.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.graph.attributes import int_attribute, is_set
from onnxq.plan.integer_nodes import (
    IntegerNode,
    absorb_activation,
    refuse_alone,
    weight_shape,
)
from onnxq.rules.calibrated import Behaviour, find_calibrated_rule
from onnxq.rules.forms import refuse_filter_bank
from onnxq.targets import Target


@dataclass(frozen=True)
class Regions:
    """The result.

    Attributes:
        nodes: those that compute on integers, in graph order.
        refused: nodes of an operator with a rule that stay float, with the reason.
    """

    nodes: Mapping[ir.Node, IntegerNode]
    refused: Mapping[ir.Node, str]

    def quantizes_output(self, one: IntegerNode) -> bool:
        """Whether the outputs of a node are quantized."""
        return _quantizes_output(one, self.nodes)


def find_regions(
    graphs: Iterable[ir.Graph],
    *,
    target: Target,
    refused: Mapping[ir.Node, str],
    dynamic_matmul: bool,
) -> Regions:
    """Decide for every node that has a rule.

    Args:
        graphs: bodies whose activations can be observed.
        target: to plan for.
        refused: nodes that stay float for another reason.
        dynamic_matmul: leave matrix products between float tensors to the dynamic form.
    """
    search = _Search(target, refused, dynamic_matmul)
    for graph in graphs:
        for node in graph:
            search.consider(node)
    search.shrink()
    search.dissolve_weak_regions()
    return Regions(search.inside, search.refused)


class _Search:
    """The set of nodes that are still inside; it only gets smaller."""

    def __init__(
        self, target: Target, excluded: Mapping[ir.Node, str], dynamic_matmul: bool
    ) -> None:
        self._target = target
        self._excluded = excluded
        self._dynamic_matmul = dynamic_matmul
        self.inside: dict[ir.Node, IntegerNode] = {}
        self.refused: dict[ir.Node, str] = {}
        self._producers: dict[ir.Value, IntegerNode] = {}

    def consider(self, node: ir.Node) -> None:
        """Take a node in, unless it cannot by itself."""
        rule = find_calibrated_rule(node)
        if rule is None:
            return
        one = absorb_activation(node, rule, self._excluded)
        reason = self._excluded.get(node) or refuse_alone(one) or self._refuse_weight(one)
        if reason is not None:
            self.refused[node] = reason
            return
        self.inside[node] = one
        self._producers.update(dict.fromkeys(one.outputs, one))

    def shrink(self) -> None:
        """Take out what its neighbours do not support, until nothing changes."""
        waiting = list(reversed(self.inside))
        while waiting:
            node = waiting.pop()
            one = self.inside.get(node)
            reason = None if one is None else self._refuse_in_context(one)
            if one is None or reason is None:
                continue
            del self.inside[node]
            self.refused[node] = reason
            waiting.extend(self._neighbours(one))

    def dissolve_weak_regions(self) -> None:
        """Take out connected nodes of which none gains anything from integers."""
        seen: set[ir.Node] = set()
        for start in list(self.inside):
            if start in seen:
                continue
            region = self._connected(start)
            seen.update(region)
            if not any(self._is_strong(self.inside[node]) for node in region):
                for node in region:
                    del self.inside[node]
                    self.refused[node] = "no gain: no layer large enough around it"

    def _refuse_in_context(self, one: IntegerNode) -> str | None:
        if one.behaviour is Behaviour.CONVOLUTION:
            return None
        if one.behaviour is Behaviour.PRODUCT:
            if self._dynamic_matmul and not self._reads_integers(one, one.inputs[0]):
                return "quantized at run time: its input is a float tensor"
            return None
        if not all(self._reads_integers(one, value) for value in one.inputs):
            return "an input is a float tensor"
        if not any(self._consumers(one)):
            return "no integer node reads it"
        return None

    def _refuse_weight(self, one: IntegerNode) -> str | None:
        if one.behaviour is Behaviour.CONVOLUTION:
            return refuse_filter_bank(one.node, weight_shape(one), self._target) or (
                self._refuse_narrow(one)
            )
        if one.behaviour is not Behaviour.PRODUCT:
            return None
        shape = weight_shape(one)
        columns = shape[0] if is_set(one.node, "transB") else shape[1]
        if columns < self._target.integer_matrix_min_columns:
            return f"no gain: only {columns} output columns"
        if shape[0] * shape[1] < self._target.integer_matrix_min_elements:
            return f"no gain: only {shape[0] * shape[1]} elements in the matrix"
        return None

    def _refuse_narrow(self, one: IntegerNode) -> str | None:
        shape = weight_shape(one)
        is_grouped = int_attribute(one.node, "group", 1) != 1
        if is_grouped or shape[0] >= self._target.integer_matrix_min_columns:
            return None
        return f"no gain: only {shape[0]} output channels"

    def _reads_integers(self, reader: IntegerNode, value: ir.Value) -> bool:
        one = self._producers.get(value)
        return (
            one is not None
            and one.node in self.inside
            and one.node.graph is reader.node.graph
            and _quantizes_output(one, self.inside)
        )

    def _consumers(self, one: IntegerNode) -> Iterator[IntegerNode]:
        for value in one.outputs:
            for reader, _ in value.uses():
                consumer = self.inside.get(reader)
                if consumer is not None and _links(one, value, consumer):
                    yield consumer

    def _neighbours(self, one: IntegerNode) -> list[ir.Node]:
        found = [consumer.node for consumer in self._consumers(one)]
        for value in one.inputs:
            producer = self._producers.get(value)
            if producer is None:
                continue
            # Whether a product quantizes its output depends on all who read it.
            found += [producer.node, *(each.node for each in self._consumers(producer))]
        return found

    def _connected(self, start: ir.Node) -> list[ir.Node]:
        region, waiting = {start: None}, [start]
        while waiting:
            one = self.inside[waiting.pop()]
            linked = []
            if _quantizes_output(one, self.inside):
                linked += [consumer.node for consumer in self._consumers(one)]
            linked += [
                self._producers[value].node
                for value in one.inputs
                if self._reads_integers(one, value)
            ]
            for node in linked:
                if node not in region:
                    region[node] = None
                    waiting.append(node)
        return list(region)

    def _is_strong(self, one: IntegerNode) -> bool:
        if one.rule.weight_index is None:
            return False
        if one.behaviour is Behaviour.PRODUCT:
            return True
        shape = weight_shape(one)
        channels, reduction = shape[1], math.prod(shape[1:])
        if len(shape) == 3:
            # Along one axis the float kernels have no fast layout: depthwise gains, too.
            return reduction >= self._target.integer_matrix_min_columns
        return channels >= self._target.integer_conv_min_channels or (
            channels > 3 and reduction >= self._target.integer_conv_min_reduction
        )


def _quantizes_output(one: IntegerNode, inside: Mapping[ir.Node, IntegerNode]) -> bool:
    if one.behaviour is not Behaviour.PRODUCT:
        return True
    (value,) = one.outputs
    # The kernel of MatMul can add no bias in integers; what follows it is computed in float.
    if value.is_graph_output():
        return False
    readers = [inside.get(reader) for reader, _ in value.uses()]
    return bool(readers) and all(
        reader is not None and _links(one, value, reader) for reader in readers
    )


def _links(producer: IntegerNode, value: ir.Value, consumer: IntegerNode) -> bool:
    """Whether ``consumer`` reads ``value`` as integers, in the same body."""
    return value in consumer.inputs and producer.node.graph is consumer.node.graph
