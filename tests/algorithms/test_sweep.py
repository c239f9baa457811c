"""Sweeps: what layers see, and what of it comes back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxq.algorithms.recipe import apply_recipe
from onnxq.algorithms.rounding import Rounding, correct_only
from onnxq.algorithms.stored_weights import StoredWeights
from onnxq.algorithms.sweep import sweep
from onnxq.algorithms.visits import LayerChange, LayerSample
from onnxq.apply.weights import parameters_of
from onnxq.calibration import resolve_ranges
from onnxq.errors import ExecutionError
from tests.algorithms.recipes import Feeds, make_recipe, pass_through, run_exactly, run_sweep
from tests.apply.calibrated_models import images, weights
from tests.models import make_model

IMAGE = "float[N, 24, 8, 8]"
TWO = "[a] p = Conv(x, w1, b1) r = Relu(p) [b] q = Conv(r, w2, b2) y = Neg(q)"
SHAPES = {"w1": (24, 24, 1, 1), "b1": (24,), "w2": (24, 24, 1, 1), "b2": (24,)}


def _build(nodes: str = TWO, **shapes: tuple[int, ...]) -> onnx.ModelProto:
    return make_model(nodes, f"{IMAGE} x", f"{IMAGE} y", weights(**(shapes or SHAPES)), opset=21)


def _look(sample: LayerSample) -> LayerChange:
    return LayerChange()


def test_a_visit_that_changes_nothing_gives_the_same_recipe(tmp_path: Path) -> None:
    recipe = make_recipe(_build(), images(), tmp_path)
    assert run_sweep(recipe, images(), _look, tmp_path) is recipe


def test_layers_come_in_order_with_what_they_read(tmp_path: Path) -> None:
    seen: list[LayerSample] = []

    def keep(sample: LayerSample) -> LayerChange:
        seen.append(sample)
        return LayerChange()

    samples = images(2)
    run_sweep(make_recipe(_build(), samples, tmp_path), samples, keep, tmp_path)
    assert [one.layer.node.name for one in seen] == ["a", "b"]
    rows = np.concatenate([one["x"][0].reshape(24, -1).T for one in samples])
    np.testing.assert_array_equal(seen[0].float_rows[0], rows)
    # The second layer reads what the first one gives, in float and on the grid of integers.
    assert not np.array_equal(seen[1].float_rows, seen[1].quantized_rows)
    assert len(np.unique(seen[1].quantized_rows)) <= 256


def test_the_simulated_model_is_the_written_one(tmp_path: Path) -> None:
    """A sum in another order can move a value over the border of a step, and no more than that."""
    samples = images(2)
    recipe = make_recipe(_build(), samples, tmp_path)
    seen: dict[str | None, LayerSample] = {}

    def keep(sample: LayerSample) -> LayerChange:
        seen[sample.layer.node.name] = sample
        return LayerChange()

    run_sweep(recipe, samples, keep, tmp_path)
    model = ir.to_proto(apply_recipe(recipe))
    (reader,) = (one for one in model.graph.node if one.name == "b")
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(reader.input[0]))
    found = [run_exactly(model, feeds, [reader.input[0]])[0][0] for feeds in samples]
    rows = np.concatenate([one.reshape(24, -1).T for one in found])
    (scale,) = (
        ir.from_proto(one).numpy()
        for one in model.graph.initializer
        if one.name == _scale_behind(model, reader.input[0])
    )
    difference = np.abs(rows - seen["b"].quantized_rows[0])
    assert difference.max() <= float(scale) * 1.001
    assert np.mean(difference > float(scale) / 2) < 0.01


def _scale_behind(model: onnx.ModelProto, value: str) -> str:
    (node,) = (one for one in model.graph.node if value in one.output)
    assert node.op_type == "DequantizeLinear"
    return node.input[1]


def test_after_correction_means_are_those_of_the_float_model(tmp_path: Path) -> None:
    """Without a Relu behind it the bias is found exactly; it is stored in steps of two scales."""
    # Of samples that differ, what is chance of the means would be left out.
    samples = images(1) * 8
    nodes = "[a] p = Conv(x, w1) y = Neg(p)"
    model = _build(nodes, w1=(24, 24, 1, 1))
    recipe = make_recipe(model, samples, tmp_path, weights="int4")
    corrected = run_sweep(recipe, samples, correct_only, tmp_path)
    (bias,) = corrected.biases.values()
    assert np.abs(bias).max() > 0

    def mean_error(chosen: object) -> float:
        quantized = ir.to_proto(apply_recipe(chosen))  # type: ignore[arg-type]
        for proto in (model, quantized):
            name = next(one.output[0] for one in proto.graph.node if one.name == "a")
            if name not in [one.name for one in proto.graph.output]:
                proto.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
        differences = [
            run_exactly(quantized, one, [_layer_output(quantized)])[0]
            - run_exactly(model, one, [_layer_output(model)])[0]
            for one in samples
        ]
        return float(np.abs(np.mean(differences, axis=(0, 1, 3, 4))).max())

    # A stored bias is rounded to whole products of the two scales.
    (activation,) = (one for one in recipe.plan.decisions.activations if one.name == "x")
    numbers = resolve_ranges((activation,), recipe.ranges)[activation.key]
    (tensor,) = recipe.plan.changes
    step = float(numbers.scale) * float(parameters_of(tensor).scale.max())
    assert mean_error(corrected) < step / 2 + 1e-5
    assert mean_error(recipe) > step


def _layer_output(model: onnx.ModelProto) -> str:
    return next(one.output[0] for one in model.graph.node if one.name == "a")


def test_a_sequence_between_layers_is_an_error_with_a_reason(tmp_path: Path) -> None:
    model = _build(
        """[a] p = Conv(x, w1) s = SequenceConstruct(p, p) [b] q = Conv(p, w2)
           i = Constant<value = int64 {0}>() u = SequenceAt(s, i) [c] z = Conv(u, w3)
           v = Add(q, z) y = Neg(v)""",
        **dict.fromkeys(("w1", "w2", "w3"), (24, 24, 1, 1)),
    )
    recipe = make_recipe(model, images(), tmp_path)
    with pytest.raises(ExecutionError, match="one after the other") as caught:
        run_sweep(recipe, images(), _look, tmp_path)
    assert "'s', which is no tensor" in caught.value.reason


def test_a_layer_that_no_sample_reaches_is_left_alone(tmp_path: Path) -> None:
    model = _build(
        """[a] p = Conv(x, w1) zero = Constant<value_ints = [0]>() s = Slice(p, zero, zero, zero)
           [b] q = Conv(s, w2) o = Concat<axis = 0>(p, q) [c] v = Conv(o, w3) y = Neg(v)""",
        **dict.fromkeys(("w1", "w2", "w3"), (24, 24, 1, 1)),
    )
    seen: list[str | None] = []

    def keep(sample: LayerSample) -> LayerChange:
        seen.append(sample.layer.node.name)
        return LayerChange()

    run_sweep(make_recipe(model, images(), tmp_path), images(), keep, tmp_path)
    assert seen == ["a", "c"]


def test_a_mask_of_infinities_is_no_bias(tmp_path: Path) -> None:
    mask = np.where(np.arange(96) % 7 == 0, -np.inf, 0).astype(np.float32)
    model = make_model(
        "h = MatMul(x, w1) m = Add(h, mask) y = Softmax(m)",
        "float[N, 96] x",
        "float[N, 96] y",
        {**weights(w1=(96, 96)), "mask": mask},
        opset=21,
    )
    samples: list[Feeds] = [
        {"x": np.random.default_rng(at).standard_normal((16, 96)).astype(np.float32)}
        for at in range(4)
    ]
    recipe = make_recipe(model, samples, tmp_path)
    assert run_sweep(recipe, samples, correct_only, tmp_path).biases == {}


def test_visits_that_sweep_together_find_what_each_finds_alone(tmp_path: Path) -> None:
    samples = images(4)
    recipe = make_recipe(_build(), samples, tmp_path, weights="int4")
    visits = {"means": correct_only, "both": Rounding(shift=True), "nothing": _look}
    work, results = tmp_path / "work", tmp_path / "results"
    work.mkdir()
    results.mkdir()
    together = sweep(recipe, samples, visits, folder=work, results=results, track=pass_through)
    assert together["nothing"] is recipe
    for name, visit in visits.items():
        folder = tmp_path / name
        folder.mkdir()
        alone = run_sweep(recipe, samples, visit, folder)
        assert ir.to_proto(apply_recipe(alone)) == ir.to_proto(apply_recipe(together[name]))
    assert together["means"].biases.keys() == together["both"].biases.keys()
    assert not together["means"].weights and together["both"].weights


@pytest.mark.parametrize("overridable", [False, True])
def test_a_layer_that_reads_a_constant_is_left_alone(overridable: bool, tmp_path: Path) -> None:
    """Nothing feeds it: the corpus of onnx has such Gemms, with a matrix and a bias that is fed."""
    model = make_model(
        "[a] p = MatMul(c, w) y = Add(x, p)",
        "float[4, 256] x" + (", float[4, 256] c" if overridable else ""),
        "float[4, 256] y",
        weights(c=(4, 256), w=(256, 256)),
        opset=21,
    )
    samples = [{"x": np.ones((4, 256), np.float32)}]
    recipe = make_recipe(model, samples, tmp_path)
    assert [one.constant.value.name for one in recipe.plan.changes].count("w") == 1
    assert run_sweep(recipe, samples, correct_only, tmp_path) is recipe


def test_techniques_that_sweep_together_find_what_each_finds_alone(tmp_path: Path) -> None:
    """The first segment is run once for all, and weights are computed once."""
    samples = images(6)
    visits = {"means": correct_only, "rounding": Rounding()}
    recipe = make_recipe(_build(), samples, tmp_path)
    (tmp_path / "work").mkdir()
    (tmp_path / "results").mkdir()
    together = sweep(
        recipe,
        samples,
        visits,
        folder=tmp_path / "work",
        results=tmp_path / "results",
        track=pass_through,
    )
    for name, visit in visits.items():
        (tmp_path / name).mkdir()
        alone = run_sweep(recipe, samples, visit, tmp_path / name)
        one, two = (ir.to_proto(apply_recipe(found)) for found in (together[name], alone))
        assert one.SerializeToString() == two.SerializeToString()


def test_a_weight_with_other_scales_is_computed_anew(tmp_path: Path) -> None:
    recipe = make_recipe(_build(), images(2), tmp_path)
    tensor = next(one for one in recipe.plan.changes if one.statistics is not None)
    statistics = tensor.statistics
    assert statistics is not None
    ends = {"minimum": 9 * statistics.minimum, "maximum": 9 * statistics.maximum}
    wide = replace(tensor, statistics=replace(statistics, **ends))
    weights, value = StoredWeights(), tensor.constant.value
    first = weights.read(value, tensor)
    assert weights.read(value, tensor) is first
    assert not np.array_equal(weights.read(value, wide), first)
    weights.forget()
    again = weights.read(value, tensor)
    assert again is not first
    np.testing.assert_array_equal(again, first)
