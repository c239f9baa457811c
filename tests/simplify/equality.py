"""Whether a simplified model computes the same, for tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime

from tests.models import to_ir

Feeds = Mapping[str, npt.NDArray[Any]]


def run(model: onnx.ModelProto, feeds: Feeds) -> list[npt.NDArray[Any]]:
    """The outputs of a model, without any optimisation of the runtime."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, dict(feeds)))


def change(model: onnx.ModelProto, *steps: Callable[[ir.Model], None]) -> onnx.ModelProto:
    """The model after ``steps``; it passes the checker and keeps its inputs and outputs."""
    changed = to_ir(model)
    for step in steps:
        step(changed)
    proto = ir.to_proto(changed)
    if all(one.type.tensor_type.HasField("shape") for one in model.graph.output):
        onnx.checker.check_model(proto)
    else:  # the checker wants the shapes that the models of tests leave out where they can
        onnx.checker.check_model(onnx.shape_inference.infer_shapes(proto))
    assert [one.name for one in proto.graph.output] == [one.name for one in model.graph.output]
    return proto


def assert_equal(before: onnx.ModelProto, after: onnx.ModelProto, feeds: Feeds) -> None:
    """The same bits from both models."""
    expected, actual = run(before, feeds), run(after, feeds)
    for one, other in zip(expected, actual, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert np.array_equal(one, other)


def operators(model: onnx.ModelProto) -> list[str]:
    """The types of the nodes of the main graph, in order."""
    return [node.op_type for node in model.graph.node]
