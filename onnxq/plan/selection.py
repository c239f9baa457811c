"""Which nodes a user wants quantized."""

from __future__ import annotations

import difflib
import fnmatch
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.errors import SelectorError
from onnxq.graph.scopes import iterate_scopes, node_label


@dataclass(frozen=True)
class Selection:
    """What a user sees of the nodes, and wants of them.

    Made from the model as it was read, so that names and positions are those of the file.

    Attributes:
        labels: of each node: its scope, then its name or its type and position.
        excluded: the nodes that a selector leaves out, each with the selector that does.
    """

    labels: dict[ir.Node, str]
    excluded: dict[ir.Node, str]


def select_nodes(
    model: ir.Model,
    *,
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    op_types: tuple[str, ...] = (),
) -> Selection:
    """Apply the selectors to a model.

    A glob is matched against the name of a node, and against its name with the scope before it.

    Raises:
        SelectorError: a selector matches no node at all.
    """
    names = {
        node: (node_label(node, position), scope.path_of(node_label(node, position)))
        for scope in iterate_scopes(model)
        for position, node in enumerate(scope.graph)
    }
    excluded = _find_excluded(names, include=include, exclude=exclude, op_types=op_types)
    return Selection({node: label for node, (_, label) in names.items()}, excluded)


def name_excluded_nodes(selection: Selection) -> None:
    """Give excluded nodes without a name their label, so that they are known in a copy."""
    for node in selection.excluded:
        node.name = node.name or selection.labels[node]


def follow_nodes(selection: Selection, model: ir.Model) -> Selection:
    """The same selection for a copy of the model: new nodes with the old names."""
    reasons = {node.name: reason for node, reason in selection.excluded.items()}
    labels = select_nodes(model).labels
    excluded = {node: reasons[node.name] for node in labels if node.name in reasons}
    return Selection(labels, excluded)


def _find_excluded(
    names: dict[ir.Node, tuple[str, str]],
    *,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    op_types: tuple[str, ...],
) -> dict[ir.Node, str]:
    for glob in (*include, *exclude):
        _require_match(glob, [name for pair in names.values() for name in pair])
    for op_type in op_types:
        if not any(node.op_type == op_type for node in names):
            known = sorted({node.op_type for node in names})
            raise SelectorError(
                f"--op-types {op_type}: no node of this type; {_nearest(op_type, known)}"
            )
    excluded: dict[ir.Node, str] = {}
    for node, pair in names.items():
        if op_types and node.op_type not in op_types:
            excluded[node] = "left out by --op-types"
        elif include and not any(_matches(glob, pair) for glob in include):
            excluded[node] = "left out by --include"
        else:
            hit = next((glob for glob in exclude if _matches(glob, pair)), None)
            if hit is not None:
                excluded[node] = f"left out by --exclude {hit}"
    return excluded


def _matches(glob: str, names: tuple[str, str]) -> bool:
    return any(fnmatch.fnmatchcase(name, glob) for name in names)


def _require_match(glob: str, names: list[str]) -> None:
    if not any(fnmatch.fnmatchcase(name, glob) for name in names):
        raise SelectorError(f"'{glob}' matches no node; {_nearest(glob, names)}")


def _nearest(wanted: str, names: list[str]) -> str:
    close = difflib.get_close_matches(wanted.strip("*"), list(dict.fromkeys(names)), 3, cutoff=0.0)
    return "nearest names: " + ", ".join(close) if close else "the model has no nodes"
