from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper

from onnxq.errors import UnsupportedModelError
from onnxq.graph import opset
from onnxq.graph.constants import iterate_constants
from onnxq.graph.files import load_model
from onnxq.graph.opset import raise_copy, raise_opset
from onnxq.graph.scopes import iterate_scopes
from tests.models import float_weight, make_model, matmul_model, save, save_external, to_ir


def _run(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    content = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


@pytest.mark.parametrize(
    ("nodes", "opset", "wanted"),
    [
        pytest.param("z = MatMul(x, w) y = Relu(z)", 7, 11, id="matmul_7_to_11"),
        pytest.param(
            "z = MatMul(x, w) y = Unsqueeze<axes = [0]>(z)", 9, 13, id="axes_become_input"
        ),
        pytest.param("z = MatMul(x, w) y = Softmax<axis = 1>(z)", 9, 13, id="softmax_9_to_13"),
        pytest.param("z = MatMul(x, w) y = Relu(z)", 17, 21, id="relu_17_to_21"),
    ],
)
def test_the_raised_model_computes_the_same(
    nodes: str, opset: int, wanted: int, rng: np.random.Generator
) -> None:
    original = to_ir(
        make_model(
            nodes,
            "float[2, 3] x",
            "float[] y",
            {"w": float_weight(rng, (3, 4))},
            opset=opset,
            ir_version=4,
        )
    )
    original.graph.outputs[0].shape = None
    feeds = {"x": rng.standard_normal((2, 3)).astype(np.float32)}
    raised = raise_opset(original, wanted, path=Path("model.onnx"))
    assert raised.opset_imports[""] == wanted
    for before, after in zip(_run(original, feeds), _run(raised, feeds), strict=True):
        assert np.array_equal(before, after)


def test_a_scan_with_a_batch_axis_is_refused(rng: np.random.Generator) -> None:
    nodes = """z = MatMul(x, w)
        last, y = Scan <num_scan_inputs = 1, body = step (float[4] a, float[4] b) => (float[4] c,
        float[4] d) { c = Add(a, b) d = Identity(c) }> ("", start, z)"""
    constants = {"w": float_weight(rng, (3, 4)), "start": np.zeros((1, 4), np.float32)}
    model = make_model(
        nodes, "float[1, 5, 3] x", "float[1, 5, 4] y", constants, opset=8, ir_version=4
    )
    with pytest.raises(
        UnsupportedModelError, match=r"cannot do for Scan, .* export it with opset 11"
    ):
        raise_opset(to_ir(model), 11, path=Path("model.onnx"))


def test_the_original_is_left_alone(rng: np.random.Generator) -> None:
    original = to_ir(matmul_model(float_weight(rng, (3, 4)), opset=9))
    before = ir.to_proto(original).SerializeToString()
    raise_opset(original, 11, path=Path("model.onnx"))
    assert ir.to_proto(original).SerializeToString() == before


def test_names_of_inputs_and_outputs_stay(rng: np.random.Generator) -> None:
    raised = raise_opset(
        to_ir(matmul_model(float_weight(rng, (3, 4)), opset=9)), 13, path=Path("model.onnx")
    )
    assert [value.name for value in raised.graph.inputs] == ["x"]
    assert [value.name for value in raised.graph.outputs] == ["y"]


def test_other_domains_stay(rng: np.random.Generator) -> None:
    model = make_model(
        "z = MatMul(x, w) y = com.microsoft.Gelu(z)",
        "float[2, 3] x",
        "float[2, 4] y",
        {"w": float_weight(rng, (3, 4))},
        opset=11,
        contrib=True,
    )
    raised = raise_opset(to_ir(model), 13, path=Path("model.onnx"))
    assert raised.opset_imports["com.microsoft"] == 1
    assert [node.op_type for node in raised.graph] == ["MatMul", "Gelu"]


def test_external_weights_can_still_be_read(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = float_weight(rng, (3, 4))
    (tmp_path / "elsewhere").mkdir()
    path = save_external(matmul_model(weight, opset=9, ir_version=4), tmp_path / "model.onnx")
    file = load_model(path)
    monkeypatch.chdir(tmp_path / "elsewhere")
    raised = raise_opset(file.model, 11, path=path)
    tensor = raised.graph.initializers["w"].const_value
    assert tensor is not None
    assert np.array_equal(tensor.numpy(), weight)


def test_external_weights_of_a_body_can_still_be_read(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = float_weight(rng, (3, 4))
    model = make_model(
        """y = If (c) <
             then_branch = t () => (a) { a = MatMul(x, w) },
             else_branch = e () => (b) { b = MatMul(x, w) }
           >""",
        "bool c, float[2, 3] x",
        "float[2, 4] y",
        opset=9,
        ir_version=4,
    )
    tensor = numpy_helper.from_array(weight, "w")
    (tmp_path / "w.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    for attribute in model.graph.node[0].attribute:
        attribute.g.initializer.append(tensor)
    (tmp_path / "elsewhere").mkdir()
    file = load_model(save(model, tmp_path / "model.onnx"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    raised = raise_opset(file.model, 11, path=file.path)
    found = [one for one in iterate_constants(raised) if one.value.name == "w"]
    assert len(found) == 2
    assert all(np.array_equal(one.tensor.numpy(), weight) for one in found)


def test_local_functions_are_refused() -> None:
    model = make_model(
        "y = local.f(x)",
        "float[2] x",
        "float[2] y",
        opset=10,
        functions='<domain: "local", opset_import: ["" : 10]> f (p) => (q) { q = Relu(p) }',
    )
    with pytest.raises(UnsupportedModelError, match="local functions") as caught:
        raise_opset(to_ir(model), 11, path=Path("model.onnx"))
    assert "model.onnx: opset 10 must be raised to 11" in str(caught.value)
    assert "export it with opset 11 or newer" in str(caught.value)


def test_what_the_converter_cannot_do_is_refused_in_one_line(
    capfd: pytest.CaptureFixture[str],
) -> None:
    model = make_model("y = NoSuchOperator(x)", "float[2] x", "float[2] y", opset=9)
    with pytest.raises(UnsupportedModelError, match=r"onnx cannot convert it \(.*NoSuch") as caught:
        raise_opset(to_ir(model), 11, path=Path("model.onnx"))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def _copyable(rng: np.random.Generator) -> ir.Model:
    nodes = """z = MatMul(x, w) s = ReduceMax<axes = [0, 1]>(z) c = Greater(s, zero)
        y = If (c) <then_branch = one () => (float[2, 4] a) { [t] a = MatMul(x, w2) },
                    else_branch = two () => (float[2, 4] b) { b = Neg(z) }>"""
    constants = {
        "w": float_weight(rng, (3, 4)),
        "w2": float_weight(rng, (3, 4)),
        "zero": np.float32([[0]]),
    }
    return to_ir(make_model(nodes, "float[2, 3] x", "float[2, 4] y", constants, opset=17))


@pytest.mark.parametrize("version", [13, 17, 21])
def test_a_raised_copy_has_a_counterpart_of_everything(
    version: int, rng: np.random.Generator
) -> None:
    original = _copyable(rng)
    before = ir.to_proto(original).SerializeToString()
    copy = raise_copy(original, version, path=Path("model.onnx"))
    assert ir.to_proto(original).SerializeToString() == before
    assert copy.model.opset_imports[""] == max(17, version)
    scopes = list(iterate_scopes(original))
    assert [copy.scopes[one.graph].name for one in scopes] == [one.name for one in scopes]
    assert [one.graph for one in iterate_scopes(copy.model)] == [
        copy.scopes[one.graph].graph for one in scopes
    ]
    for scope in scopes:
        for node in scope.graph:
            twin = copy.nodes[node]
            assert (twin.name, twin.op_type) == (node.name, node.op_type)
            assert twin.graph is copy.scopes[scope.graph].graph
            assert [copy.values[value] for value in node.outputs] == list(twin.outputs)
        for name, value in scope.graph.initializers.items():
            twin_value = copy.values[value]
            assert twin_value.name == name
            assert twin_value.const_value is value.const_value
    # The axes are an input from opset 18 on.
    assert all(node.op_type != "Constant" for node in copy.model.graph)
    feeds = {"x": rng.standard_normal((2, 3)).astype(np.float32)}
    for one, other in zip(_run(original, feeds), _run(copy.model, feeds), strict=True):
        assert np.array_equal(one, other)


def test_the_external_data_of_a_raised_copy_is_found(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    weight = float_weight(rng, (30, 40))
    file = load_model(save_external(matmul_model(weight, opset=17), tmp_path / "model.onnx"))
    copy = raise_copy(file.model, 21, path=Path("elsewhere.onnx"))
    (constant,) = iterate_constants(copy.model)
    assert np.array_equal(constant.tensor.numpy(), weight)


def test_a_copy_whose_nodes_the_converter_replaces_is_refused(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    def replacing(model: ir.Model, version: int, *, path: Path) -> ir.Model:
        raised = raise_opset(model, version, path=path)
        raised.graph[0].name = "another"
        return raised

    monkeypatch.setattr(opset, "raise_opset", replacing)
    with pytest.raises(UnsupportedModelError, match="replaces nodes to raise it to opset 21"):
        raise_copy(_copyable(rng), 21, path=Path("model.onnx"))
