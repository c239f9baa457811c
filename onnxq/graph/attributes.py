"""Reading attributes with their defaults.

Inside a model-local function an attribute can refer to one of the caller; its value is not known
here, and nothing that depends on it may be rewritten: see ``has_reference``.
"""

from __future__ import annotations

import onnx_ir as ir


def has_reference(node: ir.Node) -> bool:
    """Whether an attribute of the node gets its value from the caller of a function."""
    return any(attribute.is_ref() for attribute in node.attributes.values())


def int_attribute(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute, or its default."""
    attribute = node.attributes.get(name)
    return default if attribute is None or attribute.is_ref() else attribute.as_int()


def float_attribute(node: ir.Node, name: str, default: float) -> float:
    """A float attribute, or its default."""
    attribute = node.attributes.get(name)
    return default if attribute is None or attribute.is_ref() else attribute.as_float()


def is_set(node: ir.Node, name: str) -> bool:
    """Whether an integer attribute is present and not 0."""
    return int_attribute(node, name, 0) != 0
