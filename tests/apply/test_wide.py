"""Layers in 16 bits between layers in 8: what is written, and what it computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxq.algorithms.recipe import Recipe, apply_recipe
from tests.algorithms.recipes import make_recipe, run_exactly
from tests.apply.calibrated_models import IMAGE, images, weights
from tests.apply.quantized import iterate_graphs
from tests.models import make_model
from tests.plan.planning import ONNX

Array = npt.NDArray[np.float32]

LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")

CHAIN = """[a] p = Conv(x, w1, b1) pr = Relu(p) [b] q = Conv(pr, w2, b2) qr = Relu(q)
           [c] r = Conv(qr, w3, b3) rr = Relu(r) y = Neg(rr)"""
"""Three layers."""

FORK = """[a] p = Conv(x, w1, b1) [b] q = Conv(p, w2, b2) [c] r = Conv(p, w3, b3) [n] n = Neg(p)
          m = Max(q, r) y = Add(m, n)"""
"""One tensor with readers of 8 bits, of 16 and of floats."""

SKIP = """[a] p = Conv(x, w1, b1) [b] q = Conv(p, w2, b2) [sum] s = Add(p, q)
          [c] r = Conv(s, w3, b3) y = Neg(r)"""
"""Both inputs of the sum come from layers, which may have different types."""

BRANCH = """[a] p = Conv(x, w1, b1) z = ReduceMax<keepdims = 0>(p) c = Greater(z, zero)
            y = If (c) <then_branch = one () => (float[N, 24, 8, 8] t)
                {[b] q = Conv(p, w2, b2) [c] r = Conv(q, w3, b3) t = Neg(r)},
                else_branch = two () => (float[N, 24, 8, 8] f) {f = Identity(p)}>"""
"""A layer in a body that reads what the main graph computes."""


def _model(nodes: str) -> onnx.ModelProto:
    names = (*(f"w{at}" for at in (1, 2, 3)), *(f"b{at}" for at in (1, 2, 3)))
    constants = weights(**{name: (24, 24, 1, 1) if name[0] == "w" else (24,) for name in names})
    extra = {"zero": np.float32(0)} if "zero" in nodes else {}
    return make_model(nodes, f"{IMAGE} x", f"{IMAGE} y", {**constants, **extra}, opset=21)


def _recipe(nodes: str, wide: Sequence[str], folder: Path) -> Recipe:
    recipe = make_recipe(_model(nodes), images(), folder, target=ONNX)
    named = {node.name: node for node in recipe.model.graph.all_nodes()}
    planner = recipe.planner.widen(named[name] for name in wide)
    return replace(recipe, planner=planner, plan=planner.plan(), wide_ranges=recipe.ranges)


def _quantize(nodes: str, wide: Sequence[str], folder: Path) -> onnx.ModelProto:
    model = apply_recipe(_recipe(nodes, wide, folder))
    model.ir_version = 10
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for graph in iterate_graphs(model) for node in graph.node]


def _types_before(model: onnx.ModelProto, layer: str, index: int = 0) -> list[str]:
    """The types that what a node reads was rounded to, the last one first."""
    makers = {name: node for node in _nodes(model) for name in node.output}
    constants = {one.name: one for graph in iterate_graphs(model) for one in graph.initializer}
    (node,) = (one for one in _nodes(model) if one.name == layer)
    found = []
    while (maker := makers.get(node.input[index])) is not None:
        if maker.op_type == "DequantizeLinear":
            zero_point = numpy_helper.to_array(constants[maker.input[2]])
            found.append(zero_point.dtype.name)
        elif maker.op_type != "QuantizeLinear":
            break
        node, index = maker, 0
    return found


@pytest.mark.parametrize(
    ("nodes", "wide", "expected"),
    [
        (CHAIN, ["b"], {"a": ["uint8"], "b": ["uint16", "uint8"], "c": ["uint8", "uint16"]}),
        (CHAIN, ["a"], {"a": ["uint16"], "b": ["uint8", "uint16"], "c": ["uint8"]}),
        (CHAIN, ["b", "c"], {"b": ["uint16", "uint8"], "c": ["uint16"]}),
        (FORK, ["b"], {"b": ["uint16", "uint8"], "c": ["uint8"]}),
        (FORK, ["a", "c"], {"a": ["uint16"], "b": ["uint8", "uint16"], "c": ["uint16"]}),
        (SKIP, ["b"], {"b": ["uint16", "uint8"], "sum": ["uint8"], "c": ["uint8"]}),
        (SKIP, ["sum", "c"], {"b": ["uint8"], "sum": ["uint16", "uint8"], "c": ["uint16"]}),
        (BRANCH, ["b"], {"b": ["uint16", "uint8"], "c": ["uint8", "uint16"]}),
    ],
    ids=["middle", "first", "end", "fork", "fork-wide", "skip", "sum", "branch"],
)
def test_every_node_reads_its_own_type(
    nodes: str, wide: list[str], expected: dict[str, list[str]], tmp_path: Path
) -> None:
    model = _quantize(nodes, wide, tmp_path)
    assert {name: _types_before(model, name) for name in expected} == expected
    weight_types = {name: _types_before(model, name, 1) for name in expected if name != "sum"}
    assert weight_types == {
        name: ["int16" if name in wide else "int8"] for name in expected if name != "sum"
    }


def test_the_second_input_of_a_sum_comes_from_a_layer_of_the_other_width(tmp_path: Path) -> None:
    model = _quantize(SKIP, ["b"], tmp_path)
    assert _types_before(model, "sum", 1) == ["uint8", "uint16"]


def test_readers_of_the_same_width_share_one_pair(tmp_path: Path) -> None:
    model = _quantize(FORK, ["b", "c"], tmp_path)
    inputs = {one.name: one.input[0] for one in model.graph.node if one.name in ("b", "c")}
    assert inputs["b"] == inputs["c"]
    assert _types_before(model, "b") == ["uint16", "uint8"]
    # Floats read what the layer before gives, not a copy in another type.
    assert _types_before(model, "n") == ["uint8"]


@pytest.mark.parametrize("nodes", [CHAIN, FORK, SKIP, BRANCH], ids=["chain", "fork", "skip", "if"])
def test_every_level_of_optimisation_computes_the_same(nodes: str, tmp_path: Path) -> None:
    """onnxruntime does not melt two pairs of different types into one."""
    model = _quantize(nodes, ["b"], tmp_path)
    feeds = images(1)[0]
    found = [np.asarray(ReferenceEvaluator(model).run(None, feeds)[0])]
    for level in LEVELS:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # the others would spin
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        found.append(session.run(None, feeds)[0])
    # Kernels round a few sums that are half way to another step of 8 bits.
    exact = run_exactly(_model(nodes), feeds, ["y"])[0]
    errors = [float(np.sqrt(np.square(one - exact).mean())) for one in found]
    for one in found[1:]:
        assert float(np.sqrt(np.square(one - found[0]).mean())) < 0.2 * max(errors)
    assert max(errors) < 1.1 * min(errors)


def _look_into(model: onnx.ModelProto, names: Sequence[str]) -> list[Array]:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    return run_exactly(copy, images(1)[0], names)


def _scale_of(model: onnx.ModelProto, output: str) -> float:
    (node,) = (one for one in model.graph.node if output in one.output)
    constants = {one.name: one for one in model.graph.initializer}
    return float(numpy_helper.to_array(constants[node.input[1]]))


def _errors_of_b(model: onnx.ModelProto) -> tuple[Array, Array]:
    """How far the middle layer is from float on what it is handed, and how far it can be.

    - What it reads is off by half a step.
    - Its weights are off by a step, as rounding keeps the sums of channels.
    - Its bias is off by half of the product of both steps.
    - What it gives is off by half a step where it does not saturate.
    """
    nodes = {name: one for one in model.graph.node for name in (one.name, *one.output)}
    layer = nodes["b"]
    first = next(one for one in model.graph.node if one.input[0] == "pr")
    handed = next(one for one in model.graph.node if one.input[0] == first.output[0]).output[0]
    behind = next(one for one in model.graph.node if one.input[0] == "qr")
    last = next(one for one in model.graph.node if one.input[0] == behind.output[0])
    v, read, found = _look_into(model, [handed, layer.input[0], last.output[0]])
    integers = _look_into(model, [behind.output[0]])[0]
    constants = {one.name: one for one in model.graph.initializer}
    weight_scale = numpy_helper.to_array(constants[nodes[layer.input[1]].input[1]])
    floats = {one.name: numpy_helper.to_array(one) for one in _model(CHAIN).graph.initializer}
    matrix = floats["w2"][:, :, 0, 0].astype(np.float64)
    expected = np.maximum(
        np.einsum("oi,nihw->nohw", matrix, v) + floats["b2"].reshape(1, -1, 1, 1), 0.0
    )
    half = _scale_of(model, layer.input[0]) / 2
    # An end of the range of 8 bits can lie outside of that of 16, where it is clipped.
    off = np.maximum(half, np.abs(v - read))
    bound = np.einsum("oi,nihw->nohw", np.abs(matrix), off)
    scales = weight_scale.reshape(1, -1, 1, 1).astype(np.float64)
    bound = bound + scales * np.abs(read).sum(axis=1, keepdims=True) + scales * half
    bound = bound + _scale_of(model, last.output[0]) / 2
    inside = integers < np.iinfo(integers.dtype).max
    return np.abs(found - expected)[inside], (bound * (1 + 1e-5) + 1e-6)[inside]


def test_a_wide_layer_is_as_exact_as_its_steps(tmp_path: Path) -> None:
    wide, bound = _errors_of_b(_quantize(CHAIN, ["b"], tmp_path))
    narrow, narrow_bound = _errors_of_b(_quantize(CHAIN, [], tmp_path))
    assert (wide <= bound).all()
    assert (narrow <= narrow_bound).all()
    # Not only is it within a bound: what 8 bits do is beyond it.
    assert bound.max() < narrow.max()


def test_wide_weights_are_rounded_from_floats(tmp_path: Path) -> None:
    recipe = _recipe(CHAIN, ["b"], tmp_path)
    model = ir.to_proto(apply_recipe(recipe))
    (node,) = (one for one in model.graph.node if one.name == "b")
    (back,) = (one for one in model.graph.node if node.input[1] in one.output)
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    integers, scale = constants[back.input[0]], constants[back.input[1]]
    steps = recipe.model.graph.initializers["w2"].const_value
    assert steps is not None
    float_steps = steps.numpy() / scale.reshape(-1, 1, 1, 1)
    assert integers.dtype == np.int16
    assert np.abs(integers - float_steps).max() < 1.0
    assert np.abs(integers).max() == 32767
