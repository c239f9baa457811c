"""What is written back is what was computed with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch")

from onnxq.runtime.session import Session  # noqa: E402
from onnxq.training.binding import bind  # noqa: E402
from onnxq.training.interpreter import run  # noqa: E402
from onnxq.training.program import compile_model  # noqa: E402
from onnxq.training.quantities import Quantities  # noqa: E402
from onnxq.training.writing import write_back  # noqa: E402
from tests.training.quantized_models import load, samples  # noqa: E402


def disturb(quantities: Quantities) -> None:
    """Learn something at random."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for one in quantities.learned:
            one.copy_(0.05 * torch.randn(one.shape, generator=generator))
        quantities.project()


@pytest.mark.parametrize("bits", [8, 4], ids=["8-bit activations", "4-bit activations"])
def test_the_file_computes_what_the_simulation_computed(bits: int, tmp_path: Path) -> None:
    model = load(bits)
    quantities = bind(model)
    disturb(quantities)
    feeds = samples(1)[0]
    program = compile_model(model, trained=quantities.values)
    with torch.no_grad():
        simulated = run(program, feeds, quantities.compute())["y"]
    write_back(quantities)
    path = tmp_path / "written.onnx"
    ir.save(model, path)
    with torch.no_grad():
        again = run(compile_model(ir.load(path)), feeds)["y"]
    assert torch.equal(simulated, again)
    (expected,) = Session(path, optimization="none").run(feeds)
    # One element that is rounded the other way is a step of 1/15 of a range before a mean of 16.
    assert np.abs(again.numpy() - expected).max() < 0.02 * np.abs(expected).max()


def test_the_graph_stays() -> None:
    model = load()
    before = ir.to_proto(model)
    quantities = bind(model)
    disturb(quantities)
    write_back(quantities)
    after = ir.to_proto(model)
    assert [str(node) for node in before.graph.node] == [str(node) for node in after.graph.node]

    def shapes(proto: onnx.ModelProto) -> list[tuple[str, int, tuple[int, ...]]]:
        return [(one.name, one.data_type, tuple(one.dims)) for one in proto.graph.initializer]

    assert shapes(before) == shapes(after)
