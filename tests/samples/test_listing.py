"""What is found in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from onnxq.errors import DataError
from onnxq.samples.listing import Kind, list_samples


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def _names(root: Path) -> list[str]:
    return [file.name for file in list_samples(root).files]


def test_each_file_by_its_suffix(tmp_path: Path) -> None:
    _touch(tmp_path, "a.NPZ", "b.npy", "c.JPeG", "d/e.webp", "f.wav", "labels.json")
    listing = list_samples(tmp_path)
    assert [(file.name, file.kind) for file in listing.files] == [
        ("a.NPZ", Kind.NPZ),
        ("b.npy", Kind.NPY),
        ("c.JPeG", Kind.IMAGE),
        ("d/e.webp", Kind.IMAGE),
    ]
    assert listing.others == {".wav": 1, ".json": 1}


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    _touch(tmp_path, ".DS_Store", "._x.npz", ".cache/y.npz", "x.npz")
    listing = list_samples(tmp_path)
    assert _names(tmp_path) == ["x.npz"]
    assert not listing.others


def test_hidden_folder_that_was_asked_for(tmp_path: Path) -> None:
    _touch(tmp_path, ".calib/x.npz")
    assert _names(tmp_path / ".calib") == ["x.npz"]


def test_test_set_is_one_sample_with_its_tensors_by_number(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"test_data_set_0/input_{index}.pb" for index in range(12)))
    _touch(tmp_path, "test_data_set_0/output_0.pb", "test_data_set_1/input_0.pb", "model.onnx")
    first, second = list_samples(tmp_path).files
    assert [first.name, second.name] == ["test_data_set_0", "test_data_set_1"]
    assert [part.name for part in first.parts] == [f"input_{index}.pb" for index in range(12)]


def test_folder_asked_for_is_a_test_set(tmp_path: Path) -> None:
    _touch(tmp_path, "test_data_set_0/input_0.pb")
    assert _names(tmp_path / "test_data_set_0") == ["test_data_set_0"]


def test_samples_beside_a_test_set_are_counted(tmp_path: Path) -> None:
    _touch(tmp_path, "input_0.pb", "a.npz", "inner/b.npz")
    listing = list_samples(tmp_path)
    assert [file.kind for file in listing.files] == [Kind.TEST_SET, Kind.NPZ]
    assert listing.passed_over == (tmp_path / "a.npz",)


@pytest.mark.parametrize("target", [".", "..", "loop"], ids=["own", "parent", "itself"])
def test_links_in_a_circle(target: str, tmp_path: Path) -> None:
    root = tmp_path / "calib"
    _touch(root, "inner/x.npz")
    (root / "inner" / "loop").symlink_to(target)
    assert _names(root) == ["inner/x.npz"]


def test_link_to_a_folder_elsewhere(tmp_path: Path) -> None:
    _touch(tmp_path, "data/x.npz")
    (tmp_path / "calib").mkdir()
    (tmp_path / "calib" / "link").symlink_to(tmp_path / "data")
    assert _names(tmp_path / "calib") == ["link/x.npz"]


def test_link_to_nothing_is_not_swallowed(tmp_path: Path) -> None:
    (tmp_path / "gone.npz").symlink_to("nowhere")
    assert _names(tmp_path) == ["gone.npz"]


def _refuse_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    """For root no folder is locked, so the answer of the system is made up."""
    listed = Path.iterdir

    def iterdir(folder: Path) -> Iterator[Path]:
        if folder.name == "locked":
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)


def test_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(tmp_path, "a.npz", "locked/b.npz")
    _refuse_locked(monkeypatch)
    with pytest.raises(DataError, match=r"locked: cannot be listed: Permission denied; make it"):
        list_samples(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_folder_without_permission(tmp_path: Path) -> None:
    _touch(tmp_path, "locked/b.npz")
    (tmp_path / "locked").chmod(0)
    with pytest.raises(DataError, match="locked: cannot be listed: Permission denied"):
        list_samples(tmp_path)
    (tmp_path / "locked").chmod(0o700)


@pytest.mark.parametrize(
    ("name", "part"), [("nowhere", "nowhere: no such folder"), ("a.npz", r"a\.npz: a file; name")]
)
def test_no_folder(name: str, part: str, tmp_path: Path) -> None:
    _touch(tmp_path, "a.npz")
    with pytest.raises(DataError, match=part):
        list_samples(tmp_path / name)
