"""The float model, which the quantized one learns to be like."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxq.comparison.labels import Labels
from onnxq.errors import DataError, ExecutionError, UsageError
from onnxq.graph.files import load_model
from onnxq.runtime.session import InputSignature, Session
from onnxq.samples import Sample
from onnxq.training.examples import Example


class Teacher:
    """Runs the float model with onnxruntime, one sample at a time."""

    def __init__(self, path: Path, layers: Sequence[str], folder: Path) -> None:
        """Load the model.

        Args:
            path: of the float model.
            layers: tensors inside that are wanted besides the outputs.
            folder: for a copy of the model that gives them.

        Raises:
            UsageError: there is no such tensor.
            ExecutionError: it does not load.
        """
        if layers:
            path = _expose(path, layers, folder)
        self._session = Session(path, lean=True)
        self._layers = tuple(layers)

    @property
    def inputs(self) -> tuple[InputSignature, ...]:
        """What the model takes."""
        return self._session.inputs

    @property
    def output_names(self) -> tuple[str, ...]:
        """Outputs of the model, without the layers that were asked for."""
        names = self._session.output_names
        return names[: len(names) - len(self._layers)]

    def teach(self, samples: Iterable[Sample], labels: Labels | None) -> Iterator[Example]:
        """Samples with what the float model gives for them, and their classes.

        Raises:
            DataError: the model cannot run on a sample.
        """
        at = 0
        for sample in samples:
            try:
                results = self._session.run(sample.feeds)
            except ExecutionError as error:
                raise DataError(f"sample {sample.name}: {error.reason}") from error
            targets = {
                name: np.asarray(result)
                for name, result in zip(self._session.output_names, results, strict=True)
                if not isinstance(result, Sequence)
            }
            wanted = None if labels is None else labels.find(sample.name)
            if wanted is None and labels is not None and labels.sequence is not None:
                rows = next(iter(sample.feeds.values())).shape[0]
                wanted = labels.sequence[at : at + rows]
                at += rows
            yield Example(sample.name, sample.feeds, targets, wanted)


def list_tensors(path: Path) -> frozenset[str]:
    """Names of the tensors that nodes of the main graph of a model give."""
    graph = load_model(path).model.graph
    return frozenset(value.name or "" for node in graph for value in node.outputs)


def _expose(path: Path, layers: Sequence[str], folder: Path) -> Path:
    """A copy of a model beside whose outputs tensors of its inside are outputs, too."""
    file = load_model(path)
    graph = file.model.graph
    inside = {value.name: value for node in graph for value in node.outputs}
    for name in layers:
        if name not in inside:
            raise UsageError(f"--distill-layers {name}: the float model has no such tensor")
        if not inside[name].is_graph_output():
            graph.outputs.append(inside[name])
    folder.mkdir(parents=True, exist_ok=True)
    exposed = folder / "teacher.onnx"
    try:
        ir.save(file.model, exposed)
    except OSError as error:
        raise DataError(f"{exposed}: cannot be written: {error.strerror or error}") from error
    return exposed
