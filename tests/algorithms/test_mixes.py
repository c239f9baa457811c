"""Recipes with blocks in float and in 16 bits: what stays of the numbers, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxq.algorithms.blocks import Costs, find_blocks
from onnxq.algorithms.mixes import Mixable
from onnxq.algorithms.mixing import Width
from onnxq.algorithms.recipe import Recipe, apply_recipe
from onnxq.algorithms.rounding import Rounding, correct_only
from onnxq.algorithms.visits import LayerChange, LayerSample
from onnxq.targets import Target
from tests.algorithms.recipes import make_recipe, run_exactly, run_sweep
from tests.apply.calibrated_models import IMAGE, images, weights
from tests.apply.test_wide import CHAIN, FORK, SKIP
from tests.models import make_model
from tests.plan.planning import ONNX, ORT

ARITHMETIC = """[a] p = Conv(x, w1, b1) [b] q = Conv(p, w2, b2) [s] r = Sigmoid(q)
                [c] t = Conv(r, w3, b3) y = Neg(t)"""
"""The Sigmoid is in the block of the last layer, and in the segment of the layer before it."""

FLOAT, WIDE, INTEGER = Width.FLOAT, Width.WIDE, Width.INTEGER


def _build(nodes: str, opset: int = 17) -> onnx.ModelProto:
    names = (*(f"w{at}" for at in (1, 2, 3)), *(f"b{at}" for at in (1, 2, 3)))
    constants = weights(**{name: (24, 24, 1, 1) if name[0] == "w" else (24,) for name in names})
    return make_model(nodes, f"{IMAGE} x", f"{IMAGE} y", constants, opset=opset)


def _make(folder: Path, nodes: str = CHAIN, opset: int = 17) -> Mixable:
    """A block for each of the layers."""
    recipe = make_recipe(_build(nodes, opset), images(), folder, target=ONNX)
    return Mixable(recipe, find_blocks(recipe.plan, {}))


def _follow(mixable: Mixable) -> Mixable:
    return mixable.follow(mixable.recipe.ranges, Path("model.onnx"))


def _find(recipe: Recipe, name: str) -> ir.Node:
    return next(node for node in recipe.model.graph if node.name == name)


def _values(recipe: Recipe, names: Sequence[str]) -> list[ir.Value]:
    made = {one.name: one for node in recipe.model.graph for one in node.outputs}
    made |= {one.name: one for one in recipe.model.graph.inputs}
    return [made[name] for name in names]


@pytest.mark.parametrize("opset", [17, 21, 22])
def test_a_followed_recipe_writes_the_same_in_newer_operators(opset: int, tmp_path: Path) -> None:
    mixable = _make(tmp_path, opset=opset)
    followed = _follow(mixable)
    assert [one.name for one in followed.blocks] == [one.name for one in mixable.blocks]
    assert followed.recipe.model is not mixable.recipe.model
    assert followed.recipe.model.opset_imports[""] == max(21, opset)
    assert followed.recipe.model.ir_version >= 10
    narrow, raised = (
        ir.to_proto(apply_recipe(one.mix([INTEGER] * 3))) for one in (mixable, followed)
    )
    feeds = images(1)[0]
    assert np.array_equal(run_exactly(narrow, feeds, ["y"]), run_exactly(raised, feeds, ["y"]))
    assert [one.SerializeToString() for one in narrow.graph.node] == [
        one.SerializeToString() for one in raised.graph.node
    ]


def test_each_block_has_its_width(tmp_path: Path) -> None:
    mixed = _follow(_make(tmp_path)).mix([INTEGER, WIDE, FLOAT])
    assert {one.name: str(one.scheme) for one in mixed.plan.decisions.nodes} == {
        "a": "uint8",
        "b": "uint16",
    }
    assert {one.name: str(one.scheme) for one in mixed.plan.changes} == {
        "w1": "int8 per channel",
        "w2": "int16 per channel",
        "w3": "fp16",
    }
    again = _follow(_make(tmp_path)).mix([WIDE, FLOAT, INTEGER])
    assert [str(one.scheme) for one in again.plan.decisions.nodes] == ["uint16", "uint8"]


def test_numbers_tuned_for_8_bits_stay_in_8_bits(tmp_path: Path) -> None:
    mixable = _make(tmp_path)
    tuned = run_sweep(mixable.recipe, images(), Rounding(), tmp_path)
    assert (len(tuned.weights), len(tuned.biases)) == (3, 3)
    mixed = _follow(Mixable(tuned, mixable.blocks)).mix([INTEGER, WIDE, FLOAT])
    assert [value.name for value in mixed.weights] == ["w1"]
    assert [node.name for node, _ in mixed.biases] == ["a"]
    (weight,) = mixed.weights.values()
    assert np.array_equal(weight.tensor.numpy(), next(iter(tuned.weights.values())).tensor.numpy())
    unchanged = _follow(Mixable(tuned, mixable.blocks)).mix([INTEGER] * 3)
    assert (len(unchanged.weights), len(unchanged.biases)) == (3, 3)


def test_16_bits_clip_nothing_that_samples_showed(tmp_path: Path) -> None:
    mixable = _make(tmp_path)
    seen = mixable.recipe.ranges
    clipped = {value: (low / 2, high / 2) for value, (low, high) in seen.items()}
    recipe = replace(mixable.recipe, ranges=clipped)
    mixed = Mixable(recipe, mixable.blocks).follow(seen, Path("m")).mix([INTEGER, WIDE, INTEGER])
    by_name = {value.name: one for value, one in seen.items()}
    found = {
        (one.name, str(one.scheme)): mixed.find_range(one)
        for one in mixed.plan.decisions.activations
    }
    assert {name for name, kind in found if kind == "uint16"} == {"pr", "qr"}
    for (name, kind), (low, high) in found.items():
        factor = 1.0 if kind == "uint16" else 0.5
        assert (low, high) == pytest.approx([factor * one for one in by_name[name]])
    steps = {key[0].name: float(one.scale) for key, one in mixed.parameters.items()}
    assert steps["qr"] > 0.0 and len(mixed.parameters) == len(found)


def test_a_range_wider_than_what_samples_show_stays(tmp_path: Path) -> None:
    """It may come from a file, by someone who knows of more than the samples."""
    mixable = _make(tmp_path)
    known = {value: (low - 9.0, high + 9.0) for value, (low, high) in mixable.recipe.ranges.items()}
    wider = Mixable(replace(mixable.recipe, ranges=known), mixable.blocks)
    followed = wider.follow(mixable.recipe.ranges, Path("m")).recipe
    assert list(followed.wide_ranges.values()) == list(known.values())


@pytest.mark.parametrize(
    "nodes", [CHAIN, FORK, SKIP, ARITHMETIC], ids=["chain", "fork", "skip", "arithmetic"]
)
@pytest.mark.parametrize("wide", ["a", "b", "c"])
def test_a_sweep_sees_what_the_written_model_computes(
    nodes: str, wide: str, tmp_path: Path
) -> None:
    mixable = _make(tmp_path, nodes, opset=21)
    mixed = _follow(mixable).mix(
        [WIDE if wide in [node.name for node in one.nodes] else INTEGER for one in mixable.blocks]
    )
    seen: dict[str, np.ndarray] = {}

    def look(sample: LayerSample) -> LayerChange:
        seen[sample.layer.node.name or ""] = sample.quantized_rows[0]
        return LayerChange()

    samples = images()
    run_sweep(mixed, samples, look, tmp_path)
    model = ir.to_proto(apply_recipe(mixed))
    read = [next(one.input[0] for one in model.graph.node if one.name == name) for name in seen]
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(one) for one in read)
    runs = [run_exactly(model, one, read) for one in samples]
    for at, name in enumerate(seen):
        rows = np.concatenate([np.moveaxis(one[at], 1, -1).reshape(-1, 24) for one in runs])
        # A bias of integers moves a few sums to the next step.
        same = np.isclose(seen[name], rows, rtol=1e-5, atol=1e-6)
        assert same.mean() > 0.97, name


def test_what_16_bits_save(tmp_path: Path) -> None:
    mixable = _make(tmp_path)
    plan, blocks = mixable.recipe.plan, mixable.blocks
    values = _values(mixable.recipe, ["x", "pr", "qr", "rr"])
    elements = dict.fromkeys(values, 24 * 64)
    free = Costs(elements, 0.0, 0.5)
    full = free.count_saved(plan)
    one = full / 3
    assert free.count_mixed(plan, [], []) == full
    assert free.count_mixed(plan, [], blocks[1:2]) == pytest.approx(full - one / 2)
    assert free.count_mixed(plan, blocks[:1], blocks[1:]) == pytest.approx(one)
    assert replace(free, wide_gain=1.0).count_mixed(plan, [], blocks) == pytest.approx(full)
    # A tensor that goes from 8 to 16 bits costs as much as one from floats.
    priced = Costs(elements, 2.0, 0.5)
    lost = priced.count_saved(plan) - priced.count_mixed(plan, [], blocks[1:2])
    assert lost == pytest.approx(one / 2 + 2.0 * 2 * 24 * 64)
    lost = priced.count_saved(plan) - priced.count_mixed(plan, [], blocks)
    assert lost == pytest.approx(full / 2)
    saved = priced.describe(plan, blocks[1])[0]
    assert (saved, priced.count_wide(saved)) == pytest.approx((one, one / 2))


def test_what_loses_in_8_bits_loses_no_less_in_16() -> None:
    costs = Costs({}, 0.0, 0.5)
    assert [costs.count_wide(one) for one in (8.0, 0.0, -8.0)] == [4.0, 0.0, -8.0]


def test_layers_that_are_not_calibrated_have_no_16_bits(tmp_path: Path) -> None:
    nodes = f"{CHAIN.replace('y = Neg(rr)', 'n = Neg(rr)')} [t] y = ConvTranspose(n, w4)"
    constants = {
        **{one.name: onnx.numpy_helper.to_array(one) for one in _build(CHAIN).graph.initializer},
        **weights(w4=(24, 24, 1, 1)),
    }
    model = make_model(nodes, f"{IMAGE} x", f"{IMAGE} y", constants)
    recipe = make_recipe(model, images(), tmp_path, target=ONNX)
    mixable = Mixable(recipe, find_blocks(recipe.plan, {}))
    found = {one.name: mixable.can_widen(one) for one in mixable.blocks}
    assert found == {"a": True, "b": True, "c": True, "t": False}


@pytest.mark.parametrize("target", [ORT, ONNX], ids=lambda one: one.name)
def test_the_bias_behind_a_product_in_float_is_that_of_the_model(
    target: Target, tmp_path: Path
) -> None:
    """It was corrected for errors of integers, which there are none of any more."""
    model = make_model(
        "[a] m = MatMul(x, v1) p = Add(m, c1) r = Relu(p) [b] n = MatMul(r, v2) y = Add(n, c2)",
        "float[N, 128] x",
        "float[N, 128] y",
        weights(v1=(128, 128), v2=(128, 128), c1=(128,), c2=(128,)),
    )
    rng = np.random.default_rng(7)
    samples = [{"x": rng.standard_normal((16, 128)).astype(np.float32)} for _ in range(6)]
    recipe = run_sweep(
        make_recipe(model, samples, tmp_path, target=target), samples, correct_only, tmp_path
    )
    assert len(recipe.biases) == 2
    mixed = Mixable(recipe, find_blocks(recipe.plan, {})).mix([INTEGER, FLOAT])
    first = next(node for node in recipe.model.graph if node.op_type == "Add")
    assert [node for node, _ in mixed.biases] == [first]
