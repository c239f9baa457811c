"""Transposed convolutions as layers: their rows, their weights as matrices, and what is tuned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxq.algorithms.layers import Layer, find_layers
from onnxq.algorithms.recipe import Recipe, apply_recipe
from onnxq.algorithms.rounding import Rounding, correct_only
from tests.algorithms.recipes import Array, Feeds, make_recipe, run_exactly, run_sweep
from tests.apply.calibrated_models import weights
from tests.models import make_model

CHANNELS = 12


def _build(groups: int, kernel: int, stride: int, *, has_bias: bool = True) -> onnx.ModelProto:
    shapes: dict[str, tuple[int, ...]] = {"w": (CHANNELS, 8 // groups, kernel, kernel), "b": (8,)}
    constants = weights(**shapes) if has_bias else weights(w=shapes["w"])
    attributes = f"group = {groups}, strides = [{stride}, {stride}]"
    return make_model(
        f"[t] p = ConvTranspose<{attributes}>(x, w{', b' if has_bias else ''}) y = Neg(p)",
        f"float[N, {CHANNELS}, 5, 5] x",
        "float[N, 8, H, W] y",
        constants,
        opset=21,
    )


def _samples(count: int = 6) -> list[Feeds]:
    """Channels that are correlated and not centred, as those of networks are."""
    rng = np.random.default_rng(3)
    mix = rng.standard_normal((CHANNELS, CHANNELS)) @ np.diag(np.geomspace(1, 0.05, CHANNELS))
    found = []
    for _ in range(count):
        noise = rng.standard_normal((CHANNELS, 25)) + 1.0
        found.append({"x": (mix @ noise).reshape(1, CHANNELS, 5, 5).astype(np.float32)})
    return found


def _only_layer(recipe: Recipe) -> Layer:
    (layer,) = find_layers(recipe.plan, recipe.model.graph)
    return layer


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_rows_times_matrices_are_the_patches_of_the_output(groups: int, tmp_path: Path) -> None:
    """Without overlap each element of the output is the product of one row."""
    model = _build(groups, 2, 2, has_bias=False)
    layer = _only_layer(make_recipe(model, _samples(), tmp_path))
    (feeds, *_) = _samples()
    rows = layer.take_rows(feeds["x"], np.arange)
    products = np.matmul(rows, layer.read_weight().transpose(0, 2, 1))  # [groups, places, rows]
    patches = products.reshape(groups, 5, 5, 8 // groups, 2, 2)
    output = patches.transpose(0, 3, 1, 4, 2, 5).reshape(1, 8, 10, 10)
    (expected,) = run_exactly(model, feeds, ["y"])
    # Sums of a dozen products in another order.
    np.testing.assert_allclose(-output, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("groups", [1, 2])
def test_matrices_turn_back_into_the_weight(groups: int, tmp_path: Path) -> None:
    layer = _only_layer(make_recipe(_build(groups, 3, 2), _samples(), tmp_path))
    weight = np.array(layer.weight.constant.tensor.numpy())
    np.testing.assert_array_equal(layer.from_matrices(layer.to_matrices(weight)), weight)
    # One scale for each output channel of a group, spread over the rows that it has.
    scales = np.arange(1, 8 // groups + 1, dtype=np.float32).reshape(1, -1, 1, 1)
    spread = np.broadcast_to(layer.spread_channels(scales), layer.matrices_shape)
    np.testing.assert_array_equal(
        layer.from_matrices(spread), np.broadcast_to(scales, weight.shape)
    )


def _errors(model: onnx.ModelProto, recipe: Recipe) -> Array:
    """Of the output on fresh samples, without its borders; shape [places, channels]."""
    quantized = ir.to_proto(apply_recipe(recipe))
    found = []
    for feeds in _samples(12)[6:]:
        (one,), (other,) = (run_exactly(each, feeds, ["y"]) for each in (model, quantized))
        found.append((other - one)[0, :, 2:-2, 2:-2].reshape(8, -1).T)
    return np.concatenate(found)


@pytest.mark.parametrize("has_bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize(
    ("groups", "kernel", "stride"), [(1, 2, 2), (2, 2, 2), (1, 3, 2), (1, 4, 2)]
)
def test_corrected_means_and_smaller_errors(
    groups: int, kernel: int, stride: int, has_bias: bool, tmp_path: Path
) -> None:
    model = _build(groups, kernel, stride, has_bias=has_bias)
    recipe = make_recipe(model, _samples(), tmp_path, per_channel=False)
    (tmp_path / "means").mkdir()
    corrected = run_sweep(recipe, _samples(), correct_only, tmp_path / "means")
    rounded = run_sweep(recipe, _samples(), Rounding(), tmp_path)
    plain, means, both = (_errors(model, one) for one in (recipe, corrected, rounded))
    assert list(corrected.biases) == [(_only_layer(recipe).node, 2)]
    assert np.abs(means.mean(axis=0)).max() < 0.5 * np.abs(plain.mean(axis=0)).max()
    assert np.square(both).mean() < 0.7 * np.square(plain).mean()
