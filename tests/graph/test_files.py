from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxq.errors import (
    ExternalDataError,
    ModelError,
    UnsupportedModelError,
)
from onnxq.graph.files import OLDEST_OPSET, iterate_external_tensors, load_model
from tests.models import (
    constant_node,
    float_weight,
    make_model,
    matmul_model,
    save,
    save_external,
)


@pytest.fixture
def small_model() -> onnx.ModelProto:
    return matmul_model(np.arange(12, dtype=np.float32).reshape(3, 4))


@pytest.fixture
def external(small_model: onnx.ModelProto, tmp_path: Path) -> Path:
    """A model with its weights in 'weights.bin', in a folder with room around it."""
    folder = tmp_path / "model"
    folder.mkdir()
    return save_external(small_model, folder / "model.onnx")


def _set_location(path: Path, **entries: str) -> None:
    """Change the external data entries of the first initializer in the file."""
    model = onnx.load(str(path), load_external_data=False)
    tensor = model.graph.initializer[0]
    kept = {entry.key: entry.value for entry in tensor.external_data} | entries
    del tensor.external_data[:]
    for key, value in kept.items():
        tensor.external_data.add(key=key, value=value)
    save(model, path)


def test_reads_a_model(small_model: onnx.ModelProto, tmp_path: Path) -> None:
    path = save(small_model, tmp_path / "model.onnx")
    file = load_model(path)
    assert file.path == path
    assert file.external_files == ()
    assert file.size_bytes == path.stat().st_size
    weight = file.model.graph.initializers["w"].const_value
    assert weight is not None
    assert np.array_equal(weight.numpy(), np.arange(12, dtype=np.float32).reshape(3, 4))


def test_reads_external_weights(external: Path) -> None:
    file = load_model(external)
    data = external.with_name("weights.bin")
    assert file.external_files == ("weights.bin",)
    assert file.size_bytes == external.stat().st_size + data.stat().st_size
    weight = file.model.graph.initializers["w"].const_value
    assert weight is not None
    assert np.array_equal(weight.numpy(), np.arange(12, dtype=np.float32).reshape(3, 4))


def test_reads_external_weights_from_another_working_directory(
    external: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(external.parent)
    file = load_model(Path("model.onnx"))
    monkeypatch.chdir(tmp_path)
    weight = file.model.graph.initializers["w"].const_value
    assert weight is not None
    assert weight.numpy()[2, 3] == 11


def test_a_symbolic_link_to_a_model_finds_the_weights_beside_the_model(
    external: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link.onnx"
    link.symlink_to(external)
    assert load_model(link).external_files == ("weights.bin",)


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_in_one_line(
    data: st.DataObject, small_model: onnx.ModelProto, tmp_path: Path
) -> None:
    content = bytearray(small_model.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes(content))
    try:
        load_model(path)
    except ModelError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("opset", [1, OLDEST_OPSET - 1])
def test_refuses_old_operator_sets(opset: int, tmp_path: Path) -> None:
    model = make_model("y = Relu(x)", "float[4] x", "float[4] y", opset=opset)
    with pytest.raises(UnsupportedModelError, match=f"opset {opset} is older than 7"):
        load_model(save(model, tmp_path / "model.onnx"))


def test_takes_the_oldest_operator_set(tmp_path: Path) -> None:
    model = make_model("y = Relu(x)", "float[4] x", "float[4] y", opset=OLDEST_OPSET)
    file = load_model(save(model, tmp_path / "model.onnx"))
    assert file.model.opset_imports[""] == OLDEST_OPSET


def test_refuses_a_model_without_standard_operators(
    small_model: onnx.ModelProto, tmp_path: Path
) -> None:
    small_model.opset_import[0].domain = "com.microsoft"
    with pytest.raises(UnsupportedModelError, match=r"no ai\.onnx operator set"):
        load_model(save(small_model, tmp_path / "model.onnx"))


def test_refuses_an_absolute_location(external: Path) -> None:
    _set_location(external, location=str(external.with_name("weights.bin")))
    with pytest.raises(ExternalDataError, match="absolute paths are refused"):
        load_model(external)


@pytest.mark.parametrize("location", ["../weights.bin", "sub/../../weights.bin"])
def test_refuses_a_location_outside_the_folder(external: Path, location: str) -> None:
    outside = external.parent.parent / "weights.bin"
    outside.write_bytes(external.with_name("weights.bin").read_bytes())
    _set_location(external, location=location)
    with pytest.raises(ExternalDataError, match="outside the folder"):
        load_model(external)


def test_refuses_a_symbolic_link_out_of_the_folder(external: Path) -> None:
    data = external.with_name("weights.bin")
    data.rename(external.parent.parent / "elsewhere.bin")
    data.symlink_to("../elsewhere.bin")
    with pytest.raises(ExternalDataError, match="outside the folder"):
        load_model(external)


def test_takes_a_symbolic_link_within_the_folder(external: Path) -> None:
    data = external.with_name("weights.bin")
    data.rename(data.with_name("elsewhere.bin"))
    data.symlink_to("elsewhere.bin")
    assert load_model(external).external_files == ("weights.bin",)


def test_takes_a_folder_below(external: Path) -> None:
    data = external.with_name("weights.bin")
    below = external.parent / "below"
    below.mkdir()
    data.rename(below / "weights.bin")
    _set_location(external, location="below/weights.bin")
    assert load_model(external).external_files == ("below/weights.bin",)


@pytest.mark.parametrize("location", ["weights.bin", "", "."], ids=["file", "empty", "folder"])
def test_refuses_missing_external_data(external: Path, location: str) -> None:
    external.with_name("weights.bin").unlink()
    _set_location(external, location=location)
    with pytest.raises(ExternalDataError, match="no such file"):
        load_model(external)


def test_refuses_external_data_cut_short(external: Path) -> None:
    data = external.with_name("weights.bin")
    os.truncate(data, data.stat().st_size - 1)
    with pytest.raises(ExternalDataError, match="ends before byte"):
        load_model(external)


def test_refuses_an_offset_beyond_the_end(external: Path) -> None:
    _set_location(external, offset="4096")
    with pytest.raises(ExternalDataError, match="ends before byte"):
        load_model(external)


def test_refuses_fewer_bytes_than_the_shape_needs(external: Path) -> None:
    _set_location(external, length="44")
    with pytest.raises(ExternalDataError, match="44 bytes are stored for a tensor of 48"):
        load_model(external)


@pytest.mark.parametrize(
    "entries",
    [{"offset": "-4"}, {"length": "-48"}, {"length": "many"}, {"offset": "0x10"}],
    ids=["negative_offset", "negative_length", "length_is_text", "offset_is_text"],
)
def test_refuses_nonsense_in_external_entries(external: Path, entries: dict[str, str]) -> None:
    _set_location(external, **entries)
    with pytest.raises(ModelError):
        load_model(external)


def test_names_the_tensor_in_the_refusal(external: Path) -> None:
    external.with_name("weights.bin").unlink()
    with pytest.raises(ExternalDataError, match=r"tensor 'w' .* external file 'weights\.bin'"):
        load_model(external)


def test_finds_external_data_in_bodies_constants_and_functions(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    model = make_model(
        """i = If (c) <
             then_branch = t () => (a) { a = Identity(x) },
             else_branch = e () => (b) { b = Identity(x) }
           >
           y = local.f(i)""",
        "bool c, float[4] x",
        "float[4] y",
        functions='<domain: "local", opset_import: ["" : 17]> f (p) => (q) { q = Relu(p) }',
    )
    branch = model.graph.node[0].attribute[0].g
    tensors = []
    for holder, name in ((branch, "in_body"), (model.functions[0], "in_function")):
        holder.node.insert(0, constant_node(float_weight(rng, (4,)), name))
        tensors.append(holder.node[0].attribute[0].t)
    branch.initializer.add().CopyFrom(onnx.numpy_helper.from_array(float_weight(rng, (4,)), "init"))
    tensors.append(branch.initializer[0])
    for index, tensor in enumerate(tensors):
        (tmp_path / f"{index}.bin").write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=f"{index}.bin")
    path = save(model, tmp_path / "model.onnx")
    file = load_model(path)
    assert file.external_files == ("0.bin", "1.bin", "2.bin")
    assert len(iterate_external_tensors(file.model)) == 3
    for index in range(3):
        (tmp_path / f"{index}.bin").rename(tmp_path / "away")
        with pytest.raises(ExternalDataError, match=f"'{index}.bin': no such file"):
            load_model(path)
        (tmp_path / "away").rename(tmp_path / f"{index}.bin")
