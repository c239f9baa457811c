from __future__ import annotations

import numpy as np

from onnxq.simplify.unused import remove_unused
from tests.models import make_model
from tests.simplify.equality import assert_equal, change, operators

ONE = np.ones(2, np.float32)


def test_nodes_and_constants_without_a_reader_go() -> None:
    model = make_model(
        "d = Add(x, a) e = Neg(d) y = Add(x, b)",
        "float[2] x",
        "float[2] y",
        {"a": ONE, "b": ONE, "c": ONE},
    )
    changed = change(model, remove_unused)
    assert operators(changed) == ["Add"]
    assert [tensor.name for tensor in changed.graph.initializer] == ["b"]
    assert_equal(model, changed, {"x": ONE})


def test_inputs_and_outputs_stay() -> None:
    model = make_model(
        "y = Neg(x)",
        "float[2] x, float[2] unused, float[2] a",
        "float[2] y, float[2] b",
        {"a": ONE, "b": ONE},
    )
    changed = change(model, remove_unused)
    assert [one.name for one in changed.graph.input] == ["x", "unused", "a"]
    assert [tensor.name for tensor in changed.graph.initializer] == ["a", "b"]


def test_what_only_a_body_reads_stays_and_what_no_body_reads_goes() -> None:
    model = make_model(
        """y = If (c) <
             then_branch = t () => (p) <float[2] inner = {1, 2}> { q = Neg(x) p = Add(x, a) },
             else_branch = e () => (r) { r = Neg(x) }
           >""",
        "bool c, float[2] x",
        "float[2] y",
        {"a": ONE, "b": ONE},
    )
    changed = change(model, remove_unused)
    assert [tensor.name for tensor in changed.graph.initializer] == ["a"]
    (branch,) = (one.g for one in changed.graph.node[0].attribute if one.name == "then_branch")
    assert [node.op_type for node in branch.node] == ["Add"]
    assert not branch.initializer
    assert_equal(model, changed, {"c": np.array(True), "x": ONE})


def test_optional_outputs_that_are_read_stay() -> None:
    model = make_model("y, mask = Dropout(x) z = Not(mask)", "float[2] x", "float[2] y, bool[2] z")
    assert operators(change(model, remove_unused)) == ["Dropout", "Not"]
