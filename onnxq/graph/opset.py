"""Raising the operator set of a model, where a form needs operators that came later."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import onnx
import onnx_ir as ir

from onnxq.errors import UnsupportedModelError
from onnxq.graph.files import iterate_external_tensors

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
