"""Arrays from files, good, damaged and hostile."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from onnxq.errors import DataError
from onnxq.runtime.session import InputSignature
from onnxq.samples import arrays
from onnxq.samples.arrays import load_npy, load_npz

X = InputSignature("x", np.float32, ("batch", 3))


def _write_header(path: Path, shape: tuple[int, ...], extra: int = 0) -> None:
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "<f4", "fortran_order": False, "shape": shape}
        )
        stream.write(bytes(extra))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "deflated"])
def test_archive(save: Callable[..., None], tmp_path: Path) -> None:
    expected = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    save(tmp_path / "0.npz", x=expected)
    np.testing.assert_array_equal(load_npz(tmp_path / "0.npz", [X])["x"], expected)


def test_only_what_the_model_takes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "0.npz"
    np.savez(path, x=np.ones((1, 3)), secret=np.array([{"a": 1}], dtype=object))
    assert set(load_npz(path, [X])) == {"x"}


@pytest.mark.parametrize("load", [load_npz, load_npy], ids=["npz", "npy"])
def test_pickles_are_never_loaded(load: Callable[..., object], tmp_path: Path) -> None:
    content = np.array([print], dtype=object)
    np.savez(tmp_path / "load_npz", x=content)
    np.save(tmp_path / "load_npy", content)
    suffix = load.__name__[-3:]
    with pytest.raises(DataError, match=r"Python objects \(a pickle\), which are never loaded"):
        load(tmp_path / f"{load.__name__}.{suffix}", [X])


def test_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "0.npz"
    np.savez_compressed(path, x=np.zeros((100_000, 3), np.float32))
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(arrays, "LARGEST_SAMPLE_BYTES", 1_000_000)
    with pytest.raises(DataError, match=r"0\.npz: 1200\d\d\d bytes in one sample, at most 1000000"):
        load_npz(path, [X])


def test_limit_is_on_the_arrays_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "0.npz"
    y = InputSignature("y", np.float32, ("batch", 3))
    np.savez(path, x=np.zeros((1000, 3), np.float32), y=np.zeros((1000, 3), np.float32))
    monkeypatch.setattr(arrays, "LARGEST_SAMPLE_BYTES", 20_000)
    assert set(load_npz(path, [X])) == {"x"}
    with pytest.raises(DataError, match="bytes in one sample"):
        load_npz(path, [X, y])


def test_header_that_declares_more_than_memory(tmp_path: Path) -> None:
    _write_header(tmp_path / "0.npy", (1 << 40, 3))
    with pytest.raises(DataError, match=r"0\.npy: 13194139533312 bytes in one sample"):
        load_npy(tmp_path / "0.npy", [X])


@pytest.mark.parametrize("inside", [False, True], ids=["npy", "npz"])
def test_header_that_declares_more_than_the_file(inside: bool, tmp_path: Path) -> None:
    path = tmp_path / "0.npy"
    _write_header(path, (1000, 3), extra=50)
    if inside:
        with zipfile.ZipFile(tmp_path / "0.npz", "w") as archive:
            archive.write(path, "x.npy")
        path = tmp_path / "0.npz"
    with pytest.raises(DataError, match="cannot be read as numpy data: cut short"):
        (load_npz if inside else load_npy)(path, [X])


def test_records(tmp_path: Path) -> None:
    with (tmp_path / "0.npy").open("wb") as stream:
        np.lib.format.write_array(stream, np.zeros(2, [("λ", "f4")]), version=(3, 0))
    with pytest.raises(DataError, match=r"version 3\.0 of the format, for records"):
        load_npy(tmp_path / "0.npy", [X])


def test_member_that_is_no_array(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "0.npz", "w") as archive:
        archive.writestr("x", "some text that is long enough")
    with pytest.raises(DataError, match="cannot be read as numpy data: the magic string"):
        load_npz(tmp_path / "0.npz", [X])


def test_damage_that_only_the_checksum_shows(tmp_path: Path) -> None:
    path = tmp_path / "0.npz"
    np.savez(path, x=np.full((50, 3), 7, np.float32))
    content = bytearray(path.read_bytes())
    content[400] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as numpy data: Bad CRC-32"):
        load_npz(path, [X])


@pytest.mark.parametrize("count", [0, 2])
def test_one_array_for_other_than_one_input(count: int, tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", np.ones((1, 3), np.float32))
    with pytest.raises(DataError, match=rf"feeds one input, the model has {count}; use \.npz"):
        load_npy(tmp_path / "0.npy", [X] * count)
