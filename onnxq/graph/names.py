"""Names for new values and nodes that nothing in the model has yet."""

from __future__ import annotations

import onnx_ir as ir

from onnxq.graph.scopes import iterate_scopes


class Names:
    """Hands out unused names; values and nodes have separate name spaces."""

    def __init__(self, model: ir.Model) -> None:
        self._values: set[str] = set()
        self._nodes: set[str] = set()
        for scope in iterate_scopes(model):
            self._values.update(value.name or "" for value in scope.graph.inputs)
            self._values.update(scope.graph.initializers)
            for node in scope.graph:
                self._nodes.add(node.name or "")
                self._values.update(value.name or "" for value in node.outputs)

    def new_value(self, wanted: str) -> str:
        """``wanted``, or it with the first free number behind it."""
        return _claim(self._values, wanted)

    def new_node(self, wanted: str) -> str:
        """``wanted``, or it with the first free number behind it."""
        return _claim(self._nodes, wanted)


def _claim(taken: set[str], wanted: str) -> str:
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(name)
    return name
