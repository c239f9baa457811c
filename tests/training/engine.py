"""Running models both with the engine and with onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import torch

from onnxq.runtime.session import Session
from onnxq.training.interpreter import run
from onnxq.training.program import compile_model
from tests.models import save

Arrays = Mapping[str, npt.NDArray[Any]]

LARGEST_ERROR = 1e-5
"""Of the engine against onnxruntime, relative, as root mean squares."""


def run_engine(model: onnx.ModelProto, feeds: Arrays) -> dict[str, npt.NDArray[Any]]:
    """The outputs of a model by the engine."""
    program = compile_model(ir.from_proto(model))
    with torch.no_grad():
        return {name: one.numpy() for name, one in run(program, feeds).items()}


def run_both(
    model: onnx.ModelProto, feeds: Arrays, folder: Path
) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Each output by onnxruntime and by the engine."""
    session = Session(save(model, folder / "model.onnx"), threads=1, optimization="none")
    measured = run_engine(model, feeds)
    expected = session.run(feeds)
    return [(one, measured[name]) for name, one in zip(session.output_names, expected, strict=True)]


def assert_equal(expected: npt.NDArray[Any], measured: npt.NDArray[Any]) -> None:
    """Same type and shape; integers exactly, floats within ``LARGEST_ERROR``."""
    assert measured.dtype == expected.dtype
    assert measured.shape == expected.shape
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(measured, expected)
        return
    np.testing.assert_array_equal(np.isfinite(measured), np.isfinite(expected))
    finite = np.isfinite(expected)
    difference = np.linalg.norm((measured - expected)[finite].astype(np.float64))
    assert difference <= LARGEST_ERROR * np.linalg.norm(expected[finite].astype(np.float64))
