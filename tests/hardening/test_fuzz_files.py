"""Damaged files through the commands: done, or refused in one line, with nothing left behind."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.hardening.damaging import damage_bytes, damage_fields, damage_parsable
from tests.hardening.worker import Worker, open_worker
from tests.models import float_weight, make_model

FEW = 30
MANY = 3000

COMMANDS = (
    ("dynamic", "model.onnx", "-o", "out.onnx"),
    ("dynamic", "model.onnx", "-o", "out.onnx", "--weights", "fp16", "--data", "samples"),
    ("dynamic", "model.onnx", "-o", "out.onnx", "--weights", "int4"),
    ("static", "model.onnx", "-o", "out.onnx", "--calib", "samples"),
    ("inspect", "model.onnx", "--plan", "static"),
)


def _make_models() -> dict[str, onnx.ModelProto]:
    rng = np.random.default_rng(20)

    def weight(*shape: int) -> Any:
        return float_weight(rng, shape)

    layers = {"w": weight(8, 4, 3, 3), "b": weight(8), "v": weight(4, 8, 1, 1)}
    norm = {"w": weight(8, 4, 3, 3), **{name: np.ones(8, np.float32) for name in "sbmv"}}
    head = {
        "shape": np.array([2, 12]),
        "w": weight(9, 12),
        "b": weight(9),
        "low": np.float32(0),
        "high": np.float32(6),
        "t": weight(20, 12),
        "i": np.array([3]),
    }
    image = "float[1, 4, 6, 6]"
    return {
        "matmul": make_model(
            "y = MatMul(x, w)", "float[2, 16] x", "float[2, 12] y", {"w": weight(16, 12)}
        ),
        "convolutions": make_model(
            "[c] h = Conv <pads = [1, 1, 1, 1]>(x, w, b) r = Relu(h) [d] y = Conv(r, v)",
            f"{image} x",
            f"{image} y",
            layers,
        ),
        "normalization": make_model(
            "h = Conv(x, w) y = BatchNormalization(h, s, b, m, v)",
            f"{image} x",
            "float[1, 8, 4, 4] y",
            norm,
        ),
        "lstm": make_model(
            "y, h, c = LSTM <hidden_size = 4>(x, w, r, b)",
            "float[3, 1, 5] x",
            "float[3, 1, 1, 4] y",
            {"w": weight(1, 16, 5), "r": weight(1, 16, 4), "b": weight(1, 32)},
        ),
        "head": make_model(
            "f = Reshape(x, shape) g = Gemm <transB = 1>(f, w, b) c = Clip(g, low, high) "
            "d = Mul(c, high) y = Gather(t, i)",
            "float[2, 3, 4] x",
            "float[1, 12] y",
            head,
        ),
        "function": make_model(
            "y = local.product(x, w)",
            "float[2, 16] x",
            "float[2, 12] y",
            {"w": weight(16, 12)},
            functions='<domain: "local", opset_import: ["" : 17]> product (a, b) => (c) '
            "{ c = MatMul(a, b) }",
        ),
        "branches": _make_branches(weight(6, 8)),
    }


def _make_branches(weight: Any) -> onnx.ModelProto:
    result = [helper.make_tensor_value_info("a", TensorProto.FLOAT, [2, 8])]
    then = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["a"])],
        "then",
        [],
        result,
        [numpy_helper.from_array(weight, "w")],
    )
    other = helper.make_graph(
        [
            helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(weight)),
            helper.make_node("MatMul", ["x", "k"], ["a"]),
        ],
        "else",
        [],
        result,
    )
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)],
        "main",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 6]),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 8])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


MODELS = _make_models()


def _write(folder: Path, name: str) -> None:
    """A good model and good samples."""
    content = MODELS[name].SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    (folder / "out.onnx").unlink(missing_ok=True)
    samples = folder / "samples"
    shutil.rmtree(samples, ignore_errors=True)
    samples.mkdir()
    rng = np.random.default_rng(20)
    for index in range(3):
        feeds = {}
        for value in MODELS[name].graph.input:
            shape = [one.dim_value for one in value.type.tensor_type.shape.dim]
            is_float = value.type.tensor_type.elem_type == TensorProto.FLOAT
            feeds[value.name] = rng.standard_normal(shape, np.float32) if is_float else np.True_
        np.savez(samples / f"{index}.npz", **feeds)


def _run(worker: Worker, folder: Path, rng: random.Random, seed: int) -> None:
    reply = worker.run(*rng.choice(COMMANDS))
    fault = reply.find_fault()
    assert fault is None, f"seed {seed}: {fault}; the files are in {folder}"


def _fuzz_models(
    folder: Path, seeds: range, damage: Callable[[random.Random, bytes], bytes]
) -> None:
    with open_worker(folder) as worker:
        for seed in seeds:
            rng = random.Random(seed)
            name = rng.choice(sorted(MODELS))
            _write(folder, name)
            damaged = damage(rng, MODELS[name].SerializeToString())
            (folder / "model.onnx").write_bytes(damaged)
            _run(worker, folder, rng, seed)


def _fuzz_samples(folder: Path, seeds: range) -> None:
    with open_worker(folder) as worker:
        for seed in seeds:
            rng = random.Random(seed)
            _write(folder, rng.choice(sorted(MODELS)))
            path = folder / "samples" / f"{rng.randrange(3)}.npz"
            with np.load(path) as archive:
                feeds = dict(archive)
            kind = rng.randrange(3)
            if kind == 1:
                np.savez_compressed(path, **feeds)
            elif kind == 2 and len(feeds) == 1:
                path.unlink()
                path = path.with_suffix(".npy")
                np.save(path, next(iter(feeds.values())))
            path.write_bytes(damage_bytes(rng, path.read_bytes()))
            _run(worker, folder, rng, seed)


DAMAGES = {"bytes": damage_bytes, "parsable": damage_parsable, "fields": damage_fields}
every_damage = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)


def test_the_good_files_are_good(tmp_path: Path) -> None:
    with open_worker(tmp_path) as worker:
        for name, command in zip(MODELS, itertools.cycle(COMMANDS), strict=False):
            _write(tmp_path, name)
            reply = worker.run(*command)
            assert reply.exit_code in (0, 1), reply
            assert reply.find_fault() is None


@every_damage
def test_damaged_models(damage: Callable[[random.Random, bytes], bytes], tmp_path: Path) -> None:
    _fuzz_models(tmp_path, range(FEW), damage)


def test_damaged_samples(tmp_path: Path) -> None:
    _fuzz_samples(tmp_path, range(FEW))


@pytest.mark.full
@every_damage
def test_many_damaged_models(
    damage: Callable[[random.Random, bytes], bytes], tmp_path: Path
) -> None:
    _fuzz_models(tmp_path, range(FEW, MANY), damage)


@pytest.mark.full
def test_many_damaged_samples(tmp_path: Path) -> None:
    _fuzz_samples(tmp_path, range(FEW, MANY))
