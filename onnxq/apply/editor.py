"""Editing: new nodes and constants with unused names, in the right body and at the right place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxq.graph.constants import Constant, add_initializer
from onnxq.graph.names import Names
from onnxq.graph.scopes import Scope, iterate_scopes
from onnxq.rules.roles import MICROSOFT
from onnxq.simplify.unused import remove_unused


class Editor:
    """Edits one model."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.names = Names(model)
        self._scopes = {scope.graph: scope for scope in iterate_scopes(model)}
        self._shared: dict[tuple[object, ...], ir.Value] = {}
        self._uses_contrib: set[ir.Graph] = set()

    def scope_of(self, node: ir.Node) -> Scope:
        """The body that a node is in."""
        graph = node.graph
        if isinstance(graph, ir.Function):
            graph = graph.graph
        if not isinstance(graph, ir.Graph):
            raise ValueError(f"node '{node.name}' is in no graph")
        return self._scopes[graph]

    def add_node(
        self,
        before: ir.Node,
        operator: str,
        inputs: Sequence[ir.Value | None],
        *,
        name: str,
        attributes: dict[str, Any] | None = None,
        domain: str = "",
        outputs: int = 1,
    ) -> tuple[ir.Value, ...]:
        """Insert a node before another one; returns its outputs."""
        node = self._make_node(operator, inputs, name, attributes, domain, outputs)
        graph = self.scope_of(before).graph
        graph.insert_before(before, node)
        if domain == MICROSOFT:
            self._uses_contrib.add(graph)
        return tuple(node.outputs)

    def add_node_after(
        self, after: ir.Node, operator: str, inputs: Sequence[ir.Value | None], *, name: str
    ) -> tuple[ir.Value, ...]:
        """Insert a standard node right behind another one; returns its outputs."""
        node = self._make_node(operator, inputs, name, None, "", 1)
        self.scope_of(after).graph.insert_after(after, node)
        return tuple(node.outputs)

    def add_node_at_start(
        self,
        scope: Scope,
        operator: str,
        inputs: Sequence[ir.Value | None],
        *,
        name: str,
        attributes: dict[str, Any] | None = None,
        after: ir.Node | None = None,
    ) -> ir.Value:
        """Insert a node before all others of a body, or right after one at its start.

        The runtime computes these nodes away when it loads the model. Their names are the short
        ones that onnx-ir gives: in a model of many small weights, speaking ones would take a tenth
        of the file.
        """
        node = self._make_node(operator, inputs, name, attributes, "", 1)
        node.name = None
        if after is not None:
            scope.graph.insert_after(after, node)
        else:
            first = next(iter(scope.graph), None)
            if first is None:
                scope.graph.append(node)
            else:
                scope.graph.insert_before(first, node)
        return node.outputs[0]

    def add_constant(self, scope: Scope, tensor: ir.TensorProtocol, *, name: str) -> ir.Value:
        """A new constant: an initializer, or a Constant node where a function has none."""
        unique = self.names.new_value(name)
        if scope.has_initializers:
            return add_initializer(scope.graph, tensor, unique)
        tensor.name = unique
        value = self.add_node_at_start(
            scope, "Constant", (), name=unique, attributes={"value": tensor}
        )
        value.name = unique
        return value

    def add_lazily(
        self,
        scope: Scope,
        compute: Callable[[], np.ndarray[Any, Any]],
        dtype: ir.DataType,
        shape: Sequence[int],
        *,
        name: str,
    ) -> ir.Value:
        """A new constant whose elements are computed each time that the model is written."""
        tensor = ir.LazyTensor(lambda: ir.Tensor(compute()), dtype=dtype, shape=ir.Shape(shape))
        return self.add_constant(scope, tensor, name=name)

    def add_array(self, scope: Scope, array: np.ndarray[Any, Any], *, name: str) -> ir.Value:
        """A small new constant."""
        return self.add_constant(scope, ir.Tensor(array), name=name)

    def share_array(self, scope: Scope, array: np.ndarray[Any, Any], *, name: str) -> ir.Value:
        """A small constant that every caller with the same content gets.

        It is in the main graph, which all bodies see, or in the body of a function, which sees
        nothing else.
        """
        home = self._scopes[self.model.graph if scope.function is None else scope.function.graph]
        key = (home.graph, str(array.dtype), array.shape, array.tobytes())
        if key not in self._shared:
            self._shared[key] = self.add_array(home, array, name=name)
        return self._shared[key]

    def cast(self, before: ir.Node, value: ir.Value, dtype: ir.DataType, *, name: str) -> ir.Value:
        """``value`` as another type."""
        return self.add_node(before, "Cast", (value,), name=name, attributes={"to": int(dtype)})[0]

    def replace(self, node: ir.Node, values: Sequence[ir.Value]) -> None:
        """Put ``values`` in the place of the outputs of ``node`` and remove it."""
        old = list(node.outputs[: len(values)])
        for before, after in zip(old, values, strict=True):
            after.name, after.shape, after.type = before.name, before.shape, before.type
        ir.convenience.replace_all_uses_with(old, list(values), replace_graph_outputs=True)
        self.scope_of(node).graph.remove(node, safe=True)

    def succeed(self, node: ir.Node, values: Sequence[ir.Value]) -> None:
        """Like ``replace``, by the outputs of one node, which takes over the name too."""
        successor, name = values[0].producer(), node.name
        self.replace(node, values)
        if successor is not None:
            successor.name = name

    def take_over_name(self, constant: Constant, value: ir.Value) -> None:
        """Remove a constant that nothing reads, and give its name to what stands for it now."""
        old = constant.value
        name, producer, graph = old.name, old.producer(), constant.scope.graph
        if producer is not None:
            graph.remove(producer, safe=True)
            old.name = None
        else:
            graph.initializers.pop(name or "")
        value.name = name

    def finish(self) -> None:
        """Remove what nothing reads any more, and import the domains that are used now."""
        remove_unused(self.model)
        for graph in self._uses_contrib:
            function = self._scopes[graph].function
            if function is not None:
                function.opset_imports.setdefault(MICROSOFT, 1)
            self.model.opset_imports.setdefault(MICROSOFT, 1)

    def _make_node(
        self,
        operator: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        attributes: dict[str, Any] | None,
        domain: str,
        outputs: int,
    ) -> ir.Node:
        node = ir.node(
            operator,
            list(inputs),
            attributes=attributes or {},
            domain=domain,
            num_outputs=outputs,
            name=self.names.new_node(name),
        )
        suffixes = ("",) if outputs == 1 else tuple(f"_{index}" for index in range(outputs))
        for value, suffix in zip(node.outputs, suffixes, strict=True):
            value.name = self.names.new_value(f"{name}{suffix}")
        return node
