"""The float model with copies of the quantized model beside it, in one graph.

The copies read the inputs of the float model, and its constants where they are equal. The float
model keeps its names; nothing of a copy does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from onnxq.graph.constants import add_initializer, constant_tensor, dimensions, release
from onnxq.graph.names import Names
from onnxq.graph.scopes import iterate_bodies

_PREFIX = "onnxq_"


class Twin:
    """The float model, to which parts of the quantized model can be added."""

    def __init__(self, float_model: ir.Model, quantized: ir.Model) -> None:
        """Start with a copy of the float model, without outputs.

        Args:
            float_model: is left as it is; its tensors are shared.
            quantized: likewise; of the same operator set.
        """
        self.model = float_model.clone()
        self.values = _values_by_name(self.model.graph)
        self.model.graph.outputs.clear()
        self._quantized = quantized
        self._names = Names(self.model)
        self._constants: dict[ir.TensorProtocol, ir.Value] = {}
        self._functions: dict[ir.OperatorIdentifier, ir.Function] = {}
        self._merge_imports()

    def copy_quantized(self) -> ir.Graph:
        """A new copy of the quantized model, under its own names; not yet part of the model.

        It has its own inputs and constants until it is connected.
        """
        return self._quantized.clone().graph

    def connect(self, copy: ir.Graph) -> bool:
        """Let a copy read the inputs and the constants of the model.

        Returns:
            Whether the float model has all of its inputs.
        """
        copy.outputs.clear()
        inputs = {one.name: one for one in self.model.graph.inputs}
        self._share_constants(copy)
        for value in copy.inputs:
            if value.name in copy.initializers:
                continue
            if value.name not in inputs:
                return False
            value.replace_all_uses_with(inputs[value.name])
        return True

    def reuse_equal_nodes(self, copy: ir.Graph) -> set[ir.Value]:
        """Let a connected copy read from the float model what both compute from the same values.

        Returns:
            Those outputs of nodes.
        """
        found: set[ir.Value] = set()
        for node in copy:
            if self._is_equal(node):
                for output in node.outputs:
                    if output.name:
                        output.replace_all_uses_with(self.values[output.name])
                        found.add(output)
        return found

    def adopt(self, copy: ir.Graph, wanted: Iterable[ir.Value]) -> None:
        """Make the nodes behind some values of a connected copy part of the model."""
        needed = _find_nodes_behind(copy, wanted)
        copy.remove([node for node in copy if node not in needed], safe=True)
        kept = list(copy)
        copy.remove(kept)
        for node in kept:
            self._rename(node)
        self.model.graph.extend(kept)

    def append(
        self, operator: str, inputs: Sequence[ir.Value | None], **attributes: int
    ) -> ir.Value:
        """A new node at the end of the model; returns its output."""
        node = ir.node(operator, list(inputs), attributes=attributes)
        node.outputs[0].name = self._names.new_value(f"{_PREFIX}{operator}")
        self.model.graph.append(node)
        return node.outputs[0]

    def add_numbers(self, numbers: Sequence[int]) -> ir.Value:
        """A constant list of integers."""
        name = self._names.new_value(f"{_PREFIX}numbers")
        tensor = ir.Tensor(np.array(numbers, np.int64))
        return add_initializer(self.model.graph, tensor, name)

    def expose(self, value: ir.Value) -> str:
        """Make a value an output; returns its name."""
        self.model.graph.outputs.append(value)
        return value.name or ""

    def finish(self) -> ir.Model:
        """The model, in an order that can be run, without constants that nothing reads."""
        graph = self.model.graph
        graph.sort()
        for name, value in list(graph.initializers.items()):
            if not value.uses() and not value.is_graph_input():
                del graph.initializers[name]
        return self.model

    def _merge_imports(self) -> None:
        """Take over the operator sets and the functions of the quantized model."""
        imports = self.model.graph.opset_imports
        for domain, version in self._quantized.opset_imports.items():
            imports[domain] = max(version, imports.get(domain, 0))
        for name in {one.domain for one in self._quantized.functions.values()}:
            imports[f"{_PREFIX}{name}"] = imports.get(name, 1)
        self.model.ir_version = max(self.model.ir_version, self._quantized.ir_version)
        for identifier, function in self._quantized.clone().functions.items():
            function.domain = f"{_PREFIX}{function.domain}"
            self._functions[identifier] = function
            for domain in list(function.opset_imports):
                if any(other[0] == domain for other in self._quantized.functions):
                    function.opset_imports[f"{_PREFIX}{domain}"] = 1
        for function in self._functions.values():
            for node in function.all_nodes():
                self._redirect(node)
            self.model.functions[function.identifier()] = function

    def _redirect(self, node: ir.Node) -> None:
        """Call the function of the quantized model, not the one of the float model."""
        if node.op_identifier() in self._functions:
            node.domain = f"{_PREFIX}{node.domain}"

    def _share_constants(self, graph: ir.Graph) -> None:
        """Have constants of a graph and of the bodies in it once, however many copies there are."""
        for value in list(graph.initializers.values()):
            if value.const_value is None:
                continue
            shared = self._share(value.const_value, value.name or "")
            if value.is_graph_output():
                # A body can only give what is its own.
                node = ir.node("Identity", [shared], name="constant")
                node.outputs[0].name = f"{value.name}_output"
                graph.append(node)
                shared = node.outputs[0]
            value.replace_all_uses_with(shared, replace_graph_outputs=True)
            if not value.is_graph_input():
                del graph.initializers[value.name or ""]
        for node in graph:
            for _, body in iterate_bodies(node):
                self._share_constants(body)

    def _share(self, tensor: ir.TensorProtocol, name: str) -> ir.Value:
        """The one value of the model for a constant of the quantized model."""
        if tensor not in self._constants:
            other = self.values.get(name)
            original = None if other is None else other.const_value or constant_tensor(other)
            if other is not None and original is not None and _is_equal_tensor(tensor, original):
                self._constants[tensor] = other
            else:
                new_name = self._names.new_value(f"{_PREFIX}{name}")
                self._constants[tensor] = add_initializer(self.model.graph, tensor, new_name)
        return self._constants[tensor]

    def _is_equal(self, node: ir.Node) -> bool:
        """Whether the float model has a node that does the same with the same values."""
        outputs = [one for one in node.outputs if one.name]
        others = [self.values.get(one.name or "") for one in outputs]
        other = others[0].producer() if others and others[0] is not None else None
        return (
            other is not None
            and all(
                twin is not None and twin.producer() is other and twin.index() == one.index()
                for one, twin in zip(outputs, others, strict=True)
            )
            and other.op_identifier() == node.op_identifier()
            and node.op_identifier() not in self._functions
            and len(node.inputs) == len(other.inputs)
            and all(one is twin for one, twin in zip(node.inputs, other.inputs, strict=True))
            and node.attributes.keys() == other.attributes.keys()
            and all(
                _is_equal_attribute(one, other.attributes[name])
                for name, one in node.attributes.items()
            )
        )

    def _rename(self, node: ir.Node) -> None:
        """New names for a node and its outputs, and for everything in its bodies."""
        node.name = self._names.new_node(f"{_PREFIX}{node.name or node.op_type}")
        self._redirect(node)
        values = list(node.outputs)
        for _, body in iterate_bodies(node):
            values += list(body.inputs)
            for inner in body:
                self._rename(inner)
        for value in dict.fromkeys(values):
            if value.name:
                value.name = self._names.new_value(f"{_PREFIX}{value.name}")


def _values_by_name(graph: ir.Graph) -> dict[str, ir.Value]:
    values = [*graph.inputs, *graph.initializers.values()]
    values += [value for node in graph for value in node.outputs]
    return {value.name: value for value in values if value.name}


def _find_nodes_behind(graph: ir.Graph, wanted: Iterable[ir.Value]) -> set[ir.Node]:
    found: set[ir.Node] = set()
    waiting = list(wanted)
    while waiting:
        node = waiting.pop().producer()
        if node is not None and node.graph is graph and node not in found:
            found.add(node)
            waiting += _read_values(node)
    return found


def _read_values(node: ir.Node) -> list[ir.Value]:
    """Inputs of a node, and what its bodies read, also from around them."""
    values = [value for value in node.inputs if value is not None]
    for _, body in iterate_bodies(node):
        values += list(body.outputs)
        for inner in body:
            values += _read_values(inner)
    return values


def _is_equal_attribute(one: ir.Attr, other: ir.Attr) -> bool:
    if one.type == other.type == ir.AttributeType.TENSOR and not one.is_ref():
        return not other.is_ref() and _is_equal_tensor(one.as_tensor(), other.as_tensor())
    return one == other


def _is_equal_tensor(one: ir.TensorProtocol, other: ir.TensorProtocol) -> bool:
    if one.dtype != other.dtype or dimensions(one) != dimensions(other):
        return False
    is_equal = np.array_equal(one.numpy(), other.numpy())
    release(one)
    release(other)
    return is_equal
