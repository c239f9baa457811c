"""Recipes: what they write, and that the float model stays as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxq.algorithms.layers import find_layers
from onnxq.algorithms.recipe import apply_recipe
from onnxq.algorithms.rounding import Rounding
from onnxq.apply import Encodings, apply_plan
from onnxq.apply.weights import parameters_of, scheme_of
from onnxq.calibration import resolve_ranges
from onnxq.graph.copies import copy_model
from onnxq.graph.offload import include_weights
from onnxq.graph.scopes import iterate_scopes
from onnxq.numerics.affine import quantize
from onnxq.plan.translate import translate_plan
from tests.algorithms.recipes import make_recipe, run_sweep
from tests.apply.calibrated_models import images, weights
from tests.models import make_model, to_ir

IMAGE = "float[N, 24, 8, 8]"

MODELS = {
    "convolutions": (
        "[a] p = Conv(x, w1) r = Relu(p) [b] q = Conv(r, w2, b2) y = Neg(q)",
        {"w1": (24, 24, 1, 1), "w2": (24, 24, 1, 1), "b2": (24,)},
    ),
    "tied bias": (
        "[a] p = Conv(x, w1, b2) r = Relu(p) [b] q = Conv(r, w2, b2) y = Neg(q)",
        {"w1": (24, 24, 1, 1), "w2": (24, 24, 1, 1), "b2": (24,)},
    ),
    "If": (
        """[a] p = Conv(x, w1) r = Relu(p) c = Constant<value = bool {1}>()
           q = If(c) <then_branch = g1 () => (float t) { t = Conv(r, w2) },
                      else_branch = g2 () => (float e) { e = Neg(r) }> y = Neg(q)""",
        {"w1": (24, 24, 1, 1), "w2": (24, 24, 1, 1)},
    ),
}

every_model = pytest.mark.parametrize("name", MODELS)


def _build(name: str) -> onnx.ModelProto:
    nodes, shapes = MODELS[name]
    return make_model(nodes, f"{IMAGE} x", f"{IMAGE} y", weights(**shapes), opset=21)


def _serialize(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString(deterministic=True)


@every_model
def test_a_recipe_without_changes_writes_what_the_plan_writes(name: str, tmp_path: Path) -> None:
    recipe = make_recipe(_build(name), images(), tmp_path)
    other = make_recipe(_build(name), images(), tmp_path)
    encodings = Encodings()
    encodings.fill(resolve_ranges(other.plan.decisions.activations, other.ranges))
    apply_plan(other.model, other.plan, other.planner.target, encodings, operators=False)
    include_weights(other.model)
    assert _serialize(apply_recipe(recipe)) == _serialize(other.model)


@every_model
def test_the_float_model_is_left_as_it_is(name: str, tmp_path: Path) -> None:
    recipe = make_recipe(_build(name), images(), tmp_path)
    before = _serialize(recipe.model)
    tuned = run_sweep(recipe, images(), Rounding(), tmp_path)
    first = _serialize(apply_recipe(tuned))
    assert _serialize(recipe.model) == before
    assert _serialize(apply_recipe(tuned)) == first


@every_model
def test_a_translated_plan_is_equal_and_is_of_the_copy(name: str, tmp_path: Path) -> None:
    recipe = make_recipe(_build(name), images(), tmp_path)
    copy = copy_model(recipe.model)
    plan = translate_plan(recipe.plan, copy)
    assert plan.to_json() == recipe.plan.to_json()
    scopes = {scope.graph for scope in iterate_scopes(copy.model)}
    for tensor in plan.tensors:
        assert tensor.constant.scope.graph in scopes
        assert all(use.use is None or use.use.node.graph in scopes for use in tensor.uses)
    for node in plan.decisions.nodes:
        assert node.one.node.graph in scopes
        assert all(value.graph in scopes for value in (*node.one.inputs, *node.one.outputs))
    for activation in plan.decisions.activations:
        assert all(value.graph in scopes for value in (activation.value, *activation.members))


@pytest.mark.parametrize("weight", ["int8", "int4"])
def test_chosen_integers_are_those_that_are_written(weight: str, tmp_path: Path) -> None:
    recipe = make_recipe(_build("convolutions"), images(), tmp_path, weights=weight)
    tuned = run_sweep(recipe, images(), Rounding(), tmp_path)
    assert len(tuned.weights) == 2
    written = {one.name: one for one in ir.to_proto(apply_recipe(tuned)).graph.initializer}
    for value, chosen in tuned.weights.items():
        (tensor,) = (one for one in tuned.plan.tensors if one.constant.value is value)
        tensor = replace(tensor, statistics=chosen.statistics)
        low, high = scheme_of(tensor).range
        integers = quantize(
            np.array(chosen.tensor.numpy()),
            parameters_of(tensor),
            quantized_min=low,
            quantized_max=high,
        )
        stored = next(
            ir.from_proto(one).numpy()
            for name, one in written.items()
            if name.startswith(f"{value.name}_") and "scale" not in name and "zero" not in name
        )
        np.testing.assert_array_equal(np.asarray(stored).astype(np.int32), integers)


def test_a_bias_is_changed_for_its_layer_only(tmp_path: Path) -> None:
    recipe = make_recipe(_build("tied bias"), images(), tmp_path)
    first, second = find_layers(recipe.plan, recipe.model.graph)
    assert first.bias_place is not None and second.bias_place is not None
    changed = replace(
        recipe,
        plan=replace(recipe.plan, tensors=(), calibration=None),
        ranges={},
        biases={first.bias_place: np.ones(24, np.float32)},
    )
    graph = ir.to_proto(apply_recipe(changed)).graph
    found = {one.name: ir.from_proto(one).numpy() for one in graph.initializer}
    biases = {one.name: found[one.input[2]] for one in graph.node if one.op_type == "Conv"}
    np.testing.assert_array_equal(biases["a"], np.ones(24))
    np.testing.assert_array_equal(biases["b"], weights(b2=(24,))["b2"])


def test_models_of_tests_hold_a_body() -> None:
    assert len(list(iterate_scopes(to_ir(_build("If"))))) == 3
