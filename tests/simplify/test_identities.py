from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxq.simplify.identities import IDENTITIES, refuse_removal, remove_identities
from onnxq.simplify.unused import remove_unused
from tests.models import make_model, to_ir
from tests.simplify.equality import assert_equal, change, operators, operators_in_runtime

X = np.linspace(-1, 1, 4, dtype=np.float32)
CONSTANTS = {
    "half": np.float32(0.5),
    "no": np.array(False),
    "yes": np.array(True),
}
REMOVED = {
    "identity": "a = Identity(h)",
    "identities": "b = Identity(h) c = Identity(b) a = Identity(c)",
    "dropout": "a = Dropout(h)",
    "dropout_with_a_ratio": "a = Dropout(h, half)",
    "dropout_that_does_not_train": "a = Dropout(h, half, no)",
    "dropout_with_a_mask": "a, mask = Dropout(h)",
    "cast_of_an_input": "b = Cast<to = 1>(x) a = Abs(b)",
}


def _remove(model: onnx.ModelProto) -> onnx.ModelProto:
    return change(model, remove_identities, remove_unused)


def _model(nodes: str, *, opset: int = 17, outputs: str = "float[4] y") -> onnx.ModelProto:
    return make_model(nodes, "float[4] x", outputs, dict(CONSTANTS), opset=opset)


@pytest.mark.parametrize("case", sorted(REMOVED))
def test_removed(case: str, tmp_path: Path) -> None:
    model = _model(f"h = Neg(x) {REMOVED[case]} y = Add(a, h)")
    removed = _remove(model)
    assert not set(operators(removed)) & IDENTITIES
    assert_equal(model, removed, {"x": X})
    assert sorted(operators_in_runtime(model, tmp_path)) == sorted(operators(removed))


def test_dropout_of_opset_7_never_trains() -> None:
    model = _model("h = Neg(x) a = Dropout<ratio = 0.5>(h) y = Abs(a)", opset=7)
    removed = _remove(model)
    assert operators(removed) == ["Neg", "Abs"]
    assert_equal(model, removed, {"x": X})


def test_a_cast_to_the_known_type_of_a_node() -> None:
    model = _model("h = Neg(x) a = Cast<to = 1>(h) y = Abs(a)")
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("h", 1, [4]))
    removed = _remove(model)
    assert operators(removed) == ["Neg", "Abs"]
    assert_equal(model, removed, {"x": X})


def test_what_is_known_of_the_output_stays_known() -> None:
    model = _model("h = Neg(x) a = Identity(h) y = Abs(a)")
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("a", 1, [4]))
    (known,) = _remove(model).graph.value_info
    assert known == onnx.helper.make_tensor_value_info("h", 1, [4])


def test_readers_in_bodies_read_on() -> None:
    model = make_model(
        """h = Neg(x) a = Identity(h)
           y = If (c) <
             then_branch = t () => (p) { p = Abs(a) },
             else_branch = e () => (q) { q = Add(a, a) }
           >""",
        "float[4] x, bool c",
        "float[4] y",
    )
    removed = _remove(model)
    assert operators(removed) == ["Neg", "If"]
    for choice in (True, False):
        assert_equal(model, removed, {"x": X, "c": np.array(choice)})


def test_within_a_body() -> None:
    model = make_model(
        """y = If (c) <
             then_branch = t () => (p) { a = Neg(x) b = Identity(a) p = Abs(b) },
             else_branch = e () => (q) { q = Neg(x) }
           >""",
        "float[4] x, bool c",
        "float[4] y",
    )
    removed = _remove(model)
    (branch,) = (one.g for one in removed.graph.node[0].attribute if one.name == "then_branch")
    assert [one.op_type for one in branch.node] == ["Neg", "Abs"]
    assert_equal(model, removed, {"x": X, "c": np.array(True)})


def test_the_state_of_a_loop() -> None:
    """Its output has to have a name of its own, though what it hands on is an input."""
    model = make_model(
        """y = Loop (trips, go, x) <
             body = b (int64 i, bool more, float[4] s) => (bool again, float[4] t) {
               again = Identity(more) u = Identity(s) v = Neg(u) t = Add(u, v)
             }
           >""",
        "float[4] x, int64 trips, bool go",
        "float[4] y",
    )
    removed = _remove(model)
    (body,) = (one.g for one in removed.graph.node[0].attribute)
    assert [one.op_type for one in body.node] == ["Identity", "Neg", "Add"]
    assert_equal(model, removed, {"x": X, "trips": np.array(2), "go": np.array(True)})


def test_kept_nodes_stay() -> None:
    model = to_ir(_model("h = Neg(x) a = Identity(h) b = Identity(a) y = Abs(b)"))
    remove_identities(model, [model.graph[1]])
    assert [node.op_type for node in model.graph] == ["Neg", "Identity", "Abs"]


def test_functions_stay() -> None:
    model = to_ir(
        make_model(
            "y = local.f(x)",
            "float[4] x",
            "float[4] y",
            functions="""<domain: "local", opset_import: ["" : 17]> f (p) => (q) {
                a = Identity(p) q = Neg(a)
            }""",
        )
    )
    remove_identities(model)
    (function,) = model.functions.values()
    assert [node.op_type for node in function] == ["Identity", "Neg"]


REFUSALS = {
    "output": ("h = Neg(x) [stays] y = Identity(h)", "gives an output its name"),
    "input_to_output": ("[stays] y = Identity(x)", "gives an output its name"),
    "other_type": (
        "h = Neg(x) [stays] a = Cast<to = 11>(h) b = Neg(a) y = Cast<to = 1>(b)",
        "is not known to keep the type",
    ),
    "unknown_type": (
        "h = Neg(x) [stays] a = Cast<to = 1>(h) y = Abs(a)",
        "is not known to keep the type",
    ),
    "mask": ("[stays] a, m = Dropout(x) n = Cast<to = 1>(m) y = Add(a, n)", "its mask is read"),
    "training": ("[stays] a = Dropout(x, half, yes) y = Neg(a)", "may be in training mode"),
    "perhaps_training": (
        "t = Identity(yes) s = Not(t) [stays] a = Dropout(x, half, s) y = Neg(a)",
        "may be in training mode",
    ),
}


@pytest.mark.parametrize("case", sorted(REFUSALS))
def test_refusals(case: str) -> None:
    nodes, reason = REFUSALS[case]
    model = to_ir(_model(nodes))
    node = next(one for one in model.graph if one.name == "stays")
    assert refuse_removal(node, 17) == reason
    remove_identities(model)
    assert node in list(model.graph)


def test_refusal_of_an_old_dropout() -> None:
    model = to_ir(_model("a = Dropout(x) y = Neg(a)", opset=6))
    assert refuse_removal(model.graph[0], 6) == "may be in training mode"


def test_refusal_of_an_input_in_another_body() -> None:
    model = to_ir(
        make_model(
            """h = Neg(x)
               y = If (c) <
                 then_branch = t () => (p) { a = Identity(h) p = Abs(a) },
                 else_branch = e () => (q) { b = Identity(x) q = Abs(b) }
               >""",
            "float[4] x, bool c",
            "float[4] y",
        )
    )
    for name in ("then_branch", "else_branch"):
        node = model.graph[1].attributes[name].as_graph()[0]
        assert refuse_removal(node, 17) == "its input is in another body"
    remove_identities(model)
    assert [
        len(model.graph[1].attributes[one].as_graph()) for one in model.graph[1].attributes
    ] == [
        2,
        2,
    ]


def test_a_namesake_of_another_domain_stays() -> None:
    model = to_ir(_model("h = Neg(x) a = local.Identity(h) y = Abs(a)"))
    remove_identities(model)
    assert len(model.graph) == 3
