"""Smoothing: the function stays, outliers do less harm, and a division is free where it can be."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxq.algorithms.recipe import Recipe, apply_recipe
from onnxq.algorithms.smoothing import observe_channels, smooth
from onnxq.graph.offload import include_weights
from onnxq.numerics.metrics import sqnr_db
from tests.algorithms.recipes import Array, Feeds, make_recipe, run_exactly
from tests.apply.calibrated_models import weights
from tests.models import make_model

SIZE = 96
NORMALIZED = "n = LayerNormalization(x, gain, shift)"
IN_PIECES = """m = ReduceMean<keepdims = 1>(x, last) c = Sub(x, m) q = Mul(c, c)
v = ReduceMean<keepdims = 1>(q, last) d = Sqrt(v) e = Div(c, d) g = Mul(e, gain)
n = Add(g, shift)"""
PRODUCTS = "[a] h = MatMul(n, w1) [b] k = MatMul(n, w2) s = Add(h, k) y = Neg(s)"
RESIDUAL = "[a] h = MatMul(n, w1) t = Tanh(n) s = Add(h, t) y = Neg(s)"


def _build(nodes: str) -> onnx.ModelProto:
    """A gain that makes some channels a hundred times as large as others, which count as much."""
    constants = weights(w1=(SIZE, SIZE), w2=(SIZE, SIZE), shift=(SIZE,))
    constants["gain"] = np.where(np.arange(SIZE) % 32 == 3, 100.0, 1.0).astype(np.float32)
    for name in ("w1", "w2"):
        constants[name] /= constants["gain"][:, None]
    constants["last"] = np.array([-1])
    words = re.findall(r"\w+", nodes)
    used = {name: one for name, one in constants.items() if name in words}
    return make_model(nodes, f"float[N, {SIZE}] x", f"float[N, {SIZE}] y", used, opset=21)


def _samples(count: int = 4) -> list[Feeds]:
    rng = np.random.default_rng(5)
    return [{"x": rng.standard_normal((16, SIZE)).astype(np.float32)} for _ in range(count)]


def _smooth(
    model: onnx.ModelProto,
    folder: Path,
    *,
    alpha: float | None = 0.7,
    dynamic_matmul: bool = False,
) -> tuple[Recipe, Recipe]:
    recipe = make_recipe(model, _samples(), folder, dynamic_matmul=dynamic_matmul)
    found = observe_channels(recipe, _samples(), folder / "channels.onnx")
    return recipe, smooth(recipe, found, alpha, folder / "smoothed")


def _run(model: ir.Model) -> Array:
    (found,) = run_exactly(ir.to_proto(model), _samples(5)[4], ["y"])
    return found


@pytest.mark.parametrize("alpha", [0.7, None], ids=str)
@pytest.mark.parametrize(
    ("nodes", "divisions"),
    [
        (f"{NORMALIZED} {PRODUCTS}", 0),
        (f"n = LayerNormalization(x, gain) {PRODUCTS}", 0),
        (f"{IN_PIECES} {PRODUCTS}", 0),
        (f"n = Mul(gain, x) {PRODUCTS}", 0),
        (f"{NORMALIZED} {RESIDUAL}", 1),
        (f"g = Mul(x, gain) n = Gelu(g) {PRODUCTS}", 1),
        (f"g = Mul(x, gain) u = Neg(g) n = Add(g, shift) o = Add(u, n) {PRODUCTS}", 1),
    ],
    ids=["norm", "norm-no-bias", "pieces", "mul", "residual", "gelu", "read-before-the-shift"],
)
def test_function_stays_and_outliers_matter_less(
    nodes: str, divisions: int, alpha: float | None, tmp_path: Path
) -> None:
    model = _build(nodes)
    before, after = _smooth(model, tmp_path, alpha=alpha)
    expected = _run(ir.from_proto(model))
    written = apply_recipe(after)
    include_weights(after.model)
    # Each factor is rounded twice and multiplied once more: a few units of the last place of sums.
    np.testing.assert_allclose(
        _run(after.model), expected, rtol=0, atol=2e-5 * np.abs(expected).max()
    )
    added = len(list(after.model.graph)) - len(list(before.model.graph))
    assert added == divisions
    gain_db = sqnr_db(expected, _run(written)) - sqnr_db(expected, _run(apply_recipe(before)))
    assert gain_db > 3.0


def test_a_weight_that_looks_spoiled_afterwards_stays_integer(tmp_path: Path) -> None:
    """What moves into the weights is most of their power, but not most of what they give."""
    model = _build(f"{NORMALIZED} [a] h = MatMul(n, w1) y = Neg(h)")
    (weight,) = (one for one in model.graph.initializer if one.name == "w1")
    elements = onnx.numpy_helper.to_array(weight).copy()
    # One output is little else than a large channel.
    elements[3, 0] = 20.0
    weight.CopyFrom(onnx.numpy_helper.from_array(elements, "w1"))
    recipe, smoothed = _smooth(model, tmp_path, dynamic_matmul=True)
    assert len(recipe.plan.integer_layers) == 1
    assert len(smoothed.plan.integer_layers) == 1
    predicted = replace(smoothed.planner, judged_on_samples=frozenset()).plan()
    assert not predicted.integer_layers, "by its scales alone it would be fp16"
    (told,) = (one for one in smoothed.plan.changes if one.best_form.is_integer)
    assert told.reason.startswith("judged on samples")
    expected = _run(ir.from_proto(model))
    errors = [expected - _run(apply_recipe(one)) for one in (recipe, smoothed)]
    before, after = (np.abs(error[:, 1:]).mean() for error in errors)
    assert after < 0.5 * before
