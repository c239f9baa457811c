from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from onnxq.comparison.results import Gate, Latency
from onnxq.errors import DataError, OutputError
from onnxq.runs.lock import LockedRanges, LockEntry, read_lock, write_lock
from onnxq.runs.numbers import Numbers
from onnxq.verification.comparison import OutputComparison
from tests.runs.pipelines import make_entry, make_numbers

RANGES = LockedRanges("mse", {"x": (-1.5, 0.1), "y": (0.0, 1e-30)})


def full_entry() -> LockEntry:
    numbers = Numbers(
        **{
            **vars(make_numbers()),
            "outputs": (
                *make_numbers().outputs,
                OutputComparison("same", math.inf, 1.0, 0.0, None, 3),
                OutputComparison("odd", None, math.nan, None, None, 0),
            ),
            "latency": Latency(
                threads=1,
                rounds=3,
                samples=2,
                float_ms=2.0,
                quantized_ms=1.0,
                float_spread_ms=(1.9, 2.1),
                quantized_spread_ms=(0.9, 1.1),
            ),
        }
    )
    gate = Gate(name="min-sqnr", limit=30.0, reached=40.0, unit="dB", is_met=True, detail="y")
    return make_entry(numbers=numbers, ranges=RANGES, gates=(gate,))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "onnxq.lock"
    entry = full_entry()
    write_lock({"a.onnx": entry, "b.onnx": make_entry()}, path)
    found = read_lock(path)
    assert list(found) == ["a.onnx", "b.onnx"]
    # What JSON has no number for is unknown afterwards.
    assert found["a.onnx"].numbers.outputs[-1] == OutputComparison("odd", None, None, None, None, 0)
    assert found["a.onnx"].numbers.outputs[:-1] == entry.numbers.outputs[:-1]
    assert found["a.onnx"].numbers.latency == entry.numbers.latency
    assert (found["a.onnx"].ranges, found["a.onnx"].gates) == (RANGES, entry.gates)
    assert found["b.onnx"] == make_entry()
    again = tmp_path / "again.lock"
    write_lock(found, again)
    assert again.read_bytes() == path.read_bytes()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["again.lock", "onnxq.lock"]


def test_no_lock_is_an_empty_one(tmp_path: Path) -> None:
    assert read_lock(tmp_path / "none.lock") == {}


def damage(content: dict[str, Any], *place: str, value: object) -> str:
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return json.dumps(content)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "{}",
        '{"schema_version": 2, "models": {}}',
        '{"schema_version": 1, "models": []}',
        '{"schema_version": 1, "models": {"a": 3}}',
        "[" * 100_000,
        "import os; os.remove('x')",
        "\xff\xfe",
    ],
    ids=range(11),
)
def test_damaged_lock_is_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "onnxq.lock"
    path.write_text(text, "latin-1")
    with pytest.raises(DataError, match="is no lock of onnxq run") as caught:
        read_lock(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("numbers",), None),
        (("numbers", "outputs"), [{"name": "y"}]),
        (("numbers", "float_size_bytes"), "large"),
        (("numbers", "latency"), {}),
        (("ranges", "tensors"), {"x": [1]}),
        (("ranges", "tensors"), {"x": [1, "b"]}),
        (("versions",), 3),
        (("gates",), [3]),
        (("gates",), 3),
    ],
)
def test_damaged_entry_is_one_line(place: tuple[str, ...], value: object, tmp_path: Path) -> None:
    path = tmp_path / "onnxq.lock"
    write_lock({"a": full_entry()}, path)
    text = damage(json.loads(path.read_text()), "models", "a", *place, value=value)
    path.write_text(text)
    with pytest.raises(DataError, match="is no lock of onnxq run"):
        read_lock(path)


def test_lock_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "onnxq.lock").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        write_lock({}, tmp_path / "onnxq.lock")
    assert [one.name for one in tmp_path.iterdir()] == ["onnxq.lock"]
    with pytest.raises(DataError, match="cannot be read"):
        read_lock(tmp_path / "onnxq.lock")


def test_gates_are_checked_against_recorded_numbers() -> None:
    recall = make_numbers(sqnr_db=35.0).recall
    met = recall(Path("a"), Path("b"), {"min-sqnr": 34.0, "max-size-ratio": 0.25})
    assert met.is_passed
    failed = recall(Path("a"), Path("b"), {"min-sqnr": 36.0, "min-speedup": 1.0})
    assert [gate.is_met for gate in failed.gates] == [False, False]
