from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxq.errors import InvalidModelError, UnsupportedModelError
from onnxq.graph.protobuf import parse_model
from tests.models import constant_node, make_model, matmul_model, save

IDENTITY = '<domain: "local", opset_import: ["" : 17]> f (p) => (q) { q = Relu(p) }'


@pytest.fixture
def small_model() -> onnx.ModelProto:
    return matmul_model(np.arange(12, dtype=np.float32).reshape(3, 4))


def _nested_model() -> onnx.ModelProto:
    """A model with a body and a function, for constants to be put in."""
    return make_model(
        """i = If (c) <
             then_branch = t () => (a) { a = Identity(x) },
             else_branch = e () => (b) { b = Identity(x) }
           >
           y = local.f(i)""",
        "bool c, float[4] x",
        "float[4] y",
        functions=IDENTITY,
    )


def _bodies(model: onnx.ModelProto) -> dict[str, onnx.GraphProto | onnx.FunctionProto]:
    branch = model.graph.node[0].attribute[0].g
    return {"main": model.graph, "body": branch, "function": model.functions[0]}


def test_reads_the_message(small_model: onnx.ModelProto, tmp_path: Path) -> None:
    assert parse_model(save(small_model, tmp_path / "model.onnx")) == small_model


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"this is no model\n", "not an ONNX model", id="text"),
        pytest.param(b"\n\n\n\n", "not an ONNX model", id="blank_lines"),
        pytest.param(b"PK\x03\x04" + bytes(100), "not an ONNX model", id="zip"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(50), "not an ONNX model", id="png"),
        pytest.param(bytes(1000), "not an ONNX model", id="zeros"),
        pytest.param(b"\x08\x08", "not an ONNX model", id="only_an_ir_version"),
        pytest.param(
            onnx.TensorProto(dims=[1], data_type=1, raw_data=bytes(4)).SerializeToString(),
            "not an ONNX model",
            id="tensor",
        ),
    ],
)
def test_refuses_what_is_no_model(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(InvalidModelError, match=reason) as caught:
        parse_model(path)
    assert str(path) in str(caught.value)


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match="no such file"):
        parse_model(tmp_path / "model.onnx")


def test_refuses_a_directory(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match="is a directory"):
        parse_model(tmp_path)


def test_refuses_an_unreadable_file(
    small_model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(small_model, tmp_path / "model.onnx")

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InvalidModelError, match="cannot be read: Permission denied"):
        parse_model(path)


def test_refuses_a_name_that_is_too_long_for_the_file_system(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError):
        parse_model(tmp_path / f"{'m' * 300}.onnx")


def test_refuses_a_file_cut_short_anywhere(small_model: onnx.ModelProto, tmp_path: Path) -> None:
    content = small_model.SerializeToString()
    path = tmp_path / "model.onnx"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(InvalidModelError):
            parse_model(path)


@pytest.mark.parametrize("size", [0, 3, 44, 52], ids=lambda size: f"{size}_bytes")
def test_refuses_a_weight_that_is_not_as_long_as_its_shape(
    small_model: onnx.ModelProto, tmp_path: Path, size: int
) -> None:
    small_model.graph.initializer[0].raw_data = bytes(size)
    with pytest.raises(InvalidModelError, match="'w'"):
        parse_model(save(small_model, tmp_path / "model.onnx"))


@pytest.mark.parametrize("elements", [0, 11, 13], ids=lambda count: f"{count}_elements")
def test_refuses_typed_elements_that_do_not_fill_the_shape(
    small_model: onnx.ModelProto, tmp_path: Path, elements: int
) -> None:
    tensor = small_model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.float_data.extend([1.0] * elements)
    with pytest.raises(InvalidModelError, match="'w'"):
        parse_model(save(small_model, tmp_path / "model.onnx"))


def test_takes_typed_elements(small_model: onnx.ModelProto, tmp_path: Path) -> None:
    tensor = small_model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.float_data.extend([1.0] * 12)
    assert parse_model(save(small_model, tmp_path / "model.onnx")) == small_model


@pytest.mark.parametrize("where", ["main", "body", "function"])
def test_refuses_short_constants_wherever_they_are(where: str, tmp_path: Path) -> None:
    model = _nested_model()
    node = constant_node(np.ones(4, np.float32), "k")
    node.attribute[0].t.raw_data = bytes(3)
    _bodies(model)[where].node.insert(0, node)
    with pytest.raises(InvalidModelError, match="'k'"):
        parse_model(save(model, tmp_path / "model.onnx"))


@pytest.mark.parametrize("type_", [0, 65], ids=["undefined", "unknown"])
@pytest.mark.parametrize("where", ["main", "body", "function"])
def test_refuses_an_element_type_that_there_is_not(where: str, type_: int, tmp_path: Path) -> None:
    """The checker of onnx lets it pass."""
    model = _nested_model()
    node = constant_node(np.ones(4, np.float32), "k")
    node.attribute[0].t.data_type = type_
    _bodies(model)[where].node.insert(0, node)
    with pytest.raises(InvalidModelError, match=f"'k' is of the element type {type_}"):
        parse_model(save(model, tmp_path / "model.onnx"))


def test_takes_an_attribute_of_the_caller_of_a_function(tmp_path: Path) -> None:
    model = _nested_model()
    node = constant_node(np.ones(4, np.float32), "k")
    node.attribute[0].ClearField("t")
    node.attribute[0].ref_attr_name = "table"
    _bodies(model)["function"].node.insert(0, node)
    assert parse_model(save(model, tmp_path / "model.onnx")) == model


def _sparse() -> onnx.SparseTensorProto:
    values = numpy_helper.from_array(np.ones(2, np.float32), "sparse")
    return helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([1, 3])), [4])


@pytest.mark.parametrize("where", ["main", "body", "function"])
def test_refuses_sparse_constants_wherever_they_are(where: str, tmp_path: Path) -> None:
    model = _nested_model()
    node = helper.make_node("Constant", [], ["sparse"], sparse_value=_sparse())
    _bodies(model)[where].node.insert(0, node)
    with pytest.raises(
        UnsupportedModelError, match="'sparse' is sparse; save the model with dense"
    ):
        parse_model(save(model, tmp_path / "model.onnx"))


def test_refuses_sparse_initializers(tmp_path: Path) -> None:
    model = _nested_model()
    model.graph.sparse_initializer.append(_sparse())
    with pytest.raises(UnsupportedModelError, match="'sparse' is sparse"):
        parse_model(save(model, tmp_path / "model.onnx"))


def test_the_long_name_of_the_standard_domain_becomes_the_short_one(tmp_path: Path) -> None:
    model = _nested_model()
    model.opset_import[0].domain = "ai.onnx"
    model.functions[0].opset_import[0].domain = "ai.onnx"
    for body in _bodies(model).values():
        body.node[0].domain = "ai.onnx"
    parsed = parse_model(save(model, tmp_path / "model.onnx"))
    assert [one.domain for one in parsed.opset_import] == ["", "local"]
    assert [one.domain for one in parsed.functions[0].opset_import] == [""]
    assert [body.node[0].domain for body in _bodies(parsed).values()] == ["", "", ""]
    onnx.checker.check_model(parsed)
