"""Bad input: an exit code, one line on standard error, and no file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import onnx
import pytest

import onnxq as package
from tests.cli.running import SAMPLE_MODELS, assert_refused, list_files, onnxq
from tests.models import float_weight, make_model, save, save_external

Run = Callable[..., CompletedProcess[str]]

MLP = SAMPLE_MODELS / "mlp.onnx"


def copy_mlp(folder: Path) -> None:
    shutil.copy(MLP, folder / "model.onnx")


def write(content: bytes) -> Callable[[Path], None]:
    return lambda folder: _write(folder, content)


def _write(folder: Path, content: bytes) -> None:
    (folder / "model.onnx").write_bytes(content)


def _nothing(_folder: Path) -> None:
    return


def _directory(folder: Path) -> None:
    (folder / "model.onnx").mkdir()


def _no_opset(folder: Path) -> None:
    model = onnx.load(str(MLP))
    del model.opset_import[:]
    save(model, folder / "model.onnx")


def _old_opset(folder: Path) -> None:
    model = onnx.load(str(MLP))
    model.opset_import[0].version = 6
    save(model, folder / "model.onnx")


def _only_a_graph(folder: Path) -> None:
    _write(folder, onnx.load(str(MLP)).graph.SerializeToString())


def _external(location: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        weight = float_weight(np.random.default_rng(0), (96, 48))
        model = make_model("y = MatMul(x, w)", "float[2, 96] x", "float[2, 48] y", {"w": weight})
        save_external(model, folder / "model.onnx")
        (folder / "weights.bin").unlink()
        model = onnx.load(str(folder / "model.onnx"), load_external_data=False)
        for entry in model.graph.initializer[0].external_data:
            if entry.key == "location":
                entry.value = location
        save(model, folder / "model.onnx")

    return make


BAD_MODELS: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (_nothing, "no such file"),
    "empty": (write(b""), "the file is empty"),
    "truncated": (write(MLP.read_bytes()[:200_000]), "not an ONNX model, or cut short"),
    "text": (write(b"This is not a model.\n" * 40), "not an ONNX model"),
    "binary": (write(bytes(range(256)) * 8), "not an ONNX model"),
    "directory": (_directory, "is a directory"),
    "no-opset": (_no_opset, "not an ONNX model"),
    "only-a-graph": (_only_a_graph, "not an ONNX model"),
    "old-opset": (_old_opset, "opset 6 is older than 7"),
    "external-missing": (_external("gone.bin"), "no such file; copy it beside the model"),
    "external-absolute": (_external("/etc/passwd"), "absolute paths are refused"),
    "external-outside": (_external("../weights.bin"), "outside the folder of the model"),
}


@pytest.mark.parametrize(("make", "part"), BAD_MODELS.values(), ids=BAD_MODELS)
def test_bad_model(make: Callable[[Path], None], part: str, tmp_path: Path, run_here: Run) -> None:
    make(tmp_path)
    before = list_files(tmp_path)
    result = run_here("dynamic", "model.onnx", cwd=tmp_path)
    assert_refused(result, 3, "model.onnx: ", part)
    assert list_files(tmp_path) == before


@pytest.mark.parametrize("name", ["missing", "text", "directory"])
def test_inspect_refuses_the_same(
    name: str, tmp_path: Path, run_here: Callable[..., CompletedProcess[str]]
) -> None:
    make, part = BAD_MODELS[name]
    make(tmp_path)
    assert_refused(run_here("inspect", "model.onnx", cwd=tmp_path), 3, part)


CALLS: dict[str, tuple[tuple[str, ...], int, str]] = {
    "output-is-input": (("-o", "model.onnx", "--force"), 3, "is the input model"),
    "output-is-input-by-another-name": (("-o", "link.onnx", "--force"), 3, "is the input model"),
    "output-is-a-directory": (("-o", "."), 3, "is a directory"),
    "output-folder-missing": (("-o", "nowhere/small.onnx"), 3, "does not exist; create it first"),
    "glob-without-match": (
        ("--exclude", "/hiden1/Gemm"),
        2,
        "'/hiden1/Gemm' matches no node; nearest names: /hidden1/Gemm",
    ),
    "operator-without-match": (("--op-types", "Gem"), 2, "nearest names: Gemm"),
    "unknown-target": (("--target", "ort-gpu"), 2, "known targets: ort-cpu, onnx"),
    "block-size-for-int8": (("--block-size", "32"), 2, "--block-size is for 4-bit weights"),
    "odd-block-size": (
        ("--weights", "int4", "--block-size", "48"),
        2,
        "--block-size 48: the kernels take",
    ),
    "per-tensor-fp16": (("--weights", "fp16", "--per-tensor"), 2, "no meaning for fp16 weights"),
    "data-missing": (("--data", "nowhere"), 3, "no such folder"),
    "data-empty": (("--data", "empty"), 3, "holds no .npz or .npy samples"),
    "data-of-another-model": (("--data", "other"), 3, "has no array 'pixels'"),
    "nothing-selected": (("--op-types", "Relu"), 1, "nothing to quantize: left out by --op-types"),
}


@pytest.mark.parametrize(("options", "exit_code", "part"), CALLS.values(), ids=CALLS)
def test_bad_call(
    options: tuple[str, ...],
    exit_code: int,
    part: str,
    tmp_path: Path,
    run_here: Callable[..., CompletedProcess[str]],
) -> None:
    copy_mlp(tmp_path)
    (tmp_path / "link.onnx").symlink_to(tmp_path / "model.onnx")
    for folder in ("empty", "other"):
        (tmp_path / folder).mkdir()
    np.savez(tmp_path / "other" / "sample.npz", image=np.zeros((1, 64), np.float32))
    before = list_files(tmp_path)
    assert_refused(run_here("dynamic", "model.onnx", *options, cwd=tmp_path), exit_code, part)
    assert list_files(tmp_path) == before


def test_glob_without_match_in_a_process(tmp_path: Path) -> None:
    copy_mlp(tmp_path)
    result = onnxq("dynamic", "model.onnx", "--include", "hidden9", cwd=tmp_path)
    assert_refused(result, 2, "'hidden9' matches no node; nearest names: ", "/hidden")
    assert sorted(list_files(tmp_path)) == ["model.onnx"]


@pytest.mark.parametrize(
    "arguments",
    [("dynamic",), ("dynamic", "a", "--weights", "int3"), ("dynamic", "a", "--nope"), ("nope",)],
    ids=["no-model", "bad-type", "bad-option", "bad-command"],
)
def test_call_that_the_parser_refuses(
    arguments: tuple[str, ...], tmp_path: Path, run_here: Callable[..., CompletedProcess[str]]
) -> None:
    result = run_here(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert_refused(result, 2, "--help")
    assert list_files(tmp_path) == {}


def test_model_of_nothing_but_small_tensors(tmp_path: Path, run_here: Run) -> None:
    model = make_model(
        "y = MatMul(x, w)", "float[1, 4] x", "float[1, 4] y", {"w": np.eye(4, dtype=np.float32)}
    )
    save(model, tmp_path / "model.onnx")
    result = run_here("dynamic", "model.onnx", cwd=tmp_path)
    assert_refused(result, 1, "nothing to quantize: it has no float weights of 64 elements or more")
    assert sorted(list_files(tmp_path)) == ["model.onnx"]


@pytest.mark.parametrize("target", ["ort-cpu", "onnx"])
@pytest.mark.parametrize("weights", ["int8", "uint8", "int4", "fp16", "bf16"])
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_own_output_is_recognised(name: str, weights: str, target: str, tmp_path: Path) -> None:
    first = tmp_path / "first.onnx"
    package.quantize_dynamic(SAMPLE_MODELS / f"{name}.onnx", first, weights=weights, target=target)
    with pytest.raises(package.OnnxqError, match="already quantized") as caught:
        package.quantize_dynamic(first, tmp_path / "again.onnx")
    assert caught.value.exit_code == 3
    assert sorted(list_files(tmp_path)) == ["first.onnx"]


def test_second_layer_is_refused(tmp_path: Path, run_here: Run) -> None:
    package.quantize_dynamic(MLP, tmp_path / "model.onnx")
    result = run_here("dynamic", "model.onnx", cwd=tmp_path)
    assert_refused(result, 3, "already quantized", "quantize the float model instead")
    assert sorted(list_files(tmp_path)) == ["model.onnx"]


@pytest.mark.skipif(os.getuid() == 0, reason="nothing is unwritable for root")
@pytest.mark.parametrize("mode", [0o555, 0o000], ids=["read-only", "closed"])
def test_folder_that_cannot_be_written_to(mode: int, tmp_path: Path, run_here: Run) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(mode)
    try:
        result = run_here("dynamic", MLP, "-o", folder / "small.onnx", cwd=tmp_path)
    finally:
        folder.chmod(0o755)
    assert_refused(result, 3, str(folder))
    assert list_files(folder) == {}


@pytest.mark.skipif(os.getuid() == 0, reason="nothing is unreadable for root")
def test_model_that_cannot_be_read(tmp_path: Path, run_here: Run) -> None:
    copy_mlp(tmp_path)
    (tmp_path / "model.onnx").chmod(0)
    assert_refused(run_here("dynamic", "model.onnx", cwd=tmp_path), 3, "cannot be read")


def test_folder_of_devices_cannot_hold_the_output(tmp_path: Path, run_here: Run) -> None:
    """/proc refuses new folders also to root."""
    result = run_here("dynamic", MLP, "-o", "/proc/small.onnx", cwd=tmp_path)
    assert_refused(result, 3, "/proc: cannot be written to")
