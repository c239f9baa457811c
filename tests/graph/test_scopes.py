from __future__ import annotations

import onnx_ir as ir
import pytest

from onnxq.graph.scopes import iterate_bodies, iterate_scopes, node_label
from tests.models import make_model, to_ir


@pytest.fixture
def nested() -> ir.Model:
    return to_ir(
        make_model(
            """z = Relu(x)
               [choose] i = If (c) <
                 then_branch = t () => (a) { a = Neg(z) },
                 else_branch = e () => (b) {
                   n = Neg(z)
                   b = If (c) <
                     then_branch = t2 () => (p) { p = Abs(n) },
                     else_branch = e2 () => (q) { q = Exp(n) }
                   >
                 }
               >
               y = Loop (m, c, i) <
                 body = body_graph (int64 it, bool go, float[4] s) => (go_on, next) {
                   go_on = Identity(go)
                   next = Log(s)
                 }
               >""",
            "bool c, int64 m, float[4] x",
            "float[4] y",
        )
    )


def test_outer_before_inner_in_file_order(nested: ir.Model) -> None:
    scopes = list(iterate_scopes(nested))
    assert [scope.name for scope in scopes] == [
        "",
        "choose/then_branch",
        "choose/else_branch",
        "choose/else_branch/If#1/then_branch",
        "choose/else_branch/If#1/else_branch",
        "Loop#2/body",
    ]
    operators = [[node.op_type for node in scope.graph] for scope in scopes]
    assert operators == [
        ["Relu", "If", "Loop"],
        ["Neg"],
        ["Neg", "If"],
        ["Abs"],
        ["Exp"],
        ["Identity", "Log"],
    ]


def test_bodies_have_the_opset_of_the_model(nested: ir.Model) -> None:
    assert {scope.opset for scope in iterate_scopes(nested)} == {17}
    assert not any(scope.function for scope in iterate_scopes(nested))
    assert all(scope.has_initializers for scope in iterate_scopes(nested))


def test_functions_have_their_own_opset_and_their_bodies_belong_to_them() -> None:
    model = to_ir(
        make_model(
            "y = local.f(c, x)",
            "bool c, float[4] x",
            "float[4] y",
            opset=17,
            functions="""<domain: "local", opset_import: ["" : 13]>
                f (c, a) => (b) {
                  [choose] b = If (c) <
                    then_branch = t () => (p) { p = Neg(a) },
                    else_branch = e () => (q) { q = Abs(a) }
                  >
                }""",
        )
    )
    (function,) = model.functions.values()
    scopes = list(iterate_scopes(model))
    found = [(one.name, one.function, one.has_initializers, one.opset) for one in scopes]
    assert found == [
        ("", None, True, 17),
        ("f()", function, False, 13),
        ("f()/choose/then_branch", function, True, 13),
        ("f()/choose/else_branch", function, True, 13),
    ]


def test_paths_of_names(nested: ir.Model) -> None:
    main, then_branch, *_ = iterate_scopes(nested)
    assert main.path_of("w") == "w"
    assert then_branch.path_of("w") == "choose/then_branch/w"


def test_labels_of_nodes(nested: ir.Model) -> None:
    labels = [node_label(node, index) for index, node in enumerate(nested.graph)]
    assert labels == ["Relu#0", "choose", "Loop#2"]


def test_bodies_of_a_node(nested: ir.Model) -> None:
    relu, choose, loop = nested.graph
    assert [name for name, _ in iterate_bodies(relu)] == []
    assert [name for name, _ in iterate_bodies(choose)] == ["then_branch", "else_branch"]
    assert [name for name, _ in iterate_bodies(loop)] == ["body"]


def test_an_attribute_that_refers_to_a_parameter_has_no_body() -> None:
    model = to_ir(
        make_model(
            "y = local.f<t = 1>(x)",
            "float[4] x",
            "float[4] y",
            functions="""<domain: "local", opset_import: ["" : 17]>
                f <t>(a) => (b) { b = Cast<to: int = @t>(a) }""",
        )
    )
    scopes = list(iterate_scopes(model))
    assert [scope.name for scope in scopes] == ["", "f()"]
