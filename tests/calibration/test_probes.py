"""Probes: summaries of activations that are made inside the graph."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxq.calibration import add_probes, choose_ranges
from onnxq.errors import DataError
from onnxq.plan import StaticOptions, plan_static
from onnxq.runtime.session import Session
from onnxq.targets import find_target
from tests.apply.calibrated_models import IMAGE
from tests.calibration.probing import expose, integers, mixed_model, probe
from tests.models import make_model, to_ir

SAMPLED = pytest.mark.parametrize("sampled", [True, False], ids=["sampled", "extremes-only"])


def samples(count: int = 3, *, batch: int = 2) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(5)
    return [{"x": integers(rng, batch, 24, 8, 8)} for _ in range(count)]


@SAMPLED
@pytest.mark.parametrize("typed", [True, False], ids=["shapes-known", "shapes-unknown"])
def test_extremes_are_exact(typed: bool, sampled: bool, tmp_path: Path) -> None:
    probed = probe(mixed_model(typed=typed), tmp_path, sampled=sampled)
    found = probed.extremes(samples())
    assert {"x", "a", "c", "e", "g"} <= set(found)
    values = [expose(probed.proto, feeds) for feeds in samples()]
    for name, (low, high) in found.items():
        assert high == max(float(one[name].max()) for one in values)
        smallest = min(float(one[name].min()) for one in values)
        # Behind a Relu 0 is the lower end, whether or not it was seen.
        assert low == smallest or (name in "cg" and not sampled and low == 0.0)


def test_relu_of_images_is_summarised_by_pooling(tmp_path: Path) -> None:
    probed = probe(mixed_model(), tmp_path, sampled=False)
    operators = [node.op_type for node in probed.probed.model.graph]
    # One of the two has a shape that is known without inference.
    assert operators.count("GlobalMaxPool") == 1
    assert "GlobalMaxPool" not in [
        node.op_type for node in probe(mixed_model(), tmp_path, sampled=True).probed.model.graph
    ]


@SAMPLED
@pytest.mark.parametrize("rank", [2, 3, 5])
def test_relu_of_other_ranks(rank: int, sampled: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    middle = ["4"] * (rank - 2)
    shape = (3, *[4] * (rank - 2), 96) if rank < 5 else (2, 24, 4, 4, 4)
    if rank < 5:
        text = "[one] m = MatMul(x, w) c = Relu(m) [two] d = MatMul(c, v) y = Neg(d)"
        constants = {"w": integers(rng, 96, 96), "v": integers(rng, 96, 96)}
        kinds = f"float[N, {', '.join([*middle, '96'])}]"
    else:
        text = "[one] m = Conv(x, w) c = Relu(m) [two] d = Conv(c, v) y = Neg(d)"
        constants = {"w": integers(rng, 24, 24, 1, 1, 1), "v": integers(rng, 24, 24, 1, 1, 1)}
        kinds = "float[N, 24, 4, 4, 4]"
    model = make_model(text, f"{kinds} x", f"{kinds} y", constants, opset=21)
    probed = probe(model, tmp_path, sampled=sampled, dynamic_matmul=False)
    feeds = {"x": integers(rng, *shape)}
    found, values = probed.extremes([feeds]), expose(model, feeds)
    for name, (low, high) in found.items():
        assert high == values[name].max()
        assert low == values[name].min() or low == 0.0


@SAMPLED
def test_probed_model_is_valid_and_computes_the_same(sampled: bool, tmp_path: Path) -> None:
    probed = probe(mixed_model(), tmp_path, sampled=sampled)
    onnx.checker.check_model(str(probed.path), full_check=True)
    outputs = [one.name for one in onnx.load(str(probed.path)).graph.output]
    assert outputs[0] == "y"
    assert set(outputs[1:]) == {name for one in probed.probed.probes for name in one.outputs}
    (feeds,) = samples(1)
    (found,) = Session(probed.path).run(feeds, ["y"])
    np.testing.assert_array_equal(found, expose(probed.proto, feeds)["y"])


@SAMPLED
def test_model_is_left_as_it_is(sampled: bool) -> None:
    model = to_ir(mixed_model())
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    plan = plan_static(model, find_target("ort-cpu"), StaticOptions())
    assert plan.calibration is not None
    add_probes(model, plan.calibration.activations, sampled=sampled)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("batch", [1, 2, 23, 64])
def test_sample_is_a_subset_of_the_elements(batch: int, tmp_path: Path) -> None:
    probed = probe(mixed_model(), tmp_path, sampled=True)
    (feeds,) = samples(1, batch=batch)
    values = expose(probed.proto, feeds)
    session = Session(probed.path)
    for one in probed.probed.probes:
        (picked,) = session.run(feeds, [one.sample])
        flat = values[one.activation.name].reshape(-1)
        steps = [step for step in range(1, flat.size + 1, 2) if flat[::step].size == picked.size]
        assert any(np.array_equal(flat[::step], picked) for step in steps)
        assert picked.size == flat.size or 8192 / 3 <= picked.size <= 2 * 8192


@SAMPLED
def test_empty_samples_add_nothing(sampled: bool, tmp_path: Path) -> None:
    probed = probe(mixed_model(), tmp_path, sampled=sampled)
    empty = {"x": np.zeros((0, 24, 8, 8), np.float32)}
    assert probed.extremes([*samples(), empty]) == probed.extremes(samples())


def test_observation_does_not_depend_on_batches_or_order(tmp_path: Path) -> None:
    """As long as all elements are in the sample; 5 images have 7680."""
    probed = probe(mixed_model(), tmp_path, sampled=True)
    whole = samples(1, batch=5)
    parts = [{"x": whole[0]["x"][index : index + 1]} for index in (3, 0, 4, 1, 2)]
    one, other = probed.observe(whole).by_value, probed.observe(parts).by_value
    assert set(one) == set(other)
    for value, found in one.items():
        again = other[value]
        assert (found.minimum, found.maximum) == (again.minimum, again.maximum)
        for part in ("lower", "upper", "counts"):
            np.testing.assert_array_equal(
                getattr(found.histogram.finite_bins(), part),
                getattr(again.histogram.finite_bins(), part),
            )


BRANCHES = (
    "[first] a = Conv(x, w1) s = Neg(a) "
    "i = If(b) <then_branch = yes () => (float[N, 24, 8, 8] y1) "
    "{ [one] p = Conv(x, w1) pr = Relu(p) [two] d1 = Conv(pr, w4) y1 = Neg(d1) }, "
    "else_branch = no () => (float[N, 24, 8, 8] y2) "
    "{ [three] q = Conv(x, w4) [four] d2 = Conv(q, w1) y2 = Abs(d2) }> y = Add(s, i)"
)


def branches() -> onnx.ModelProto:
    rng = np.random.default_rng(9)
    constants = {"w1": integers(rng, 24, 24, 1, 1), "w4": integers(rng, 24, 24, 1, 1)}
    return make_model(BRANCHES, f"{IMAGE} x, bool b", f"{IMAGE} y", constants, opset=21)


@SAMPLED
@pytest.mark.parametrize("taken", [True, False], ids=["then", "else"])
def test_branches(taken: bool, sampled: bool, tmp_path: Path) -> None:
    probed = probe(branches(), tmp_path, sampled=sampled)
    (feeds,) = samples(1)
    found = probed.extremes([{**feeds, "b": np.array(taken)}])
    by_end = {name.rsplit("/", 1)[-1]: extremes for name, extremes in found.items()}
    inner = make_model(
        "p = Conv(x, w1) pr = Relu(p) d1 = Conv(pr, w4) q = Conv(x, w4) d2 = Conv(q, w1)",
        f"{IMAGE} x",
        f"{IMAGE} d1, {IMAGE} d2",
        {one.name: onnx.numpy_helper.to_array(one) for one in branches().graph.initializer},
        opset=21,
    )
    values = expose(inner, feeds)
    for name in ("pr", "d1", "q", "d2"):
        if (name in ("pr", "d1")) is taken:
            low, high = by_end[name]
            assert high == values[name].max()
            assert low == values[name].min()
        else:
            assert by_end[name] == (math.inf, -math.inf)


def test_branches_that_are_both_taken(tmp_path: Path) -> None:
    probed = probe(branches(), tmp_path, sampled=True)
    (feeds,) = samples(1)
    both = [{**feeds, "b": np.array(taken)} for taken in (True, False)]
    found = probed.extremes(both)
    assert all(low <= high and math.isfinite(low + high) for low, high in found.values())


NESTED = (
    "y = If(b) <then_branch = yes () => (float[N, 24, 8, 8] y1) "
    "{ [one] a1 = Conv(x, w1) y1 = If(b) <then_branch = deep () => (float[N, 24, 8, 8] y3) "
    "{ [two] a3 = Conv(a1, w4) [three] d3 = Conv(a3, w1) y3 = Neg(d3) }, "
    "else_branch = skip () => (float[N, 24, 8, 8] y4) { y4 = Abs(a1) }> }, "
    "else_branch = no () => (float[N, 24, 8, 8] y2) { y2 = Abs(x) }>"
)


@SAMPLED
def test_nested_branches(sampled: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    constants = {"w1": integers(rng, 24, 24, 1, 1), "w4": integers(rng, 24, 24, 1, 1)}
    model = make_model(NESTED, f"{IMAGE} x, bool b", f"{IMAGE} y", constants, opset=21)
    probed = probe(model, tmp_path, sampled=sampled)
    (feeds,) = samples(1)
    found = probed.extremes([{**feeds, "b": np.array(True)}])
    by_end = {name.rsplit("/", 1)[-1]: extremes for name, extremes in found.items()}
    flat = make_model(
        "a1 = Conv(x, w1) a3 = Conv(a1, w4) d3 = Conv(a3, w1)",
        f"{IMAGE} x",
        f"{IMAGE} d3",
        constants,
        opset=21,
    )
    values = expose(flat, feeds)
    for name in ("a3", "d3"):
        assert by_end[name] == (values[name].min(), values[name].max())
    skipped = probed.extremes([{**feeds, "b": np.array(False)}])
    by_end = {name.rsplit("/", 1)[-1]: extremes for name, extremes in skipped.items()}
    assert by_end["a3"] == (math.inf, -math.inf)


@pytest.mark.parametrize("position", [0, 1, 5000, 24 * 64 * 64 - 1])
@pytest.mark.parametrize("operator", ["Conv", "Relu"], ids=["bare", "Relu"])
@SAMPLED
def test_nan_is_named(sampled: bool, operator: str, position: int, tmp_path: Path) -> None:
    """Sqrt of a negative number, at one of 98304 elements, that no histogram may have sampled."""
    rng = np.random.default_rng(0)
    middle = "s = Sqrt(x) " if operator == "Conv" else "t = Sqrt(x) s = Relu(t) "
    model = make_model(
        f"{middle} [first] a = Conv(s, w1) r = Relu(a) [last] d = Conv(r, w1) y = Neg(d)",
        "float[N, 24, 64, 64] x",
        "float[N, 24, 64, 64] y",
        {"w1": integers(rng, 24, 24, 1, 1)},
        opset=21,
    )
    probed = probe(model, tmp_path, sampled=sampled)
    good = {"x": np.ones((1, 24, 64, 64), np.float32)}
    bad = {"x": good["x"].copy()}
    bad["x"].reshape(-1)[position] = -1
    assert np.isnan(expose(model, bad)["s"]).any()
    with pytest.raises(DataError, match=r"sample 1: tensor '\w+' holds NaN in the float model"):
        probed.observe([good, bad])


@SAMPLED
def test_infinity_is_no_number_of_a_range(sampled: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    model = make_model(
        "s = Log(x) [first] a = Conv(s, w1) y = Neg(a)",
        f"{IMAGE} x",
        f"{IMAGE} y",
        {"w1": np.abs(integers(rng, 24, 24, 1, 1)) + 1},
        opset=21,
    )
    probed = probe(model, tmp_path, sampled=sampled)
    feeds = {"x": np.ones((1, 24, 8, 8), np.float32) + rng.random((1, 24, 8, 8), np.float32)}
    feeds["x"][0, 0, 0, 0] = 0
    found = probed.observe([feeds]).by_value
    for low, high in choose_ranges(probed.activations, found, "minmax").values():
        assert math.isfinite(low)
        assert math.isfinite(high)


def test_sample_that_the_model_cannot_run_on_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    model = make_model(
        "g = Gather<axis = 0>(x, ix) [first] a = Conv(g, w1) [last] d = Conv(a, w1) y = Neg(d)",
        f"{IMAGE} x, int64[K] ix",
        "float[K, 24, 8, 8] y",
        {"w1": integers(rng, 24, 24, 1, 1)},
        opset=21,
    )
    probed = probe(model, tmp_path, sampled=True)
    (feeds,) = samples(1)
    good, bad = ({**feeds, "ix": np.array([index])} for index in (1, 7))
    with pytest.raises(DataError, match=r"sample 1: the model cannot run: .*(?s:.)*indices"):
        probed.observe([good, bad])
