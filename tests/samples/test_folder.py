"""Samples from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxq.errors import DataError
from onnxq.runtime.session import InputSignature
from onnxq.samples import SampleFolder

X = InputSignature("x", np.float32, ("batch", 3))
I = InputSignature("i", np.int64, ("batch",))  # noqa: E741 - the name of the input


def test_samples_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name, value in (("10", 2), ("1", 1), ("b/0", 3)):
        np.savez(tmp_path / f"{name}.npz", x=np.full((1, 3), value, np.float32))
    (tmp_path / "notes.txt").write_text("no sample")
    folder = SampleFolder.open(tmp_path)
    assert [file.name for file in folder.files] == ["1.npz", "10.npz", "0.npz"]
    assert [float(feeds["x"][0, 0]) for feeds in folder.read([X])] == [1, 2, 3]


def test_arrays_that_the_model_does_not_take_are_left_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "0.npz", x=np.ones((1, 3), np.float32), label=np.array([4]))
    (feeds,) = SampleFolder.open(tmp_path).read([X])
    assert set(feeds) == {"x"}


def test_npy_feeds_the_only_input(tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", np.ones((2, 3), np.float32))
    (feeds,) = SampleFolder.open(tmp_path).read([X])
    assert feeds["x"].shape == (2, 3)


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.ones((1, 3), np.float16), np.float32),
        (np.ones((1, 3), np.int8), np.float32),
        (np.ones((1, 3), np.uint8), np.float32),
    ],
    ids=["float16", "int8", "uint8"],
)
def test_types_that_convert_without_loss(array: np.ndarray, dtype: type, tmp_path: Path) -> None:
    np.savez(tmp_path / "0.npz", x=array)
    (feeds,) = SampleFolder.open(tmp_path).read([X])
    assert feeds["x"].dtype == dtype


def _write_text(path: Path) -> None:
    path.write_text("not numpy")


def _write_empty(path: Path) -> None:
    path.write_bytes(b"")


def _write_cut(path: Path) -> None:
    np.savez(path, x=np.ones((100, 3), np.float32))
    path.write_bytes(path.read_bytes()[:400])


def _write_objects(path: Path) -> None:
    np.savez(path, x=np.array([{"a": 1}], dtype=object))


@pytest.mark.parametrize(
    "write", [_write_text, _write_empty, _write_cut, _write_objects], ids=lambda one: one.__name__
)
def test_file_that_cannot_be_read(write: object, tmp_path: Path) -> None:
    assert callable(write)
    write(tmp_path / "0.npz")
    folder = SampleFolder.open(tmp_path)
    with pytest.raises(DataError, match=r"0\.npz: cannot be read as numpy data") as caught:
        list(folder.read([X]))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("arrays", "part"),
    [
        (
            {"y": np.ones((1, 3), np.float32)},
            "has no array 'x'; it holds ['y'], the model takes x:",
        ),
        (
            {"x": np.ones((1, 4), np.float32)},
            "array 'x' is float32[1, 4]; expected x: float32[batch",
        ),
        ({"x": np.ones(3, np.float32)}, "array 'x' is float32[3]; expected"),
        ({"x": np.ones((1, 3, 1), np.float32)}, "array 'x' is float32[1, 3, 1]; expected"),
        ({"x": np.ones((1, 3), np.float64)}, "does not convert without loss"),
        ({"x": np.ones((1, 3), np.complex64)}, "does not convert without loss"),
    ],
    ids=["name", "size", "rank-under", "rank-over", "double", "complex"],
)
def test_sample_that_does_not_fit(arrays: dict[str, np.ndarray], part: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "0.npz", **arrays)
    with pytest.raises(DataError) as caught:
        list(SampleFolder.open(tmp_path).read([X]))
    assert part in str(caught.value)


def test_npy_for_a_model_of_two_inputs(tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", np.ones((1, 3), np.float32))
    with pytest.raises(DataError, match=r"feeds one input, the model has 2; use \.npz files"):
        list(SampleFolder.open(tmp_path).read([X, I]))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("nowhere", "no such folder"),
        ("file.npz", "a file; name the folder"),
        ("empty", "holds no .npz"),
    ],
)
def test_folder_without_samples(name: str, part: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "file.npz", x=np.ones(1))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=part):
        SampleFolder.open(tmp_path / name)
