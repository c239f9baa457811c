from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.graph.constants import (
    Constant,
    constant_node_tensor,
    constant_tensor,
    dimensions,
    iterate_constants,
    release,
)
from onnxq.graph.files import load_model
from tests.models import (
    constant_node,
    float_weight,
    make_model,
    matmul_model,
    save_external,
    to_ir,
)


def _constants(model: ir.Model) -> dict[str, Constant]:
    return {one.name: one for one in iterate_constants(model)}


def _uses(constant: Constant) -> list[tuple[str, int, bool]]:
    return [(use.node.name or "?", use.input_index, use.transposed) for use in constant.uses]


def test_initializers_and_constant_nodes_of_every_body(rng: np.random.Generator) -> None:
    proto = make_model(
        """[mm] z = MatMul(x, w)
           [choose] i = If (c) <
             then_branch = t () => (a) <float[2] inner = {1, 2}> { a = Add(z, inner) },
             else_branch = e () => (b) { k = Constant<value = float[2] {3, 4}>() b = Add(z, k) }
           >
           y = local.f(i)""",
        "bool c, float[N, 3] x",
        "float[N, 2] y",
        {"w": float_weight(rng, (3, 2))},
        functions="""<domain: "local", opset_import: ["" : 17]> f (p) => (q) {
            one = Constant<value = float {1}>()
            q = Add(p, one)
        }""",
    )
    found = _constants(to_ir(proto))
    assert list(found) == ["w", "choose/then_branch/inner", "choose/else_branch/k", "f()/one"]
    functions = [one.scope.function and one.scope.function.name for one in found.values()]
    assert functions == [None, None, None, "f"]
    assert found["choose/else_branch/k"].tensor.numpy().tolist() == [3, 4]
    assert not any(one.overridable for one in found.values())


def test_an_initializer_that_is_an_input_too_is_overridable(rng: np.random.Generator) -> None:
    model = to_ir(
        make_model(
            "y = MatMul(x, w)",
            "float[N, 3] x, float[3, 2] w",
            "float[N, 2] y",
            {"w": float_weight(rng, (3, 2))},
        )
    )
    assert _constants(model)["w"].overridable
    assert constant_tensor(model.graph.initializers["w"]) is None


@pytest.mark.parametrize(
    ("transpose", "expected"),
    [
        pytest.param("Transpose<perm = [1, 0]>(w)", [("mm", 1, True)], id="swapped"),
        pytest.param("Transpose(w)", [("mm", 1, True)], id="default_swaps"),
        pytest.param("Transpose<perm = [0, 1]>(w)", [("t", 0, False)], id="identity"),
        pytest.param("Relu(w)", [("t", 0, False)], id="another_operator"),
    ],
)
def test_uses_are_seen_through_a_transpose_of_a_matrix(
    transpose: str, expected: list[tuple[str, int, bool]], rng: np.random.Generator
) -> None:
    model = to_ir(
        make_model(
            f"[t] wt = {transpose} [mm] y = MatMul(x, wt)",
            "float[N, 3] x",
            "float[N, 3] y",
            {"w": float_weight(rng, (3, 3))},
        )
    )
    assert _uses(_constants(model)["w"]) == expected


def test_uses_of_a_tied_weight(rng: np.random.Generator) -> None:
    model = to_ir(
        make_model(
            """[look] e = Gather(w, ids)
               [t] wt = Transpose<perm = [1, 0]>(w)
               [mm] y = MatMul(e, wt)
               [mm2] y2 = MatMul(e, wt)""",
            "int64[N] ids",
            "float[N, 5] y, float[N, 5] y2",
            {"w": float_weight(rng, (5, 3))},
        )
    )
    assert _uses(_constants(model)["w"]) == [("look", 0, False), ("mm", 1, True), ("mm2", 1, True)]


def test_a_transpose_that_is_an_output_of_the_model_is_a_reader_itself(
    rng: np.random.Generator,
) -> None:
    model = to_ir(
        make_model(
            "[t] wt = Transpose(w) [mm] y = MatMul(x, wt)",
            "float[N, 3] x",
            "float[N, 3] y, float[3, 3] wt",
            {"w": float_weight(rng, (3, 3))},
        )
    )
    assert _uses(_constants(model)["w"]) == [("t", 0, False)]


def test_a_transpose_of_more_axes_is_not_looked_through(rng: np.random.Generator) -> None:
    model = to_ir(
        make_model(
            "[t] wt = Transpose<perm = [0, 2, 1]>(w) [mm] y = MatMul(x, wt)",
            "float[2, N, 3] x",
            "float[2, N, 3] y",
            {"w": float_weight(rng, (2, 3, 3))},
        )
    )
    assert _uses(_constants(model)["w"]) == [("t", 0, False)]


def test_readers_in_inner_bodies_count(rng: np.random.Generator) -> None:
    model = to_ir(
        make_model(
            """[choose] y = If (c) <
                 then_branch = t () => (a) { [left] a = MatMul(x, w) },
                 else_branch = e () => (b) { [right] b = MatMul(x, w) }
               >""",
            "bool c, float[N, 3] x",
            "float[N, 2] y",
            {"w": float_weight(rng, (3, 2))},
        )
    )
    assert _uses(_constants(model)["w"]) == [("left", 1, False), ("right", 1, False)]


@pytest.mark.parametrize(
    ("attribute", "is_tensor"),
    [
        pytest.param("value = float[2] {1, 2}", True, id="value"),
        pytest.param("value_float = 1.0", False, id="value_float"),
        pytest.param("value_ints = [1, 2]", False, id="value_ints"),
        pytest.param('value_string = "a"', False, id="value_string"),
    ],
)
def test_dense_constant_nodes(attribute: str, is_tensor: bool) -> None:
    model = to_ir(make_model(f"y = Constant<{attribute}>()", "", "y"))
    assert (constant_node_tensor(model.graph[0]) is not None) is is_tensor


def test_constant_tensor_of_values() -> None:
    proto = make_model(
        "k = Identity(x) y = Add(x, k)", "float[2] x", "float[2] y", {"w": np.ones(2, np.float32)}
    )
    proto.graph.node.insert(0, constant_node(np.zeros(2, np.float32), "c"))
    model = to_ir(proto)
    assert constant_tensor(None) is None
    assert constant_tensor(model.graph.inputs[0]) is None
    assert constant_tensor(model.graph.node("c_node").outputs[0]) is not None
    assert constant_tensor(model.graph[1].outputs[0]) is None
    assert constant_tensor(model.graph.initializers["w"]) is not None


def test_dimensions_are_integers(rng: np.random.Generator) -> None:
    model = to_ir(matmul_model(float_weight(rng, (3, 2))))
    found = dimensions(_constants(model)["w"].tensor)
    assert found == (3, 2)
    assert all(type(size) is int for size in found)


def test_a_released_tensor_can_be_read_again(rng: np.random.Generator, tmp_path: Path) -> None:
    weight = float_weight(rng, (3, 2))
    file = load_model(save_external(matmul_model(weight), tmp_path / "model.onnx"))
    tensor = _constants(file.model)["w"].tensor
    assert isinstance(tensor, ir.ExternalTensor)
    for _ in range(2):
        assert np.array_equal(tensor.numpy(), weight)
        release(tensor)
    release(ir.tensor(weight))
