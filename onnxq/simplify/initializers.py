"""Constants in one form: initializers that no caller can override, each small one only once."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir
import onnx_ir.passes.common as passes

FIRST_IR_VERSION_WITH_FREE_INITIALIZERS = 4
SHARED_ELEMENTS = 64


def close_initializers(model: ir.Model, _kept: Collection[ir.Node] = ()) -> None:
    """Take the initializers of a model older than IR version 4 out of its inputs.

    The format wanted them there, so it says nothing about an intention to override them;
    onnxruntime treats them as constants too. Newer models are left as they are.
    """
    if model.ir_version < FIRST_IR_VERSION_WITH_FREE_INITIALIZERS:
        passes.RemoveInitializersFromInputsPass()(model)
        model.ir_version = FIRST_IR_VERSION_WITH_FREE_INITIALIZERS


def lift_constants(model: ir.Model, _kept: Collection[ir.Node] = ()) -> None:
    """Turn Constant nodes into initializers, except in functions, which have none."""
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)


def share_small_constants(model: ir.Model, _kept: Collection[ir.Node] = ()) -> None:
    """Let readers of equal small constants read the same one.

    Exporters write a scalar such as the 6 of a ReLU6 once for each use. The library's pass for
    this stops at subgraph bounds and warns about inputs, so only candidates reach it.
    """
    for graph in model.graphs():
        seen: dict[tuple[ir.DataType, tuple[int, ...], bytes], ir.Value] = {}
        for value in list(graph.initializers.values()):
            tensor = value.const_value
            if tensor is None or tensor.size > SHARED_ELEMENTS or tensor.dtype.is_string():
                continue
            if value.is_graph_input() or value.is_graph_output():
                continue
            key = (tensor.dtype, tuple(tensor.shape.numpy()), tensor.tobytes())
            first = seen.setdefault(key, value)
            if first is not value:
                value.replace_all_uses_with(first)
                graph.initializers.pop(value.name or "")
