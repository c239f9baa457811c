"""What the runtime makes of a quantized model, at one level of its optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onnxq.comparison.results import Execution
from onnxq.runtime.optimized import read_optimized_graph
from onnxq.runtime.session import Session
from onnxq.verification.comparison import OutputComparison


def describe_execution(
    quantized_path: Path,
    *,
    level: str,
    outputs: Sequence[OutputComparison],
    folder: Path,
) -> Execution:
    """Look into the graph that the runtime really runs.

    Args:
        quantized_path: of the quantized model.
        level: of optimisation: 'all' is what users get, 'none' runs the file node by node.
        outputs: float against quantized, measured at this level.
        folder: where onnxruntime may write the graph; takes as much room as the model does.

    Raises:
        ExecutionError: the model does not load, or its graph cannot be written.
        ValueError: there is no such level.
    """
    path = folder / f"optimized_{level}.onnx"
    Session(quantized_path, optimized_path=path, optimization=level)
    graph = read_optimized_graph(path)
    return Execution(
        level=level, graph=graph, float_layers=graph.float_layers, outputs=tuple(outputs)
    )
