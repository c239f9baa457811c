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
from onnxq.training.examples import Arrays, Example
from onnxq.training.tensors import Array


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
        """Each sample with what the float model gives for it, and its classes.

        Raises:
            DataError: the model cannot run on a sample.
        """
        at = 0
        for sample in samples:
            try:
                results = self._session.run(sample.feeds)
            except ExecutionError as error:
                raise DataError(f"sample {sample.name}: {error.reason}") from error
            targets = self._name(results)
            wanted = None if labels is None else labels.find(sample.name)
            if wanted is None and labels is not None and labels.sequence is not None:
                rows = next(iter(sample.feeds.values())).shape[0]
                wanted = labels.sequence[at : at + rows]
                at += rows
            yield Example(sample.name, sample.feeds, targets, wanted)

    def answer(self, feeds: Sequence[Arrays], *, together: bool) -> list[Arrays]:
        """What the float model gives for inputs that are no samples.

        Args:
            feeds: inputs.
            together: run those of the same shapes as one, along the first axis.

        Raises:
            DataError: the model cannot run on one of them.
        """
        groups: dict[object, list[int]] = {}
        for at, one in enumerate(feeds):
            shapes = tuple((name, array.shape) for name, array in one.items())
            groups.setdefault(shapes if together else at, []).append(at)
        answers: dict[int, Arrays] = {}
        for group in groups.values():
            joined = {
                name: np.concatenate([feeds[at][name] for at in group]) if len(group) > 1 else array
                for name, array in feeds[group[0]].items()
            }
            try:
                found = self._name(self._session.run(joined))
            except ExecutionError as error:
                raise DataError(f"a mixture of samples: {error.reason}") from error
            parts = {name: np.split(array, len(group)) for name, array in found.items()}
            for place, at in enumerate(group):
                answers[at] = {name: part[place] for name, part in parts.items()}
        return [answers[at] for at in range(len(feeds))]

    def _name(self, results: Sequence[object]) -> dict[str, Array]:
        """Tensors among the outputs, by name."""
        named = zip(self._session.output_names, results, strict=True)
        return {name: np.asarray(one) for name, one in named if not isinstance(one, Sequence)}


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
