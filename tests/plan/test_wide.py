"""Nodes in 16 bits beside others in 8: what is planned for each of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from onnxq.plan import CalibrationPlan, Plan, StaticOptions
from onnxq.plan.requirements import required_opset
from onnxq.schemes import ActivationScheme, ActivationType, CalibratedFormat, WeightType
from onnxq.targets import TARGETS
from tests.plan.planning import ONNX, ORT
from tests.plan.static_planning import static_model, static_plan

CHAIN = "[a] p = Conv(x, k1) [b] q = Conv(p, k2) [c] r = Conv(q, k3) [end] y = Neg(r)"


def _plan(nodes: str, *wide: str, **options: Any) -> Plan:
    return static_plan(static_model(nodes), target=ONNX, wide=wide, **options)


def _types(decisions: CalibrationPlan) -> dict[tuple[str, str], set[str]]:
    """The members of each activation, by its name and type."""
    return {
        (one.name, str(one.scheme)): {value.name or "" for value in one.members}
        for one in decisions.activations
    }


def _schemes(plan: Plan) -> dict[str, str]:
    return {one.name: str(one.scheme) for one in plan.changes}


def test_each_node_reads_and_gives_its_own_type() -> None:
    plan = _plan(CHAIN, "b")
    decisions = plan.decisions
    assert {one.name: str(one.scheme) for one in decisions.nodes} == {
        "a": "uint8",
        "b": "uint16",
        "c": "uint8",
    }
    assert _types(decisions) == {
        ("x", "uint8"): {"x"},
        ("p", "uint8"): {"p"},
        ("p", "uint16"): {"p"},
        ("q", "uint16"): {"q"},
        ("q", "uint8"): {"q"},
        ("r", "uint8"): {"r"},
    }
    assert _schemes(plan) == {
        "k1": "int8 per channel",
        "k2": "int16 per channel",
        "k3": "int8 per channel",
    }
    assert len(decisions.owners) == 6


def test_newer_operators_only_with_16_bits() -> None:
    assert required_opset(_plan(CHAIN, "b"), ONNX) == 21
    assert required_opset(_plan(CHAIN), ONNX) == 13


def test_a_float_tensor_with_readers_of_both_widths_has_both_types() -> None:
    nodes = "[a] p = Conv(x, k1) [b] q = Conv(x, k2) [sum] y = Sub(p, q)"
    assert {
        key: members for key, members in _types(_plan(nodes, "b").decisions).items() if "x" in key
    } == {("x", "uint8"): {"x"}, ("x", "uint16"): {"x"}}


def test_what_is_moved_has_the_range_of_what_it_was_in_its_own_type() -> None:
    nodes = """[a] p = Conv(x, k1) [pool] m = MaxPool<kernel_shape = [2, 2]>(p)
               [b] q = Conv(m, k2) [end] y = Neg(q)"""
    outside = _types(_plan(nodes, "b").decisions)
    assert outside["p", "uint8"] == {"p", "m"}
    # The copy alone is read in 16 bits.
    assert outside["p", "uint16"] == {"m"}
    inside = _types(_plan(nodes, "pool", "b").decisions)
    assert inside["p", "uint8"] == {"p"}
    assert inside["p", "uint16"] == {"p", "m"}


def test_limits_of_a_relu_hold_in_both_types() -> None:
    nodes = CHAIN.replace("[b]", "s = Relu(p) [b]").replace("Conv(p", "Conv(s")
    found = [one for one in _plan(nodes, "b").decisions.activations if one.name == "s"]
    assert len(found) == 2
    assert all(one.bounds is not None and one.has_fixed_zero_point for one in found)


def test_a_weight_that_any_wide_node_reads_has_16_bits() -> None:
    plan = _plan(CHAIN.replace("k2", "k1"), "b")
    assert _schemes(plan)["k1"] == "int16 per channel"
    assert {use.form.value for one in plan.changes for use in one.uses} == {"calibrated"}


def test_one_scale_for_the_tensor_where_that_is_asked_for() -> None:
    assert _schemes(_plan(CHAIN, "b", per_channel=False))["k2"] == "int16 per tensor"


def test_what_its_neighbours_leave_in_float_has_no_weight_of_8_bits() -> None:
    """Without a strong layer beside it a region stays float: 8 bits would be no better in it."""
    nodes = "[t] p = Conv(x, thin1) [end] y = Neg(p)"
    model = static_model(nodes, "float[1, 16, 8, 8] x")
    assert {str(one.scheme) for one in static_plan(model, target=ONNX).changes} <= {
        "int8 per channel"
    }
    assert {str(one.scheme) for one in static_plan(model, target=ONNX, wide=("t",)).changes} == {
        "fp16"
    }


@pytest.mark.parametrize(
    ("activations", "wide"),
    [
        (ActivationScheme(), "uint16"),
        (ActivationScheme(symmetric=True), "uint16 symmetric"),
        (ActivationScheme(type=ActivationType.INT8, symmetric=True), "int16 symmetric"),
        (ActivationScheme(type=ActivationType.UINT4), "uint16"),
    ],
    ids=str,
)
def test_16_bits_have_the_signs_that_are_asked_for(
    activations: ActivationScheme, wide: str
) -> None:
    options = StaticOptions(activations=activations)
    assert str(options.wide_activations) == wide
    assert options.wide_activations.type in ONNX.activation_types


@pytest.mark.parametrize(
    ("options", "can_widen"),
    [
        (StaticOptions(), True),
        (StaticOptions(weights=WeightType.INT4), True),
        (StaticOptions(weights=WeightType.INT16), False),
        (StaticOptions(activations=ActivationScheme(type=ActivationType.UINT16)), False),
        (StaticOptions(format=CalibratedFormat.OPERATORS), False),
    ],
    ids=["8-bit", "int4", "int16-weights", "uint16-activations", "operators"],
)
def test_when_there_are_16_bits_besides(options: StaticOptions, can_widen: bool) -> None:
    assert options.can_widen(ONNX) is can_widen
    assert not options.can_widen(ORT)
    assert not options.can_widen(replace(ONNX, wide_gain=0.0))


def test_targets_that_gain_from_16_bits_have_their_types() -> None:
    for target in TARGETS:
        assert 0.0 <= target.wide_gain <= 1.0
        if target.wide_gain:
            assert {ActivationType.UINT16, ActivationType.INT16} <= set(target.activation_types)
            assert WeightType.INT16 in target.calibrated_weight_types
