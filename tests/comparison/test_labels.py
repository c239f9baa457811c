"""Labels: every form of them, and files that hold none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.comparison.labels import Labels, find_labels, read_labels
from onnxq.errors import DataError


def write(folder: Path, name: str, content: str | bytes | np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if isinstance(content, np.ndarray):
        np.save(path, content)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content, "utf-8")
    return path


def plain(labels: Labels | None) -> dict[str, list[int]]:
    assert labels is not None
    return {name: one.tolist() for name, one in labels.by_name.items()}


JSON: dict[str, tuple[Any, dict[str, list[int]], str | None]] = {
    "one": ({"a": 3}, {"a": [3]}, None),
    "batch": ({"a": [3, 4]}, {"a": [3, 4]}, None),
    "y": ({"y": {"a": [1]}}, {"a": [1]}, None),
    "output": ({"y": {"a": 1}, "output": "logits"}, {"a": [1]}, "logits"),
    "other-keys": ({"y": {"a": 1}, "classes": ["cat"]}, {"a": [1]}, None),
    "sample-called-output": ({"output": 2}, {"output": [2]}, None),
    "nested": ({"a": [[3], [4]]}, {"a": [3, 4]}, None),
}


@pytest.mark.parametrize(("content", "by_name", "output"), JSON.values(), ids=JSON)
def test_json(
    content: Any, by_name: dict[str, list[int]], output: str | None, tmp_path: Path
) -> None:
    labels = read_labels(write(tmp_path, "labels.json", json.dumps(content)))
    assert plain(labels) == by_name
    assert (labels.output, labels.sequence) == (output, None)
    assert labels.source == str(tmp_path / "labels.json")
    assert all(one.dtype == np.int64 for one in labels.by_name.values())


CSV = {
    "plain": "a,3\nb,4\n",
    "heading": "sample,class\na,3\nb,4\n",
    "blank-lines": "\na,3\n\nb,4\n\n",
    "spaces": "a , 3\nb,4 ",
    "windows": "a,3\r\nb,4\r\n",
    "quotes": '"a","3"\n"b",4\n',
    "byte-order-mark": "\ufeffa,3\nb,4\n",
    "byte-order-mark-and-heading": "\ufeffsample,class\na,3\nb,4\n",
}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(
            content,
            id=key,
        )
        for key, content in CSV.items()
    ],
)
def test_csv(content: str, tmp_path: Path) -> None:
    path = write(tmp_path, "labels.csv", content.encode())
    assert plain(read_labels(path)) == {"a": [3], "b": [4]}


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "int64", "uint64"])
@pytest.mark.parametrize("shape", [(6,), (6, 1)], ids=str)
def test_npy(kind: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    path = write(tmp_path, "labels.npy", np.arange(6, dtype=kind).reshape(shape))
    labels = read_labels(path)
    assert labels.sequence is not None
    assert labels.sequence.tolist() == list(range(6))
    assert labels.sequence.dtype == np.int64
    assert not labels.by_name


BAD: dict[str, tuple[str, str | bytes | np.ndarray]] = {
    "json-syntax": ("a.json", "{"),
    "json-empty-file": ("a.json", ""),
    "json-list": ("a.json", "[1, 2]"),
    "json-nothing": ("a.json", "{}"),
    "json-y-nothing": ("a.json", '{"y": {}}'),
    "json-y-list": ("a.json", '{"y": [1]}'),
    "json-float": ("a.json", '{"a": 1.5}'),
    "json-name-of-class": ("a.json", '{"a": "cat"}'),
    "json-boolean": ("a.json", '{"a": true}'),
    "json-null": ("a.json", '{"a": null}'),
    "json-ragged": ("a.json", '{"a": [[1], [2, 3]]}'),
    "json-empty-list": ("a.json", '{"a": []}'),
    "json-huge": ("a.json", '{"a": 99999999999999999999999}'),
    "json-not-utf-8": ("a.json", b"\xff\xfe\x00"),
    "csv-empty": ("a.csv", ""),
    "csv-heading-only": ("a.csv", "sample,class\n"),
    "csv-one-column": ("a.csv", "a\nb\n"),
    "csv-three-columns": ("a.csv", "a,1,2\n"),
    "csv-name-of-class": ("a.csv", "sample,class\na,cat\n"),
    "csv-float": ("a.csv", "a,1\nb,1.5\n"),
    "csv-not-utf-8": ("a.csv", b"\xff\xfe,1\n"),
    "csv-huge-field": ("a.csv", f"{'a' * 200_000},1\n"),
    "csv-twice": ("a.csv", "a,1\na,2\n"),
    "npy-float": ("a.npy", np.float32([1, 2])),
    "npy-one-hot": ("a.npy", np.eye(3, dtype=np.int64)),
    "npy-nothing": ("a.npy", b""),
    "npy-no-npy": ("a.npy", b"nothing"),
    "npy-pickle": ("a.npy", np.array([{}], object)),
    "suffix": ("a.txt", "a,1\n"),
}


@pytest.mark.parametrize(
    ("name", "content"),
    [pytest.param(*case, id=key) for key, case in BAD.items()],
)
def test_file_that_holds_no_labels(
    name: str, content: str | bytes | np.ndarray, tmp_path: Path
) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(DataError, match=r"a\.(json|csv|npy|txt)"):
        read_labels(path)


def test_file_that_is_missing(tmp_path: Path) -> None:
    for name in ("labels.json", "labels.csv", "labels.npy"):
        with pytest.raises(DataError, match="cannot be read"):
            find_labels(tmp_path, tmp_path / name)


@pytest.mark.parametrize("value", [-1, [0, -2]])
def test_negative_classes_are_refused(value: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        read_labels(write(tmp_path, "labels.json", json.dumps({"a": value})))


@pytest.mark.parametrize("key", ["cats/one.v1.npz", "cats/one.v1", "one.v1.npz", "one.v1"], ids=str)
def test_sample_is_found_by_each_of_its_names(key: str) -> None:
    labels = Labels("test", {key: np.array([7])})
    found = labels.find("cats/one.v1.npz")
    assert found is not None
    assert found.tolist() == [7]
    assert labels.find("cats/two.npz") is None


def test_longest_name_goes_first() -> None:
    labels = Labels("test", {"one": np.array([1]), "b/one.npz": np.array([2])})
    assert [labels.find(f"{folder}/one.npz").tolist() for folder in "ab"] == [[1], [2]]  # type: ignore[union-attr]


@given(name=st.text(min_size=1).filter(lambda name: name.strip("./\\")))
def test_any_name_is_found_or_not(name: str) -> None:
    assert Labels("test").find(name) is None
    assert Labels("test", {name: np.array([1])}).find(name) is not None


def test_samples_of_a_reader_have_no_labels() -> None:
    assert find_labels(None) is None


def test_order_in_which_files_are_looked_for(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write(data, "sample.npz", b"")
    assert find_labels(data) is None
    expected = []
    for folder in (tmp_path, data):
        for name, content in (
            ("labels.npy", np.array([1])),
            ("labels.csv", "sample,1\n"),
            ("labels.json", '{"sample": 1}'),
        ):
            expected.append(write(folder, name, content))
            found = find_labels(data)
            assert found is not None
            assert found.source == str(expected[-1])


def test_named_file_goes_first(tmp_path: Path) -> None:
    write(tmp_path, "labels.json", '{"sample": 1}')
    named = write(tmp_path / "elsewhere", "mine.csv", "sample,2\n")
    assert plain(find_labels(tmp_path, named)) == {"sample": [2]}


def make_folders(data: Path, names: list[str], file: str = "one.png") -> Path:
    for name in names:
        write(data / name, file, b"")
    return data


def test_folders_are_classes_in_the_order_of_their_names(tmp_path: Path) -> None:
    data = make_folders(tmp_path / "data", ["dog", "cat", ".hidden"])
    write(data / "dog" / "big", "two.JPG", b"")
    write(data / "dog", "notes.txt", b"")
    labels = find_labels(data)
    assert plain(labels) == {"cat/one.png": [0], "dog/one.png": [1], "dog/big/two.JPG": [1]}


def test_folders_that_are_numbers_keep_them(tmp_path: Path) -> None:
    data = make_folders(tmp_path / "data", ["10", "9", "007"])
    assert plain(find_labels(data)) == {
        "10/one.png": [10],
        "9/one.png": [9],
        "007/one.png": [7],
    }


@pytest.mark.parametrize(
    ("names", "file"), [(["all"], "one.png"), (["a", "b"], "one.npz"), ([], "")]
)
def test_folders_that_are_no_classes(names: list[str], file: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    assert find_labels(make_folders(data, names, file)) is None


@given(
    classes=st.dictionaries(
        st.text(st.characters(categories=("L", "N")), min_size=1),
        st.lists(st.integers(0, 2**31), min_size=1),
        min_size=1,
    )
)
def test_json_is_read_as_it_was_written(
    classes: dict[str, list[int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(tmp_path_factory.mktemp("json"), "labels.json", json.dumps({"y": classes}))
    assert plain(read_labels(path)) == classes
