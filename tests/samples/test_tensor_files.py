"""The test data of ONNX models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

from onnxq.errors import DataError
from onnxq.runtime.session import InputSignature
from onnxq.samples import arrays
from onnxq.samples.tensor_files import load_test_set

A = InputSignature("a", np.float32, ("batch", 3))
B = InputSignature("b", np.int64, ("batch",))


def _write(folder: Path, *names: str) -> list[Path]:
    """Tensors called ``names``, each full of its number."""
    files = []
    for index, name in enumerate(names):
        tensor = onnx.numpy_helper.from_array(np.full((1, 3), index, np.float32), name)
        files.append(folder / f"input_{index}.pb")
        files[-1].write_bytes(tensor.SerializeToString())
    return files


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("b", "a"), {"b": 0, "a": 1}),
        (("a", "b"), {"a": 0, "b": 1}),
        (("", ""), {"a": 0, "b": 1}),
        (("data", "b"), {"a": 0, "b": 1}),
        (("b", "b"), {"a": 0, "b": 1}),
    ],
    ids=["swapped", "in-order", "none", "one-foreign", "twice"],
)
def test_names_if_all_are_inputs_or_else_numbers(
    names: tuple[str, ...], expected: dict[str, int], tmp_path: Path
) -> None:
    loaded = load_test_set(tmp_path, _write(tmp_path, *names), [A, B])
    assert {name: int(array[0, 0]) for name, array in loaded.items()} == expected


def test_other_number_than_the_model_takes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 tensors called \['data'\]; the model takes 2: a: floa"):
        load_test_set(tmp_path, _write(tmp_path, "data"), [A, B])


def test_strings(tmp_path: Path) -> None:
    tensor = onnx.numpy_helper.from_array(np.array(["x", "yz"], dtype=object), "a")
    (tmp_path / "input_0.pb").write_bytes(tensor.SerializeToString())
    loaded = load_test_set(tmp_path, [tmp_path / "input_0.pb"], [A])
    assert loaded["a"].tolist() == ["x", "yz"]


def _no_protobuf() -> bytes:
    return b"\xff\xff\xff no protobuf"


def _too_short() -> bytes:
    tensor = onnx.numpy_helper.from_array(np.ones((1, 3), np.float32), "a")
    tensor.dims[0] = 1 << 40
    return bytes(tensor.SerializeToString())


def _untyped() -> bytes:
    return bytes(onnx.TensorProto(name="a").SerializeToString())


@pytest.mark.parametrize("make", [_no_protobuf, _too_short, _untyped], ids=lambda one: one.__name__)
def test_damaged_tensor(make: object, tmp_path: Path) -> None:
    assert callable(make)
    (tmp_path / "input_0.pb").write_bytes(make())
    with pytest.raises(DataError, match=r"input_0\.pb: cannot be read as an ONNX tensor: "):
        load_test_set(tmp_path, [tmp_path / "input_0.pb"], [A])


def test_values_in_another_file_are_refused(tmp_path: Path) -> None:
    tensor = onnx.TensorProto(name="a", data_type=1, dims=[1])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret")
    (tmp_path / "input_0.pb").write_bytes(tensor.SerializeToString())
    with pytest.raises(DataError, match=r"input_0\.pb: its values are in another file, which is"):
        load_test_set(tmp_path, [tmp_path / "input_0.pb"], [A])


def test_size_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = _write(tmp_path, "a")
    monkeypatch.setattr(arrays, "LARGEST_SAMPLE_BYTES", 10)
    with pytest.raises(DataError, match="bytes in one sample, at most 10"):
        load_test_set(tmp_path, files, [A])


def test_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"input_0\.pb: cannot be read: No such file"):
        load_test_set(tmp_path, [tmp_path / "input_0.pb"], [A])
