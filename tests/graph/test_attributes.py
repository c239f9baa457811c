from __future__ import annotations

import onnx_ir as ir
import pytest

from onnxq.graph.attributes import float_attribute, has_reference, int_attribute, is_set
from tests.models import make_model, to_ir


@pytest.fixture
def referring() -> ir.Node:
    """A node in a function, one attribute of which the caller sets."""
    model = to_ir(
        make_model(
            "y = local.f<t = 1>(x, x)",
            "float[4, 4] x",
            "float[4, 4] y",
            functions="""<domain: "local", opset_import: ["" : 17]>
                f <t>(a, b) => (c) { c = Gemm<transB: int = @t, alpha = 0.5>(a, b) }""",
        )
    )
    (function,) = model.functions.values()
    return function[0]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [({}, False), ({"transB": 0}, False), ({"transB": 1}, True), ({"transA": 1}, False)],
    ids=["absent", "zero", "one", "another"],
)
def test_is_set(attributes: dict[str, int], expected: bool) -> None:
    assert is_set(ir.node("Gemm", [None, None], attributes=attributes), "transB") is expected


def test_defaults() -> None:
    node = ir.node("Gemm", [None, None], attributes={"alpha": 0.5, "transA": 2})
    assert float_attribute(node, "alpha", 1.0) == 0.5
    assert float_attribute(node, "beta", 1.0) == 1.0
    assert int_attribute(node, "transA", 0) == 2
    assert int_attribute(node, "transB", 7) == 7


def test_a_reference_to_the_caller_has_no_value(referring: ir.Node) -> None:
    assert has_reference(referring)
    assert not is_set(referring, "transB")
    assert int_attribute(referring, "transB", 7) == 7
    assert float_attribute(referring, "transB", 7.0) == 7.0
    assert float_attribute(referring, "alpha", 1.0) == 0.5


def test_ordinary_nodes_refer_to_nothing() -> None:
    assert not has_reference(ir.node("Gemm", [None, None], attributes={"transB": 1}))
    assert not has_reference(ir.node("Relu", [None]))
