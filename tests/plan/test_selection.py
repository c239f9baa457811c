from __future__ import annotations

import onnx_ir as ir
import pytest

from onnxq.errors import EXIT_USAGE, SelectorError
from onnxq.plan.selection import follow_nodes, name_excluded_nodes, select_nodes
from tests.models import make_model, to_ir


@pytest.fixture
def model() -> ir.Model:
    return to_ir(
        make_model(
            """[encoder_query] a = MatMul(x, x)
               [encoder_key] b = MatMul(a, x)
               c2 = Relu(b)
               [choose] y = If (c) <
                 then_branch = t () => (p) { [query] p = MatMul(c2, x) },
                 else_branch = e () => (q) { [same] q = Neg(c2) }
               >""",
            "bool c, float[4, 4] x",
            "float[4, 4] y",
        )
    )


def _excluded(model: ir.Model, **selectors: tuple[str, ...]) -> dict[str, str]:
    selection = select_nodes(model, **selectors)
    return {selection.labels[node]: why for node, why in selection.excluded.items()}


EVERY = {"encoder_query", "encoder_key", "Relu#2", "choose", "choose/then_branch/query",
         "choose/else_branch/same"}  # fmt: skip


def test_labels_are_unique_and_readable(model: ir.Model) -> None:
    assert set(select_nodes(model).labels.values()) == EVERY


def test_without_selectors_nothing_is_left_out(model: ir.Model) -> None:
    assert _excluded(model) == {}


@pytest.mark.parametrize(
    ("globs", "kept"),
    [
        pytest.param(("encoder_*",), {"encoder_query", "encoder_key"}, id="prefix"),
        pytest.param(("*query",), {"encoder_query", "choose/then_branch/query"}, id="suffix"),
        pytest.param(("query",), {"choose/then_branch/query"}, id="name_without_scope"),
        pytest.param(
            ("choose/*",),
            {"choose/then_branch/query", "choose/else_branch/same"},
            id="name_with_scope",
        ),
        pytest.param(("Relu#?",), {"Relu#2"}, id="unnamed_node"),
        pytest.param(("encoder_key", "same"), {"encoder_key", "choose/else_branch/same"}, id="two"),
        pytest.param(("*",), EVERY, id="everything"),
    ],
)
def test_include(model: ir.Model, globs: tuple[str, ...], kept: set[str]) -> None:
    excluded = _excluded(model, include=globs)
    assert excluded == dict.fromkeys(EVERY - kept, "left out by --include")


def test_exclude_names_the_glob(model: ir.Model) -> None:
    assert _excluded(model, exclude=("same", "encoder_*")) == {
        "encoder_query": "left out by --exclude encoder_*",
        "encoder_key": "left out by --exclude encoder_*",
        "choose/else_branch/same": "left out by --exclude same",
    }


def test_exclude_wins_over_include(model: ir.Model) -> None:
    excluded = _excluded(model, include=("encoder_*",), exclude=("*_key",))
    assert "encoder_query" not in excluded
    assert excluded["encoder_key"] == "left out by --exclude *_key"


def test_operator_types(model: ir.Model) -> None:
    assert set(_excluded(model, op_types=("MatMul", "Neg"))) == {"Relu#2", "choose"}


def test_matching_is_case_sensitive() -> None:
    model = to_ir(make_model("[Key] a = Neg(x) [key] y = Neg(a)", "float[1] x", "float[1] y"))
    assert _excluded(model, exclude=("k*",)) == {"key": "left out by --exclude k*"}
    with pytest.raises(SelectorError):
        _excluded(model, include=("KEY",))


@pytest.mark.parametrize(
    ("selectors", "glob", "nearest"),
    [
        pytest.param({"include": ("encoder_qery",)}, "encoder_qery", "encoder_query", id="include"),
        pytest.param(
            {"exclude": ("*encoder_keys*",)}, "*encoder_keys*", "encoder_key", id="exclude"
        ),
        pytest.param(
            {"include": ("same",), "exclude": ("choos",)}, "choos", "choose", id="second_selector"
        ),
        pytest.param({"op_types": ("MatMull",)}, "MatMull", "MatMul", id="op_types"),
        pytest.param({"op_types": ("matmul",)}, "matmul", "MatMul", id="op_types_case"),
    ],
)
def test_a_selector_that_matches_nothing_is_an_error_with_the_nearest_name_first(
    model: ir.Model, selectors: dict[str, tuple[str, ...]], glob: str, nearest: str
) -> None:
    with pytest.raises(SelectorError) as caught:
        _excluded(model, **selectors)
    assert caught.value.exit_code == EXIT_USAGE
    assert glob in str(caught.value)
    assert f"nearest names: {nearest}" in str(caught.value)


def test_a_model_without_nodes(model: ir.Model) -> None:
    empty = to_ir(make_model("", "float[1] x", "float[1] x"))
    with pytest.raises(SelectorError, match="the model has no nodes"):
        _excluded(empty, include=("a",))


def test_a_copy_of_the_model_keeps_the_selection(model: ir.Model) -> None:
    selection = select_nodes(model, exclude=("Relu#2", "choose/then_branch/*"))
    name_excluded_nodes(selection)
    copy = ir.from_proto(ir.to_proto(model))
    followed = follow_nodes(selection, copy)
    assert {node.name for node in followed.excluded} == {"Relu#2", "query"}
    assert not set(followed.excluded) & set(selection.excluded)
