from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.algorithms.store import ActivationStore

A, B = ir.Value(name="a"), ir.Value(name="b")


@pytest.mark.parametrize("most_bytes", [0, 1 << 20], ids=["in-files", "in-memory"])
def test_what_is_put_can_be_got(most_bytes: int, tmp_path: Path) -> None:
    store = ActivationStore(tmp_path / "store", most_bytes=most_bytes)
    for sample in range(3):
        store.put(sample, A, np.full((2, 3), sample, np.float32))
        store.put(sample, B, np.full(4, sample, np.int64))
    assert store.get(2, A).tolist() == [[2.0] * 3] * 2
    assert store.get(1, B).dtype == np.int64
    store.drop(2, A)
    with pytest.raises(KeyError):
        store.get(2, A)
    assert (tmp_path / "store").exists() is (most_bytes == 0)


def test_memory_is_bounded_and_given_back(tmp_path: Path) -> None:
    array = np.zeros(100, np.float32)
    store = ActivationStore(tmp_path / "store", most_bytes=array.nbytes)
    store.put(0, A, array)
    store.put(1, A, array)
    assert len(list((tmp_path / "store").iterdir())) == 1
    store.drop(0, A)
    store.drop(1, A)
    assert list((tmp_path / "store").iterdir()) == []
    store.put(2, A, array)
    assert list((tmp_path / "store").iterdir()) == []


def test_texts_are_held_in_memory(tmp_path: Path) -> None:
    store = ActivationStore(tmp_path / "store", most_bytes=0)
    store.put(0, A, np.array(["x", "y"], object))
    assert store.get(0, A).tolist() == ["x", "y"]


def test_a_copy_holds_what_the_other_holds_and_nothing_else(tmp_path: Path) -> None:
    one = ActivationStore(tmp_path / "one", most_bytes=8)
    other = ActivationStore(tmp_path / "other", most_bytes=8)
    one.put(0, B, np.zeros(9, np.float32))
    other.put(0, A, np.float32([1, 2]))
    other.put(1, A, np.float32([3, 4]))
    one.copy(other)
    assert [one.get(sample, A).tolist() for sample in range(2)] == [[1, 2], [3, 4]]
    with pytest.raises(KeyError):
        one.get(0, B)
    other.drop(0, A)
    assert one.get(0, A).tolist() == [1, 2]
