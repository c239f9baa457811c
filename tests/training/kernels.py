"""Comparing integer kernels of the engine with those of onnxruntime."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
import torch

from onnxq.runtime.session import Session
from onnxq.training.interpreter import run
from onnxq.training.program import compile_model, count_operators
from tests.models import save

Arrays = dict[str, npt.NDArray[Any]]

X = "x = DequantizeLinear(q, sx, zx)"
Y = "r = QuantizeLinear(y, sy, zy) o = DequantizeLinear(r, sy, zy)"

on_x86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="other processors add otherwise"
)


def byte_values(seed: int, *shape: int) -> npt.NDArray[np.uint8]:
    """Random inputs."""
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def check_exact(model: onnx.ModelProto, feeds: Arrays, kernel: str, folder: Path) -> int:
    """The result by the engine is that of a kernel of onnxruntime, to the last bit.

    Args:
        model: a layer and what is around it.
        feeds: for its inputs.
        kernel: type of the node that onnxruntime makes of the layer.
        folder: for files.

    Returns:
        How many elements are something else where the engine only computes in float64: without
        any there is nothing that this tests.
    """
    optimized = folder / "optimized.onnx"
    session = Session(save(model, folder / "model.onnx"), threads=1, optimized_path=optimized)
    assert kernel in {node.op_type for node in onnx.load(optimized).graph.node}
    (expected,) = session.run(feeds)
    source = ir.from_proto(model)
    program = compile_model(source, exact=True)
    assert "QuantizeLinear" not in count_operators(program) or kernel == "QuantizeLinear"
    measured = run(program, feeds)["o"].numpy().astype(np.float32)
    assert len(np.unique(expected)) > 10
    np.testing.assert_array_equal(measured, expected)
    plain = run(compile_model(source, real=torch.float64), feeds)["o"].numpy()
    return int(np.count_nonzero(plain.astype(np.float32) != expected))
