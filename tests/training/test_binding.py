"""What is found in a quantized graph, and that nothing changes before anything is learned."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch")

from onnxq.graph.constants import constant_tensor  # noqa: E402
from onnxq.training.binding import bind  # noqa: E402
from onnxq.training.interpreter import run  # noqa: E402
from onnxq.training.masters import dequantize  # noqa: E402
from onnxq.training.program import compile_model  # noqa: E402
from onnxq.training.quantities import (  # noqa: E402
    IntegerBias,
    IntegerWeight,
    ProductScale,
    Quantities,
    Scale,
)
from onnxq.training.weights import iterate_weights  # noqa: E402
from tests.models import make_model, to_ir  # noqa: E402
from tests.training.quantized_models import load, samples  # noqa: E402

BITS = pytest.mark.parametrize("bits", [8, 4], ids=["8-bit activations", "4-bit activations"])


def activation_scales(model: ir.Model) -> dict[str, ir.Value]:
    """The scale of each QuantizeLinear, by the name of what it quantizes."""
    found = {}
    for node in model.graph:
        if node.op_type == "QuantizeLinear":
            assert node.inputs[0] is not None
            assert node.inputs[1] is not None
            found[node.inputs[0].name or ""] = node.inputs[1]
    return found


def of(quantities: Quantities, value: ir.Value) -> object:
    return next(one for one in quantities.all if one.value is value)


@BITS
def test_the_start_is_the_graph_itself(bits: int) -> None:
    model = load(bits)
    quantities = bind(model)
    feeds = samples(1)[0]
    with torch.no_grad():
        plain = run(compile_model(model), feeds)["y"]
        program = compile_model(model, trained=quantities.values)
        trained = run(program, feeds, quantities.compute())["y"]
    assert torch.equal(plain, trained)


@BITS
def test_gradients_reach_everything(bits: int) -> None:
    model = load(bits)
    quantities = bind(model)
    program = compile_model(model, trained=quantities.values)
    for feeds in samples():
        run(program, feeds, quantities.compute())["y"].square().sum().backward()
    assert all(one.grad is not None and bool(one.grad.any()) for one in quantities.learned)


def test_tied_activations_have_one_scale() -> None:
    model = load()
    quantities = bind(model)
    scales = activation_scales(model)
    assert scales["a"] is scales["p"]
    assert sum(one.value is scales["a"] for one in quantities.all) == 1


def test_weights_have_a_scale_for_each_channel() -> None:
    quantities = bind(load())
    shapes = {
        tuple(one.scale.learned.shape)
        for one in quantities.all
        if isinstance(one, IntegerWeight) and one.scale is not None
    }
    assert (32,) in shapes


def test_activations_have_scales_of_rank_0() -> None:
    model = load()
    computed = bind(model).compute()
    for scale in activation_scales(model).values():
        assert computed[scale].dim() == 0


def test_the_scale_of_a_bias_is_the_product_whatever_is_learned() -> None:
    model = load()
    quantities = bind(model)
    with torch.no_grad():
        for one in quantities.learned:
            one.add_(0.1 * torch.ones_like(one))
        computed = quantities.compute()
    products = [one for one in quantities.all if isinstance(one, ProductScale)]
    assert len(products) == 2
    for one in products:
        expected = computed[one.activation] * computed[one.weight]
        assert torch.equal(computed[one.value], expected.reshape(one.shape))
    biases = [one for one in quantities.all if isinstance(one, IntegerBias)]
    assert len(biases) == 2
    for bias in biases:
        integers = computed[bias.value]
        assert torch.equal(integers, integers.round())
        real = bias.first + bias.unit * bias.learned
        error = (integers * computed[bias.scale] - real).abs()
        # Half a step, and what float32 loses of a number of 2^20 steps.
        assert bool((error <= 0.6 * computed[bias.scale]).all())


def test_a_range_stays_inside_its_clip() -> None:
    model = load()
    quantities = bind(model)
    scale = of(quantities, activation_scales(model)["a"])
    assert isinstance(scale, Scale)
    with torch.no_grad():
        scale.learned.fill_(5.0)
        quantities.project()
        computed = quantities.compute()[scale.value].numpy()
    assert 1.499 < np.float32(255) * computed <= np.float32(1.5)


def test_sixteen_levels_need_no_clip_of_floats() -> None:
    model = load(4)
    quantities = bind(model)
    scales = [one for one in quantities.all if isinstance(one, Scale)]
    assert scales
    assert all(one.ceiling is None for one in scales)
    assert "Clip" not in {
        node.op_type
        for node in model.graph
        if node.op_type == "Clip" and node.outputs[0].dtype is ir.DataType.FLOAT
    }


def test_four_bit_weights_keep_to_their_type() -> None:
    quantities = bind(load())
    with torch.no_grad():
        for one in quantities.all:
            if isinstance(one, IntegerWeight):
                one.learned.copy_(1000 * torch.randn(one.learned.shape))
        computed = quantities.compute()
    limits = Counter()
    for one in quantities.all:
        tensor = constant_tensor(one.value)
        if isinstance(one, IntegerWeight) and tensor is not None:
            low, high = float(computed[one.value].min()), float(computed[one.value].max())
            limits[tensor.dtype.name, low, high] += 1
    assert limits["INT4", -8.0, 7.0] == 2


def test_zero_points_that_are_subtracted_behind_a_cast_are_found() -> None:
    model = load()
    found = {
        one.value.name: one
        for one in bind(model).all
        if isinstance(one, IntegerWeight) and one.zero_point is not None
    }
    assert set(found) == {"w1_int4", "w2_int4"}
    for one in found.values():
        assert one.scale is not None, "its scale is learned"
        tensor = constant_tensor(one.value)
        assert tensor is not None
        assert np.array_equal(one.compute({}).detach().numpy(), tensor.numpy().astype(np.float32))


@pytest.mark.parametrize(
    ("nodes", "has_zero_point"),
    [
        ("w = Sub(i, z) d = DequantizeLinear<axis = 0>(w, s, none) y = Conv(x, d)", True),
        ("w = Sub(i, z) d = DequantizeLinear<axis = 0>(w, s) y = Conv(x, d)", True),
        ("w = Sub(i, z) d = DequantizeLinear<axis = 0>(w, s, two) y = Conv(x, d)", None),
        ("z2 = Neg(z) w = Sub(i, z2) d = DequantizeLinear<axis = 0>(w, s) y = Conv(x, d)", None),
        ("w = Sub(i, across) d = DequantizeLinear<axis = 0>(w, s) y = Conv(x, d)", False),
        ("w = Sub(z, i) d = DequantizeLinear<axis = 0>(w, s) y = Conv(x, d)", None),
        ("d = DequantizeLinear<axis = 0>(i, s, none) y = Conv(x, d)", True),
    ],
    ids=[
        "zeros",
        "no-zeros",
        "two-zero-points",
        "computed",
        "across-the-scales",
        "the-other-way",
        "no-subtraction",
    ],
)
def test_what_is_subtracted_has_to_be_a_zero_point(nodes: str, has_zero_point: bool | None) -> None:
    arrays = {
        "q": np.int8(np.arange(4 * 9).reshape(4, 1, 3, 3) % 16 - 8),
        "z": np.int8([1, 2, 3, 4]).reshape(4, 1, 1, 1),
        "s": np.float32([1, 2, 3, 4]),
        "across": np.int8([1, 2, 3]).reshape(1, 1, 1, 3),
        "none": np.int8([0, 0, 0, 0]),
        "two": np.int8([2, 2, 2, 2]),
    }
    model = make_model(
        f"i = Cast<to = 3>(q) {nodes}", "float[1, 1, 8, 8] x", "float[1, 4, 6, 6] y", arrays
    )
    found = [use for use in iterate_weights(to_ir(model)) if use.elements.name == "q"]
    assert len(found) == (0 if has_zero_point is None else 1)
    for use in found:
        if not has_zero_point:
            assert (use.scale, use.zero_point) == (None, None)
            continue
        assert use.zero_point is not None
        assert use.zero_point.name == ("z" if "Sub" in nodes else "none")
        assert (use.scale.name if use.scale else "", use.axes) == ("s", (-1, 1, 1, 1))
        steps = arrays["q"] - (arrays["z"] if "Sub" in nodes else 0)
        real = dequantize(use)
        assert real is not None
        assert np.array_equal(real.numpy(), steps * arrays["s"].reshape(4, 1, 1, 1))


def test_real_weights_count_only_where_they_round_to_the_same_integers() -> None:
    model = load()
    plain = next(one for one in bind(model).all if isinstance(one, IntegerWeight) and one.scale)
    assert plain.scale is not None
    scale = plain.scale.first.reshape(plain.axes)
    offset = torch.zeros_like(plain.first)
    offset.view(-1)[0], offset.view(-1)[1] = 0.3, 0.7
    masters = {plain.value.name or "": (plain.first + offset) * scale}
    quantities = bind(model, masters=masters)
    bound = of(quantities, plain.value)
    assert isinstance(bound, IntegerWeight)
    assert torch.equal(bound.compute({}), plain.compute({}))
    difference = (bound.first - plain.first).view(-1)
    assert float(difference[0]) == pytest.approx(0.3, abs=1e-5)
    assert float(difference[1]) == 0.0


def test_seven_bit_weights_stay_so() -> None:
    integers = np.int8([[-63, 5], [63, 0]])
    from onnxq.training.binding import WeightLimits

    assert WeightLimits().of(ir.tensor(integers)) == (-63, 63)
    assert WeightLimits().of(ir.tensor(np.int8([[-64]]))) == (-127, 127)
    assert WeightLimits().of(ir.tensor(np.int8([[-128]]))) == (-128, 127)
