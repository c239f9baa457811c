"""Raising the operator set of a model, where a form needs operators that came later."""

from __future__ import annotations

import contextlib
import io

import onnx
import onnx_ir as ir

from onnxq.errors import UnsupportedModelError


def raise_opset(model: ir.Model, version: int, *, where: str) -> ir.Model:
    """The same model in operator set ``version``.

    Args:
        model: is left as it is.
        version: newer than the model's own.
        where: the file, for messages.

    Raises:
        UnsupportedModelError: the converter of onnx cannot do it.
    """
    current = model.opset_imports.get("", 0)
    advice = f"{where}: opset {current} must be raised to {version} for this form"
    if model.functions:
        raise UnsupportedModelError(
            f"{advice}, which onnx cannot do for a model with local functions; "
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
    for name, value in result.graph.initializers.items():
        original = model.graph.initializers.get(name)
        if original is not None and _is_same(original.const_value, value.const_value):
            # The one that knows in which folder its external file is.
            value.const_value = original.const_value
    if len(result.graph.outputs) != len(model.graph.outputs):
        raise UnsupportedModelError(f"{advice}, but the converter of onnx lost outputs")
    return result


def _is_same(one: ir.TensorProtocol | None, other: ir.TensorProtocol | None) -> bool:
    return (
        one is not None
        and other is not None
        and one.dtype == other.dtype
        and one.shape == other.shape
    )
