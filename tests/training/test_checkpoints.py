from __future__ import annotations

from pathlib import Path

import numpy as np
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
    (tmp_path / "e").write_bytes(b"of the user")
    with pytest.raises(DataError, match="cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "e", "start")
    torch.save({"version": 1, "fingerprint": "start", "state": {}}, tmp_path / "f")
    with pytest.raises(DataError, match="another version of onnxq"):
        load_checkpoint(tmp_path / "f", "start")
    with pytest.raises(DataError, match="no regular file"):
        load_checkpoint(tmp_path, "start")


def test_damage_anywhere_is_seen(tmp_path: Path, rng: np.random.Generator) -> None:
    """torch reads most of such files without a word, with other numbers in them."""
    save_checkpoint(tmp_path / "c", {"learned": [torch.arange(50.0)]}, "start")
    content = (tmp_path / "c").read_bytes()
    for place in rng.integers(len(content), size=60).tolist():
        damaged = bytearray(content)
        damaged[place] ^= 16
        for one in (bytes(damaged), content[:place]):
            (tmp_path / "d").write_bytes(one)
            with pytest.raises(DataError, match="checkpoint"):
                load_checkpoint(tmp_path / "d", "start")
