"""Raising the operator set of a model, where a form needs operators that came later."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from onnxq.errors import UnsupportedModelError
from onnxq.graph.copies import ModelCopy, copy_model
from onnxq.graph.files import iterate_external_tensors
from onnxq.graph.scopes import Scope, iterate_scopes

BATCHLESS_SCAN_OPSET = 9
"""Up to 8 a Scan has a batch axis, which onnx 1.23 leaves in its inputs but not in its body."""


def raise_opset(model: ir.Model, version: int, *, path: Path) -> ir.Model:
    """The same model in operator set ``version``.

    Args:
        model: is left as it is.
        version: newer than the model's own.
        path: of its file, beside which its external data is.

    Raises:
        UnsupportedModelError: the converter of onnx cannot do it.
    """
    current = model.opset_imports.get("", 0)
    advice = f"{path}: opset {current} must be raised to {version} for this form"
    if model.functions:
        raise UnsupportedModelError(
            f"{advice}, which onnx cannot do for a model with local functions; "
            f"export it with opset {version} or newer"
        )
    if current < BATCHLESS_SCAN_OPSET <= version and any(
        node.op_type == "Scan" for node in model.graph.all_nodes()
    ):
        raise UnsupportedModelError(
            f"{advice}, which onnx cannot do for Scan, which had a batch axis up to opset 8; "
            f"export it with opset {version} or newer"
        )
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            converted = onnx.version_converter.convert_version(ir.to_proto(model), version)
        result = ir.from_proto(converted)
    except Exception as error:  # the converter raises whatever its C++ code throws
        raise UnsupportedModelError(
            f"{advice}, but onnx cannot convert it ({error}); "
            f"export it with opset {version} or newer"
        ) from error
    for tensor in iterate_external_tensors(result):
        tensor.base_dir = path.resolve().parent
    if len(result.graph.outputs) != len(model.graph.outputs):
        raise UnsupportedModelError(f"{advice}, but the converter of onnx lost outputs")
    return result


def raise_copy(model: ir.Model, version: int, *, path: Path) -> ModelCopy:
    """A copy in operator set ``version`` or newer, with the counterpart of everything in the model.

    Args:
        model: whose constants are initializers; is left as it is. The copy shares its tensors.
        version: to raise it to, if its own is older.
        path: of its file, for messages.

    Raises:
        UnsupportedModelError: the converter of onnx cannot do it, or replaces nodes.
    """
    copy = copy_model(model)
    if model.opset_imports.get("", 0) >= version:
        return copy
    originals = {f"onnxq_{at}": node for at, node in enumerate(copy.nodes)}
    for name, node in originals.items():
        copy.nodes[node].name = name
    raised = raise_opset(copy.model, version, path=path)
    # Attributes that became inputs.
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(raised)
    found = {node.name or "": node for scope in iterate_scopes(raised) for node in scope.graph}
    if not originals.keys() <= found.keys():
        raise UnsupportedModelError(
            f"{path}: onnx replaces nodes to raise it to opset {version}; "
            f"export it with opset {version} or newer"
        )
    nodes = {node: found[name] for name, node in originals.items()}
    for node, twin in nodes.items():
        twin.name = node.name
    scopes = dict(zip(copy.scopes, iterate_scopes(raised), strict=True))
    return ModelCopy(raised, scopes, nodes, dict(_pair_values(scopes, nodes)))


def _pair_values(
    scopes: Mapping[ir.Graph, Scope], nodes: Mapping[ir.Node, ir.Node]
) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Values of a model and those of its converted form, which get what is known of the former."""
    pairs: list[tuple[ir.Value, ir.Value]] = []
    for graph, scope in scopes.items():
        pairs += zip(graph.inputs, scope.graph.inputs, strict=True)
        for name, value in graph.initializers.items():
            twin = scope.graph.initializers[name]
            # Of external data the converter knows the file, and not its folder.
            twin.const_value = value.const_value
            pairs.append((value, twin))
    for node, other in nodes.items():
        pairs += zip(node.outputs, other.outputs, strict=True)
    for value, twin in pairs:
        twin.type = value.type
        twin.shape = None if value.shape is None else value.shape.copy()
        yield value, twin
