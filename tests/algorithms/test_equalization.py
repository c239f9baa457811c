"""Equalization: the function stays, the ranges of weights become alike, and odd groups are left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxq.algorithms.equalization import equalize, find_chains
from onnxq.graph.offload import include_weights
from tests.algorithms.recipes import Array, make_recipe, run_exactly
from tests.apply.calibrated_models import images, weights
from tests.models import make_model

IMAGE = "float[N, 24, 8, 8]"


def _build(second: str, shape: tuple[int, ...], outputs: int) -> onnx.ModelProto:
    constants = weights(
        w1=(24, 24, 1, 1), b1=(24,), w2=shape, b2=(shape[0],), w3=(outputs, shape[0], 1, 1)
    )
    # Channels of very different ranges, which equalization is for.
    constants["w1"] *= np.geomspace(0.1, 10.0, 24, dtype=np.float32).reshape(-1, 1, 1, 1)
    return make_model(
        f"[a] p = Conv(x, w1, b1) r = Relu(p) [b] q = Conv{second}(r, w2, b2) s = Relu(q)"
        " [c] t = Conv(s, w3) y = Neg(t)",
        f"{IMAGE} x",
        f"float[N, {outputs}, 8, 8] y",
        constants,
        opset=21,
    )


@pytest.mark.parametrize(
    ("second", "shape", "chains"),
    [
        ("", (24, 24, 1, 1), [["a", "b"], ["b", "c"]]),
        ("<group = 24, pads = [1, 1, 1, 1]>", (24, 1, 3, 3), [["a", "b", "c"]]),
        ("<group = 2>", (24, 12, 1, 1), [["b", "c"]]),
        ("<group = 12>", (12, 2, 1, 1), [["b", "c"]]),
        ("<group = 24>", (48, 1, 1, 1), [["b", "c"]]),
    ],
    ids=["dense", "depthwise", "two-groups", "two-inputs-one-output", "multiplier"],
)
def test_function_stays(
    second: str, shape: tuple[int, ...], chains: list[list[str]], tmp_path: Path
) -> None:
    model = _build(second, shape, 24)
    recipe = make_recipe(model, images(2), tmp_path)
    found = find_chains(recipe)
    assert [[one.node.name for one in chain.layers] for chain in found] == chains
    planner = equalize(recipe, found, tmp_path / "equalized")
    include_weights(planner.model)
    equalized = ir.to_proto(planner.model)
    feeds = images(1)[0]
    (before,), (after,) = (run_exactly(one, feeds, ["y"]) for one in (model, equalized))
    # Each factor is rounded once, each product once more: a few units of the last place.
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * float(np.abs(before).max()))
    first = chains[0][0]
    assert not np.array_equal(_read_weight(equalized, first), _read_weight(model, first))


def _read_weight(model: onnx.ModelProto, layer: str) -> Array:
    (node,) = (one for one in model.graph.node if one.name == layer)
    (found,) = (one for one in model.graph.initializer if one.name == node.input[1])
    return onnx.numpy_helper.to_array(found)
