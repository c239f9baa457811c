"""Sizes on disk, and what a fresh process says of a model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxq.comparison import footprint
from onnxq.comparison.footprint import measure_footprint, size_on_disk
from onnxq.comparison.footprint_child import load_feeds, peak_memory
from onnxq.comparison.results import Footprint
from onnxq.errors import InvalidModelError
from tests.models import float_weight, make_model, matmul_model, save, save_external


@pytest.fixture
def model(tmp_path: Path, rng: np.random.Generator) -> Path:
    return save(matmul_model(float_weight(rng, (16, 8))), tmp_path / "model.onnx")


def is_measured(found: Footprint) -> bool:
    return found.load_ms is not None and found.load_ms > 0.0


def test_model_in_one_file(model: Path) -> None:
    found = measure_footprint(model, {"x": np.ones((2, 16), np.float32)})
    assert found.size_bytes == model.stat().st_size
    assert is_measured(found)
    assert found.peak_memory_bytes is not None
    assert found.peak_memory_bytes >= 0
    json.dumps(found.to_json(), allow_nan=False)


def test_external_data_counts(tmp_path: Path, rng: np.random.Generator) -> None:
    path = save_external(matmul_model(float_weight(rng, (16, 8))), tmp_path / "model.onnx")
    found = measure_footprint(path, {"x": np.ones((2, 16), np.float32)})
    assert found.size_bytes == path.stat().st_size + (tmp_path / "weights.bin").stat().st_size
    assert found.size_bytes > 16 * 8 * 4
    assert is_measured(found)


def test_without_feeds_it_is_only_loaded(model: Path) -> None:
    assert is_measured(measure_footprint(model, None))


def test_path_is_relative_to_here(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    assert is_measured(measure_footprint(Path(model.name), None))


@pytest.mark.skipif(sys.platform == "win32", reason="no peak memory there")
def test_peak_memory_shows_the_model_though_the_parent_is_larger(tmp_path: Path) -> None:
    size = 4096 * 2048 * 4
    path = save(matmul_model(np.ones((4096, 2048), np.float32)), tmp_path / "large.onnx")
    own = np.ones(8 * size, np.uint8)
    found = measure_footprint(path, {"x": np.ones((1, 4096), np.float32)})
    assert own[-1] == 1
    assert found.peak_memory_bytes is not None
    # Weights are held, the file in pieces besides, and nothing of what the parent holds.
    assert size <= found.peak_memory_bytes <= 6 * size


FEEDS = {
    "strings": ("string", np.array(["one", "", "drei ä"], object)),
    "booleans": ("bool", np.array([True, False])),
    "half": ("float16", np.float16([1, 2])),
    "integers": ("int64", np.array([2**60])),
    "scalars": ("float", np.array([1.5], np.float32)),
}


@pytest.mark.parametrize(("kind", "array"), FEEDS.values(), ids=FEEDS)
def test_feeds_of_every_kind(kind: str, array: np.ndarray, tmp_path: Path) -> None:
    path = save(
        make_model("y = Identity(x)", f"{kind}[N] x", f"{kind}[N] y"), tmp_path / "model.onnx"
    )
    assert is_measured(measure_footprint(path, {"x": array}))


@pytest.mark.parametrize("name", ["file", "input/1:0", "arr_0", "ä b", "self"])
def test_names_of_every_kind(name: str, tmp_path: Path) -> None:
    edges = [
        helper.make_tensor_value_info(one, onnx.TensorProto.FLOAT, [2]) for one in (name, "out")
    ]
    graph = helper.make_graph([helper.make_node("Neg", [name], ["out"])], "g", edges[:1], edges[1:])
    proto = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    path = save(proto, tmp_path / "model.onnx")
    assert is_measured(measure_footprint(path, {name: np.ones(2, np.float32)}))


def test_feeds_come_back_with_their_types(tmp_path: Path) -> None:
    import ml_dtypes

    feeds = {
        "file": np.array(["a", "bc"], object),
        "b": np.array([1, 2.5], ml_dtypes.bfloat16),
        "c": np.zeros((0, 3), np.uint8),
        "d": np.array(4, np.int64),
    }
    with footprint._stored(feeds) as (path, kinds):
        back = load_feeds(Path(path), json.loads(kinds))
    assert list(back) == list(feeds)
    for name, array in feeds.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)
    assert not Path(path).exists()


def test_model_that_fails_in_the_child(model: Path) -> None:
    found = measure_footprint(model, {"x": np.ones((2, 17), np.float32)})
    assert found == Footprint(size_bytes=model.stat().st_size)


def test_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"nothing")
    assert measure_footprint(path, None) == Footprint(size_bytes=7)


def test_model_that_onnxq_does_not_take_but_onnxruntime_runs(tmp_path: Path) -> None:
    old = make_model("y = Neg(x)", "float[2] x", "float[2] y", opset=6, ir_version=3)
    path = save(old, tmp_path / "old.onnx")
    found = measure_footprint(path, {"x": np.ones(2, np.float32)})
    assert found.size_bytes == path.stat().st_size
    assert is_measured(found)


def test_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError):
        size_on_disk(tmp_path / "none.onnx")


@pytest.mark.parametrize("executable", ["", "/nowhere/python"])
def test_no_interpreter(executable: str, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    assert measure_footprint(model, None) == Footprint(size_bytes=model.stat().st_size)


@pytest.mark.parametrize(
    "said", ["", "nothing", "[]", "1", '{"load_ms": NaN}', '{"load_ms": "1"}', '{"load_ms": null}']
)
def test_child_that_says_something_else(
    said: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footprint, "_CHILD", f"print({said!r})")
    assert measure_footprint(model, None) == Footprint(size_bytes=model.stat().st_size)


def test_child_that_never_ends(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "_CHILD", "import time; time.sleep(60)")
    monkeypatch.setattr(footprint, "LONGEST_CHILD_S", 0.2)
    assert measure_footprint(model, None).load_ms is None


def test_modules_of_the_folder_where_the_user_is_do_not_matter(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for name in ("json", "numpy", "onnxruntime", "labels", "onnxq"):
        (here / f"{name}.py").write_text("raise SystemExit(1)\n")
    monkeypatch.chdir(here)
    assert is_measured(measure_footprint(model, None))


def test_the_process_imports_little() -> None:
    """The rest of the program takes longer to import than most models to load."""
    code = "import sys, onnxq.comparison.footprint_child; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"onnx", "onnx_ir", "rich"} & set(done.stdout.split()) == set()


def test_peak_memory_never_falls() -> None:
    before = peak_memory()
    held = np.ones(20_000_000, np.uint8)
    after = peak_memory()
    assert held[-1] == 1
    assert before is None or (after is not None and after >= before > 0)
