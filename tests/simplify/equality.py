"""Whether a simplified model computes the same, for tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime

from tests.models import to_ir

Feeds = Mapping[str, npt.NDArray[Any]]

UNIT_ROUNDOFF = 2.0**-24


def run(model: onnx.ModelProto, feeds: Feeds) -> list[npt.NDArray[Any]]:
    """The outputs of a model, without any optimisation of the runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the others would spin
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


def assert_close(
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    feeds: Feeds,
    *,
    sizes: onnx.ModelProto,
    terms: int,
) -> None:
    """The same up to the rounding of float32.

    Both compute sums of ``terms`` products, and of what up to a dozen more operations make of them:
    every term is rounded at most ``terms`` + 16 times, so each result is off by as many unit
    roundoffs of the sum of the sizes of the terms, which is what ``sizes`` gives: the same model
    without a minus. Half as much again covers that bound's own rounding and the second order.
    """
    expected, actual = run(before, feeds), run(after, feeds)
    bounds = run(sizes, {name: np.abs(array) for name, array in feeds.items()})
    for one, other, size in zip(expected, actual, bounds, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert np.all(np.abs(one - other) <= 1.5 * 2 * (terms + 16) * UNIT_ROUNDOFF * size)


def operators_in_runtime(model: onnx.ModelProto, folder: Path) -> list[str]:
    """The types of the nodes that the basic optimisations of the runtime leave, in order."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the others would spin
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return operators(onnx.load(str(folder / "optimized.onnx")))


def operators(model: onnx.ModelProto) -> list[str]:
    """The types of the nodes of the main graph, in order."""
    return [node.op_type for node in model.graph.node]
