"""Ranges in a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxq
from onnxq.calibration import SavedRanges, fingerprint_model, load_ranges, save_ranges
from onnxq.errors import DataError, OutputError
from tests.apply.calibrated_models import MODELS, images, save_samples
from tests.models import save, save_external

SAVED = SavedRanges(
    model="1" * 64,
    data="2" * 64,
    method="mse",
    extremes={"a": (-1.5, 3.25), "b/c": (0.0, 1e-30)},
    ranges={"a": (-1.0, 3.0), "b/c": (0.0, 0.0)},
)


def test_round_trip_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "ranges.json"
    save_ranges(SAVED, path)
    assert load_ranges(path) == SAVED
    assert [one.name for one in tmp_path.iterdir()] == ["ranges.json"]


def test_any_float_survives(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ranges = {
        str(index): (-float(low), float(high))
        for index, (low, high) in enumerate(np.exp(rng.uniform(-80, 80, (50, 2))))
    }
    saved = SavedRanges(model="", data="", method="minmax", extremes=ranges, ranges=ranges)
    save_ranges(saved, tmp_path / "ranges.json")
    assert load_ranges(tmp_path / "ranges.json") == saved


def test_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "ranges.json"
    path.write_text("x" * 100_000)
    save_ranges(SAVED, path)
    assert load_ranges(path) == SAVED


def test_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "ranges.json"
    with pytest.raises(OutputError, match=r"nowhere/ranges.json: cannot be written: No such file"):
        save_ranges(SAVED, path)


def test_folder_in_place_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        save_ranges(SAVED, tmp_path)
    assert list(tmp_path.iterdir()) == []


def _with(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: {**content, **changes}


def _range(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    def change(content: dict[str, Any]) -> Any:
        content["tensors"]["a"].update(changes)
        return content

    return change


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(_with(schema_version=2), id="other-version"),
        pytest.param(_with(tensors=[]), id="tensors-a-list"),
        pytest.param(_with(tensors={"a": 1}), id="tensor-a-number"),
        pytest.param(_with(tensors={"a": {"low": 0}}), id="range-cut"),
        pytest.param(_range(low="x"), id="text"),
        pytest.param(_range(low=None), id="null"),
        pytest.param(_range(low=5.0), id="upside-down"),
        pytest.param(_range(high=float("inf")), id="infinite"),
        pytest.param(_range(high=float("nan")), id="nan"),
        pytest.param(_range(minimum=[1]), id="list"),
        pytest.param(_range(high=10**400), id="too-large"),
        pytest.param(lambda content: [content], id="a-list"),
        pytest.param(lambda content: 5, id="a-number"),
        pytest.param(lambda content: None, id="null-file"),
        pytest.param(lambda content: {}, id="empty"),
    ],
)
def test_damaged_content_is_refused(damage: Callable[[Any], Any], tmp_path: Path) -> None:
    path = tmp_path / "ranges.json"
    save_ranges(SAVED, path)
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(DataError, match=r"ranges.json: .*calibrate again"):
        load_ranges(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"schema_version": 1}\x00', b"\x89PNG"],
    ids=["empty", "cut", "not-utf8", "deep", "zero-byte", "image"],
)
def test_what_is_no_json_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "ranges.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"ranges.json"):
        load_ranges(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ranges.json: cannot be read as saved ranges: No such"):
        load_ranges(tmp_path / "ranges.json")


def test_fingerprint_changes_with_each_file(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"1" * 3_000_000)
    other.write_bytes(b"2")
    first = fingerprint_model((one, other))
    assert first == fingerprint_model((one, other))
    other.write_bytes(b"3")
    assert fingerprint_model((one, other)) != first
    with pytest.raises(DataError, match="missing: cannot be read"):
        fingerprint_model((tmp_path / "missing",))


# In the pipeline.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(MODELS["Conv-Relu"].build(), tmp_path / "net.onnx")
    save_samples(images(), tmp_path / "samples")
    return tmp_path


def calibrate(folder: Path, **options: Any) -> Path:
    path = folder / "ranges.json"
    onnxq.quantize_static(
        folder / "net.onnx",
        folder / "samples",
        folder / "one.onnx",
        save_ranges=path,
        **{"accuracy": "fast", **options},
    )
    return path


@pytest.mark.parametrize("method", ["auto", "minmax", "percentile", "entropy", "mse"])
def test_saved_ranges_give_the_same_bytes(method: str, folder: Path) -> None:
    path = calibrate(folder, method=method)
    again = onnxq.quantize_static(
        folder / "net.onnx", folder / "samples", folder / "two.onnx", ranges=path
    )
    assert (folder / "one.onnx").read_bytes() == (folder / "two.onnx").read_bytes()
    assert again.calibration is not None
    assert again.calibration.samples == 0
    assert again.calibration.data == str(path)
    assert again.calibration.candidates == ()
    if method != "auto":
        assert again.calibration.method == method


def test_saved_ranges_of_ranges_are_the_same(folder: Path) -> None:
    path = calibrate(folder, method="mse")
    onnxq.quantize_static(
        folder / "net.onnx",
        folder / "samples",
        folder / "two.onnx",
        ranges=path,
        save_ranges=folder / "again.json",
    )
    assert load_ranges(folder / "again.json") == load_ranges(path)


def test_ranges_of_another_model_are_refused(folder: Path) -> None:
    path = calibrate(folder)
    save(MODELS["Conv"].build(), folder / "net.onnx")
    with pytest.raises(DataError, match=r"ranges.json: was saved for another model; calibrate"):
        onnxq.quantize_static(
            folder / "net.onnx", folder / "samples", folder / "two.onnx", ranges=path
        )
    assert not (folder / "two.onnx").exists()


def test_ranges_of_other_weights_outside_the_file_are_refused(tmp_path: Path) -> None:
    save_external(MODELS["Conv-Relu"].build(), tmp_path / "net.onnx")
    save_samples(images(), tmp_path / "samples")
    path = calibrate(tmp_path)
    content = bytearray((tmp_path / "weights.bin").read_bytes())
    content[0] ^= 1
    (tmp_path / "weights.bin").write_bytes(content)
    with pytest.raises(DataError, match="was saved for another model"):
        onnxq.quantize_static(
            tmp_path / "net.onnx", tmp_path / "samples", tmp_path / "two.onnx", ranges=path
        )


def test_missing_tensor_is_named(folder: Path) -> None:
    path = calibrate(folder)
    content = json.loads(path.read_text())
    del content["tensors"]["c"]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"ranges.json: has no range of tensor 'c'; calibrate"):
        onnxq.quantize_static(
            folder / "net.onnx", folder / "samples", folder / "two.onnx", ranges=path
        )


def test_other_options_that_need_more_tensors_are_refused(folder: Path) -> None:
    path = calibrate(folder, exclude=["last"])
    with pytest.raises(DataError, match="has no range of tensor"):
        onnxq.quantize_static(
            folder / "net.onnx", folder / "samples", folder / "two.onnx", ranges=path
        )


def test_ranges_serve_other_types(folder: Path) -> None:
    path = calibrate(folder, method="minmax")
    for kind in ("int8", "uint16"):
        result = onnxq.quantize_static(
            folder / "net.onnx",
            folder / "samples",
            folder / f"{kind}.onnx",
            ranges=path,
            target="onnx",
            activations=kind,
        )
        assert result.verification is not None
        (output,) = result.verification.outputs
        assert output.sqnr_db is not None
        assert output.sqnr_db > 25


def test_nothing_is_saved_when_the_run_fails(folder: Path) -> None:
    (folder / "one.onnx").write_text("of the user")
    with pytest.raises(OutputError):
        calibrate(folder)
    assert not (folder / "ranges.json").exists()


@pytest.mark.parametrize("name", ["one.onnx", "net.onnx"])
def test_ranges_never_replace_a_model(name: str, folder: Path) -> None:
    """--save-ranges over the input or the output would destroy one of them."""
    source = (folder / "net.onnx").read_bytes()
    with pytest.raises(onnxq.OnnxqError):
        onnxq.quantize_static(
            folder / "net.onnx",
            folder / "samples",
            folder / "one.onnx",
            save_ranges=folder / name,
            method="minmax",
        )
    assert (folder / "net.onnx").read_bytes() == source
