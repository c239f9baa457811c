"""Whole networks with integer kernels: what the engine computes is what onnxruntime gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch")

import onnxq  # noqa: E402
from onnxq.graph.files import load_model  # noqa: E402
from onnxq.runtime.session import Session  # noqa: E402
from onnxq.training.interpreter import run  # noqa: E402
from onnxq.training.program import compile_model, count_operators  # noqa: E402
from tests.cli.running import CALIB_DATA, SAMPLE_MODELS  # noqa: E402
from tests.training.kernels import on_x86  # noqa: E402
from tests.training.quantized_models import load, samples  # noqa: E402

pytestmark = on_x86


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two that wait for each other take twenty times as long where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def sqnr_db(expected: npt.NDArray[Any], measured: npt.NDArray[Any]) -> float:
    """Of two results."""
    difference = np.square(measured - expected.astype(np.float64)).sum()
    signal = np.square(expected.astype(np.float64)).sum()
    return float(10 * np.log10(signal / max(difference, 1e-300)))


@pytest.mark.parametrize(
    ("weights", "activations"),
    [("int8", "uint8"), ("int4", "uint8"), ("int4", "uint4")],
    ids=["W8A8", "W4A8", "W4A4"],
)
def test_the_convolutional_sample_gives_what_onnxruntime_gives(
    weights: str, activations: str, tmp_path: Path
) -> None:
    path = tmp_path / "cnn.onnx"
    onnxq.quantize_static(
        SAMPLE_MODELS / "cnn.onnx",
        CALIB_DATA / "cnn" / "calib",
        path,
        accuracy="fast",
        weights=weights,
        activations=activations,
    )
    session, program = Session(path, threads=1), compile_model(load_model(path).model, exact=True)
    # Of all pairs only the one of the input is no part of a kernel.
    assert count_operators(program)["QuantizeLinear"] == 1
    expected, measured = [], []
    for file in sorted((CALIB_DATA / "cnn" / "eval").glob("*.npz")):
        with np.load(file) as arrays:
            feeds = {"image": arrays["image"]}
        expected.append(session.run(feeds)[0])
        with torch.no_grad():
            measured.append(run(program, feeds)["logits"].numpy())
    scores, simulated = np.concatenate(expected), np.concatenate(measured)
    assert len(scores) == 512
    np.testing.assert_array_equal(simulated.argmax(1), scores.argmax(1))
    assert sqnr_db(scores, simulated) > 100


@pytest.mark.parametrize("bits", [8, 4], ids=["8-bit activations", "4-bit activations"])
def test_pooling_and_a_dense_layer_at_the_end(bits: int, tmp_path: Path) -> None:
    model = load(bits)
    path = tmp_path / "model.onnx"
    ir.save(model, path)
    session, program = Session(path, threads=1), compile_model(model, exact=True)
    for feeds in samples(4):
        (expected,) = session.run(feeds)
        assert sqnr_db(expected, run(program, feeds)["y"].numpy()) > 100


def test_a_value_that_is_watched_stays() -> None:
    model = load()
    inside = next(node for node in model.graph if node.op_type == "Conv").outputs[0]
    program = compile_model(model, watched=[inside], exact=True)
    found = run(program, samples(1)[0], watched=[inside])
    assert inside.name in found
