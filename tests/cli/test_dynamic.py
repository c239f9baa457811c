"""``onnxq dynamic``: what it writes, prints and returns."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import onnx
import pytest

from tests.cli.running import CALIB_DATA, SAMPLE_MODELS, list_files, onnxq
from tests.models import make_model, save

Run = Callable[..., CompletedProcess[str]]

TABLE_TITLES = ("what", "operator", "stored as", "tensors", "float size", "reason")

RESULT_SCHEMA: dict[str, Any] = {
    "schema_version": int,
    "mode": str,
    "source": str,
    "output": str,
    "written": bool,
    "float_size_bytes": int,
    "size_bytes": (int, type(None)),
    "float_opset": int,
    "opset": int,
    "notes": [str],
    "plan": {
        "mode": str,
        "target": str,
        "tensors": [
            {
                "tensor": str,
                "dtype": str,
                "shape": [int],
                "size_bytes": int,
                "form": str,
                "scheme": (str, type(None)),
                "expected_sqnr_db": (float, type(None)),
                "reason": str,
                "uses": [{"node": str, "operator": str, "form": str, "reason": str}],
            }
        ],
        "skipped_nodes": [{"node": str, "operator": str, "reason": str}],
        "ignored_tensors": int,
        "ignored_bytes": int,
    },
    "verification": {
        "data": str,
        "samples": int,
        "outputs": [
            {
                "name": str,
                "sqnr_db": (float, type(None)),
                "cosine": (float, type(None)),
                "max_abs_error": (float, type(None)),
                "equal": (float, type(None)),
                "compared": int,
                "agreement": (float, type(None)),
                "identical": bool,
            }
        ],
        "optimized_graph": {
            "float_nodes": dict,
            "integer_nodes": dict,
            "constant_dequantize_nodes": int,
        },
        "notes": list,
    },
}


def assert_fits(value: Any, schema: Any, path: str = "") -> None:
    """``value`` has exactly the keys of ``schema``, and values of its types."""
    if isinstance(schema, dict):
        assert isinstance(value, dict), path
        assert set(value) == set(schema), path
        for key, part in schema.items():
            assert_fits(value[key], part, f"{path}/{key}")
    elif isinstance(schema, list):
        assert isinstance(value, list), path
        for index, item in enumerate(value):
            assert_fits(item, schema[0], f"{path}/{index}")
    else:
        assert isinstance(value, schema), f"{path}: {value!r}"


@pytest.fixture
def mlp(tmp_path: Path) -> Path:
    return Path(shutil.copy(SAMPLE_MODELS / "mlp.onnx", tmp_path / "mlp.onnx"))


def test_writes_beside_the_model_and_reports_on_standard_output(mlp: Path) -> None:
    result = onnxq("dynamic", mlp, cwd=mlp.parent)
    assert result.returncode == 0
    assert result.stderr == ""
    assert sorted(list_files(mlp.parent)) == ["mlp.int8.onnx", "mlp.onnx"]
    onnx.checker.check_model(str(mlp.with_name("mlp.int8.onnx")))
    for title in TABLE_TITLES:
        assert title in result.stdout
    assert "synthetic inputs" in result.stdout
    assert "0 constant DequantizeLinear" in result.stdout
    assert "mlp.int8.onnx: 340.8 kB -> " in result.stdout
    assert "no gain: only 10 output columns" in result.stdout


def test_default_name_follows_the_type(mlp: Path, run_here: Run) -> None:
    assert run_here("dynamic", mlp.name, "--weights", "bf16", cwd=mlp.parent).returncode == 0
    assert sorted(list_files(mlp.parent)) == ["mlp.bf16.onnx", "mlp.onnx"]


def test_output_goes_where_it_is_told(mlp: Path, run_here: Run) -> None:
    folder = mlp.parent / "deep" / "er"
    folder.mkdir(parents=True)
    result = run_here("dynamic", mlp, "-o", "deep/er/small.bin", cwd=mlp.parent)
    assert result.returncode == 0
    assert [path.name for path in folder.iterdir()] == ["small.bin"]
    assert sorted(path.name for path in mlp.parent.iterdir()) == ["deep", "mlp.onnx"]


def test_json_has_the_documented_shape(mlp: Path, run_here: Run) -> None:
    result = run_here(
        "dynamic", mlp, "--json", "--data", CALIB_DATA / "mlp" / "eval", cwd=mlp.parent
    )
    assert result.returncode == 0
    assert result.stderr == ""
    found = json.loads(result.stdout)
    assert_fits(found, RESULT_SCHEMA)
    assert found["schema_version"] == 1
    assert found["written"] is True
    assert found["float_size_bytes"] == mlp.stat().st_size
    assert found["size_bytes"] == mlp.with_name("mlp.int8.onnx").stat().st_size
    assert found["verification"]["samples"] == 16
    assert found["verification"]["optimized_graph"]["constant_dequantize_nodes"] == 0


def test_json_of_identical_outputs_has_no_infinity(tmp_path: Path, run_here: Run) -> None:
    weight = np.full((48, 40), 0.5, np.float32)
    save(
        make_model("y = MatMul(x, w)", "float[2, 48] x", "float[2, 40] y", {"w": weight}),
        tmp_path / "halves.onnx",
    )
    result = run_here("dynamic", "halves.onnx", "--weights", "fp16", "--json", cwd=tmp_path)
    (output,) = json.loads(result.stdout)["verification"]["outputs"]
    assert output["identical"] is True
    assert output["sqnr_db"] is None
    assert output["max_abs_error"] == 0.0


@pytest.mark.parametrize("extra", [(), ("--json",)], ids=["text", "json"])
def test_dry_run_writes_nothing(mlp: Path, extra: tuple[str, ...], run_here: Run) -> None:
    mlp.with_name("mlp.int8.onnx").write_text("of the user")
    before = list_files(mlp.parent)
    result = run_here("dynamic", mlp, "--dry-run", *extra, cwd=mlp.parent)
    assert result.returncode == 0
    assert result.stderr == ""
    assert list_files(mlp.parent) == before
    if extra:
        found = json.loads(result.stdout)
        assert found["written"] is False
        assert found["size_bytes"] is None
        assert found["verification"] is None
        assert len(found["plan"]["tensors"]) == 5
    else:
        assert "hidden1.weight" in result.stdout
        assert "no gain: only 10 output columns" in result.stdout
        assert "dry run: nothing was written" in result.stdout


def test_existing_output_is_kept_without_force_and_replaced_with_it(
    mlp: Path, run_here: Run
) -> None:
    output = mlp.with_name("mlp.int8.onnx")
    output.write_text("of the user")
    refused = run_here("dynamic", mlp, cwd=mlp.parent)
    assert refused.returncode == 3
    assert refused.stderr == f"error: {output}: exists already; --force replaces it\n"
    assert output.read_text() == "of the user"
    assert run_here("dynamic", mlp, "--force", cwd=mlp.parent).returncode == 0
    onnx.checker.check_model(str(output))
    assert sorted(list_files(mlp.parent)) == ["mlp.int8.onnx", "mlp.onnx"]


@pytest.mark.parametrize(
    ("options", "stored"),
    [
        (("--include", "*/hidden1/*"), {"hidden1.weight"}),
        (("--exclude", "*hidden1*", "--exclude", "/class*"), {"hidden2.weight"}),
        (("--op-types", "Gemm,Relu", "--no-storage"), {"hidden1.weight", "hidden2.weight"}),
    ],
    ids=["include", "exclude", "op-types-no-storage"],
)
def test_selectors_choose_nodes(
    mlp: Path,
    options: tuple[str, ...],
    stored: set[str],
    run_here: Callable[..., CompletedProcess[str]],
) -> None:
    result = run_here("dynamic", mlp, "--dry-run", "--json", *options, cwd=mlp.parent)
    assert result.returncode == 0, result.stderr
    tensors = json.loads(result.stdout)["plan"]["tensors"]
    assert {one["tensor"] for one in tensors if one["scheme"] is not None} == stored
    left = [one["reason"] for one in tensors if one["scheme"] is None]
    assert all(left)


def test_raised_opset_is_said(tmp_path: Path, run_here: Run) -> None:
    weight = np.random.default_rng(0).standard_normal((96, 48)).astype(np.float32)
    model = make_model(
        "y = MatMul(x, w)", "float[2, 96] x", "float[2, 48] y", {"w": weight}, opset=9, ir_version=4
    )
    save(model, tmp_path / "old.onnx")
    result = run_here("dynamic", "old.onnx", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "opset 9 -> 11" in result.stdout
    (imported,) = onnx.load(str(tmp_path / "old.int8.onnx")).opset_import
    assert imported.version == 11


SEEDED = {"transformer": "int8", "cnn": "uint8", "mlp": "int4"}
"""Weights of each model."""


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of these models, quantized with two seeds of the hashes of Python."""
    folders = []
    for seed in ("0", "1"):
        folder = tmp_path_factory.mktemp("seeded")
        calls = [
            ["dynamic", str(SAMPLE_MODELS / f"{name}.onnx"), "-o", f"{name}.onnx", "--weights", one]
            for name, one in SEEDED.items()
        ]
        code = f"from onnxq.cli import run; raise SystemExit(max(map(run, {calls})))"
        command = (sys.executable, "-c", code)
        result = onnxq(cwd=folder, command=command, environment={"PYTHONHASHSEED": seed})
        assert result.returncode == 0, result.stderr
        folders.append(folder)
    return folders


@pytest.mark.parametrize("model", SEEDED)
def test_same_bytes_with_any_hash_seed(model: str, seeded: list[Path]) -> None:
    one, other = ((folder / f"{model}.onnx").read_bytes() for folder in seeded)
    assert one == other
