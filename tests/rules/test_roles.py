from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state

from onnxq.rules.forms import FORM_CHECKS
from onnxq.rules.roles import MICROSOFT, WEIGHT_ROLES, Form, WeightRole, find_role
from tests.models import float_weight, make_model

CONTRIB_SCHEMAS = {
    (schema.domain, schema.name): schema
    for schema in onnxruntime_pybind11_state.get_all_operator_schema()
}

every_role = pytest.mark.parametrize(
    "role",
    WEIGHT_ROLES,
    ids=lambda role: f"{role.domain or 'onnx'}.{role.operator}.{role.input_index}",
)


def _input_of(role: WeightRole) -> Any:
    if role.domain == "":
        inputs = onnx.defs.get_schema(role.operator).inputs
        variadic = onnx.defs.OpSchema.FormalParameterOption.Variadic
    else:
        inputs = CONTRIB_SCHEMAS[role.domain, role.operator].inputs
        variadic = onnxruntime_pybind11_state.schemadef.OpSchema.FormalParameterOption.Variadic
    if inputs[-1].option == variadic:
        return inputs[min(role.input_index, len(inputs) - 1)]
    return inputs[role.input_index]


@every_role
def test_every_row_is_an_input_of_its_operator_that_takes_floats(role: WeightRole) -> None:
    schema_input = _input_of(role)
    if role.domain == "":
        assert "tensor(float)" in schema_input.types
    else:
        # The schemas of onnxruntime name a type variable; its constraint lists the types.
        schema = CONTRIB_SCHEMAS[role.domain, role.operator]
        allowed = {
            one
            for constraint in schema.type_constraints
            if constraint.type_param_str == schema_input.typeStr
            for one in constraint.allowed_type_strs
        }
        assert "tensor(float)" in allowed


@every_role
def test_every_row_can_be_found(role: WeightRole) -> None:
    node = ir.node(role.operator, [None] * (role.input_index + 1), domain=role.domain)
    assert find_role(node, role.input_index) is role


def test_no_row_stands_twice() -> None:
    keys = [(role.domain, role.operator, role.input_index) for role in WEIGHT_ROLES]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize(
    ("operator", "domain", "index"),
    [
        pytest.param("MatMul", "", 2, id="no_such_input"),
        pytest.param("Gemm", "", 2, id="bias"),
        pytest.param("Add", "", 1, id="no_weight_operator"),
        pytest.param("MatMul", "com.example", 1, id="another_domain"),
        pytest.param("Attention", "", 1, id="attention_of_another_domain"),
    ],
)
def test_other_inputs_have_no_role(operator: str, domain: str, index: int) -> None:
    assert find_role(ir.node(operator, [None] * 3, domain=domain), index) is None


def test_the_long_name_of_the_standard_domain_is_the_short_one() -> None:
    node = ir.node("MatMul", [None, None], domain="ai.onnx")
    role = find_role(node, 1)
    assert role is not None
    assert role.domain == ""


@every_role
def test_every_form_of_a_row_has_a_check(role: WeightRole) -> None:
    assert set(role.forms) <= set(FORM_CHECKS)
    assert list(role.forms) == sorted(role.forms, key=list(Form).index)


def test_integer_forms() -> None:
    integer = {form for form in Form if form.is_integer}
    assert integer == {
        Form.CALIBRATED,
        Form.BLOCKED_MATMUL,
        Form.INTEGER_MATMUL,
        Form.INTEGER_LSTM,
        Form.INTEGER_ATTENTION,
    }


# FusedGemm insists on an activation; this one lets positive factors through.
LEAKY = 'activation = "LeakyRelu", activation_alpha = 0.25'

LINEAR = {
    "matmul_right": ("y = MatMul(x, w)", (2, 5), (5, 3), 1),
    "matmul_right_of_batch": ("y = MatMul(x, w)", (4, 2, 5), (5, 3), 1),
    "matmul_right_stack": ("y = MatMul(x, w)", (4, 2, 5), (4, 5, 3), 1),
    "matmul_left": ("y = MatMul(w, x)", (5, 2), (3, 5), 0),
    "matmul_left_stack": ("y = MatMul(w, x)", (4, 5, 2), (4, 3, 5), 0),
    "gemm_right": ("y = Gemm(x, w)", (2, 5), (5, 3), 1),
    "gemm_right_transposed": ("y = Gemm<transB = 1>(x, w)", (2, 5), (3, 5), 1),
    "gemm_left": ("y = Gemm(w, x)", (5, 2), (3, 5), 0),
    "gemm_left_transposed": ("y = Gemm<transA = 1>(w, x)", (5, 2), (5, 3), 0),
    "conv": ("y = Conv(x, w)", (1, 2, 6, 6), (3, 2, 3, 3), 1),
    "conv_depthwise": ("y = Conv<group = 3>(x, w)", (1, 3, 6, 6), (3, 1, 3, 3), 1),
    "conv_1d": ("y = Conv(x, w)", (1, 2, 6), (3, 2, 3), 1),
    "conv_transpose": ("y = ConvTranspose(x, w)", (1, 2, 4, 4), (2, 3, 3, 3), 1),
    "einsum": ('y = Einsum<equation = "ij,jk->ik">(x, w)', (2, 5), (5, 3), 1),
    "fused_matmul": ("y = com.microsoft.FusedMatMul(x, w)", (2, 5), (5, 3), 1),
    "fused_gemm": (f"y = com.microsoft.FusedGemm<{LEAKY}>(x, w)", (2, 5), (5, 3), 1),
    "fused_gemm_transposed": (
        f"y = com.microsoft.FusedGemm<{LEAKY}, transB = 1>(x, w)",
        (2, 5),
        (3, 5),
        1,
    ),
}


@pytest.mark.parametrize("name", sorted(LINEAR))
def test_axes_are_those_of_the_output_channels(name: str, rng: np.random.Generator) -> None:
    """A factor for each index along the axes is a factor for each channel of the output: it can be
    taken out of the sums, as the scales are. Powers of two make that exact."""
    text, input_shape, weight_shape, index = LINEAR[name]
    model = make_model(
        text, f"float{list(input_shape)} x, float{list(weight_shape)} w", "float[] y", contrib=True
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    node = ir.from_proto(model).graph[0]
    role = find_role(node, index)
    assert role is not None
    axes = role.axes(node, len(weight_shape))
    assert all(0 <= axis < len(weight_shape) for axis in axes)

    x, w = float_weight(rng, input_shape), float_weight(rng, weight_shape)
    sizes = [size if axis in axes else 1 for axis, size in enumerate(weight_shape)]
    factors = (2.0 ** np.arange(int(np.prod(sizes)))).astype(np.float32).reshape(sizes)
    (plain,) = session.run(None, {"x": x, "w": w})
    (scaled,) = session.run(None, {"x": x, "w": w * factors})
    ratios = scaled / plain
    assert set(np.unique(ratios)) == set(factors.ravel())
    # Each channel of the output has one factor: some axes of it tell the factors apart.
    assert any(
        np.all(np.ptp(ratios, axis=others) == 0)
        for count in range(1, ratios.ndim)
        for others in itertools.combinations(range(ratios.ndim), count)
    )


def test_recurrent_weights_have_a_scale_for_each_direction_and_gate() -> None:
    for operator, index in itertools.product(("LSTM", "GRU", "RNN"), (1, 2)):
        role = find_role(ir.node(operator, [None] * 3), index)
        assert role is not None
        assert role.axes(ir.node(operator, [None] * 3), 3) == (0, 1)


def test_tables_have_a_scale_for_each_row() -> None:
    role = find_role(ir.node("Gather", [None, None]), 0)
    assert role is not None
    assert role.axes(ir.node("Gather", [None, None]), 2) == (0,)


def test_the_contrib_domain() -> None:
    assert {role.domain for role in WEIGHT_ROLES} == {"", MICROSOFT}
