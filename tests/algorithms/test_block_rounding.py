from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.algorithms import block_rounding
from onnxq.algorithms.block_rounding import find_block_layers, round_block_layers
from onnxq.apply import Blocks
from onnxq.numerics.affine import dequantize
from onnxq.plan import DynamicOptions, Plan, plan_dynamic
from onnxq.runtime.session import Feeds
from onnxq.schemes import WeightType
from onnxq.targets.presets import ORT_CPU
from tests.models import float_weight, make_model, to_ir

K, N = 96, 80


def _make_model(nodes: str, **weights: Any) -> ir.Model:
    return to_ir(make_model(nodes, f"float[M, {K}] x", "float[M, P] y, float[M, Q] z", weights))


def _plan(model: ir.Model) -> Plan:
    return plan_dynamic(model, ORT_CPU, DynamicOptions(weights=WeightType.INT4, block_size=32))


def _read_feeds() -> Iterator[Feeds]:
    """Inputs that depend on each other and have a mean."""
    generator = np.random.default_rng(1)
    mix = generator.standard_normal((K, K)) / 4
    for _ in range(6):
        yield {"x": (generator.standard_normal((50, K)) @ mix + 0.5).astype(np.float32)}


def _two_layers(rng: np.random.Generator) -> ir.Model:
    return _make_model(
        "y = MatMul(x, a) h = Relu(y) z = Gemm<transB = 1, alpha = 0.5>(h, b)",
        a=float_weight(rng, (K, K)),
        b=float_weight(rng, (N, K)),
    )


def _rebuild(blocks: Blocks, name: str) -> Any:
    ((integers, parameters),) = [
        found for (value, _, _), found in blocks.items() if value.name == name
    ]
    return dequantize(integers, parameters).reshape(-1, integers.shape[2])[:K]


def test_layers_give_nearly_what_they_gave(rng: np.random.Generator, tmp_path: Path) -> None:
    from onnxq.numerics.blocks import quantize_blocks
    from onnxq.schemes import Scheme

    model = _two_layers(rng)
    layers = find_block_layers(_plan(model), model.graph)
    found = round_block_layers(model, layers, _read_feeds, tmp_path / "inputs.onnx")
    weights = {
        name: model.graph.initializers[name].const_value.numpy()  # type: ignore[union-attr]
        for name in ("a", "b")
    }
    x = np.concatenate([feeds["x"] for feeds in _read_feeds()])
    h = np.maximum(x @ weights["a"], 0)
    for name, inputs, real in (("a", x, weights["a"]), ("b", h, 0.5 * weights["b"].T)):
        nearest, parameters = quantize_blocks(real, Scheme(type=WeightType.INT4, block_size=32))
        rebuilt = dequantize(nearest, parameters).reshape(K, -1)
        before = np.square(inputs @ (rebuilt - real)).sum()
        after = np.square(inputs @ (_rebuild(found, name) - real)).sum()
        assert after < 0.7 * before


def test_small_groups_of_layers_give_the_same(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _two_layers(rng)
    layers = find_block_layers(_plan(model), model.graph)
    passes = []

    def read_feeds() -> Iterator[Feeds]:
        passes.append(1)
        return _read_feeds()

    together = round_block_layers(model, layers, read_feeds, tmp_path / "inputs.onnx")
    assert len(passes) == 1
    monkeypatch.setattr(block_rounding, "MOST_MOMENT_BYTES", 1)
    apart = round_block_layers(model, layers, read_feeds, tmp_path / "again.onnx")
    assert len(passes) == 3
    for name in ("a", "b"):
        assert np.array_equal(_rebuild(together, name), _rebuild(apart, name))


def test_the_model_is_left_alone(rng: np.random.Generator, tmp_path: Path) -> None:
    model = _two_layers(rng)
    before = ir.to_proto(model).SerializeToString()
    layers = find_block_layers(_plan(model), model.graph)
    round_block_layers(model, layers, _read_feeds, tmp_path / "inputs.onnx")
    assert ir.to_proto(model).SerializeToString() == before


def test_a_weight_with_two_readers_is_one_layer(rng: np.random.Generator, tmp_path: Path) -> None:
    model = _make_model(
        "h = Relu(x) y = MatMul(x, a) z = MatMul(h, a)", a=float_weight(rng, (K, N))
    )
    (layer,) = find_block_layers(_plan(model), model.graph)
    assert {value.name for value in layer.inputs} == {"x", "h"}
    assert len(round_block_layers(model, [layer], _read_feeds, tmp_path / "inputs.onnx")) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
def test_layers_that_read_no_numbers_are_left_out(
    value: float, rng: np.random.Generator, tmp_path: Path
) -> None:
    model = _make_model(
        "y = MatMul(x, a) h = Mul(x, bad) z = MatMul(h, b)",
        a=float_weight(rng, (K, N)),
        b=float_weight(rng, (K, N)),
        bad=np.float32(value),
    )
    layers = find_block_layers(_plan(model), model.graph)
    found = round_block_layers(model, layers, _read_feeds, tmp_path / "inputs.onnx")
    assert [key[0].name for key in found] == ["a"]
