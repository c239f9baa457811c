from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from onnxq.errors import DataError  # noqa: E402
from onnxq.training.checkpoints import load_checkpoint, save_checkpoint  # noqa: E402


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    state = {"epoch": 3, "learned": [torch.tensor([1.5])], "points": [{"loss": float("nan")}]}
    save_checkpoint(tmp_path / "c", state, "start")
    found = load_checkpoint(tmp_path / "c", "start")
    assert found["epoch"] == 3
    assert torch.equal(found["learned"][0], state["learned"][0])
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_refusals(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", {}, "start")
    with pytest.raises(DataError, match="is of another model, other samples or other options"):
        load_checkpoint(tmp_path / "c", "another start")
    with pytest.raises(DataError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "d", "start")
    (tmp_path / "e").write_bytes(b"PK no")
    with pytest.raises(DataError, match="cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "e", "start")
