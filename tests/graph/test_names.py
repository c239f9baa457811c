from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.graph.names import Names
from tests.models import make_model, to_ir


@pytest.fixture
def model() -> ir.Model:
    return to_ir(
        make_model(
            """[first] z = Add(x, w)
               [choose] y = If (c) <
                 then_branch = t () => (inner) { [in_body] inner = Neg(z) },
                 else_branch = e () => (other) { other = local.f(z) }
               >""",
            "bool c, float[2] x",
            "float[2] y",
            {"w": np.ones(2, np.float32)},
            functions="""<domain: "local", opset_import: ["" : 17]>
                f (p) => (q) { [in_function] q = Relu(p) }""",
        )
    )


@pytest.mark.parametrize("taken", ["x", "c", "w", "z", "y", "inner", "other", "p", "q"])
def test_names_of_values_are_taken_in_every_body(model: ir.Model, taken: str) -> None:
    assert Names(model).new_value(taken) == f"{taken}_2"


@pytest.mark.parametrize("taken", ["first", "choose", "in_body", "in_function"])
def test_names_of_nodes_are_taken_in_every_body(model: ir.Model, taken: str) -> None:
    assert Names(model).new_node(taken) == f"{taken}_2"


def test_nodes_and_values_have_separate_names(model: ir.Model) -> None:
    names = Names(model)
    assert names.new_value("first") == "first"
    assert names.new_node("w") == "w"


def test_a_name_is_handed_out_once(model: ir.Model) -> None:
    names = Names(model)
    assert [names.new_value("new") for _ in range(3)] == ["new", "new_2", "new_3"]
    assert names.new_value("new_2") == "new_2_2"
