"""Trying a quantized model before it gets its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import onnx_ir as ir

from onnxq.errors import (
    ExecutionError,
    OutputError,
    UnsupportedModelError,
    VerificationError,
)
from onnxq.graph.check import find_fault
from onnxq.graph.constants import constant_tensor, dimensions
from onnxq.graph.scopes import iterate_scopes
from onnxq.runtime.memory import refuse_beyond_memory
from onnxq.runtime.optimized import OptimizedGraph, read_optimized_graph
from onnxq.runtime.session import Feeds, InputSignature, Session
from onnxq.samples import Hints, propose_feeds
from onnxq.verification.comparison import Comparison, OutputComparison

LARGEST_COMPARED_BYTES = 2_000_000_000
"""Running a model takes its size in memory, twice; above this, only on demand (with data)."""

MOST_SIZE_HINTS = 4

LOWEST_EXPECTED_SQNR_DB = 10.0
"""An output under this is a third noise: something is wrong with the model, or with the data."""

_NO_KERNEL = "Could not find an implementation"

Track = Callable[[Iterable[Feeds], int | None], Iterable[Feeds]]
"""Shows progress over feeds, of which there are so many, or an unknown number."""


class Evaluation(Protocol):
    """Samples to compare on."""

    @property
    def label(self) -> str:
        """How reports call them."""

    @property
    def count(self) -> int | None:
        """How many there are; None where that is not known."""

    def read(self, inputs: Sequence[InputSignature]) -> Iterable[Feeds]:
        """Feeds for the inputs of a model."""


@dataclass(frozen=True)
class Verification:
    """What was seen.

    Attributes:
        data: where the inputs came from, or why there were none.
        samples: how many were run.
        outputs: float against quantized, for each output.
        optimized: the graph that the runtime really runs; None if the model was only loaded.
        notes: what a user should know besides.
    """

    data: str
    samples: int
    outputs: tuple[OutputComparison, ...]
    optimized: OptimizedGraph | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "data": self.data,
            "samples": self.samples,
            "outputs": [output.to_json() for output in self.outputs],
            "optimized_graph": None if self.optimized is None else self.optimized.to_json(),
            "notes": list(self.notes),
        }


def verify(
    float_path: Path,
    quantized_path: Path,
    *,
    data: Evaluation | None,
    hints: Hints,
    size_bytes: int,
    track: Track,
    needs_fusion: bool = True,
) -> Verification:
    """Check, load and run ``quantized_path`` beside the float model.

    Args:
        float_path: the original.
        quantized_path: the result, alone in a folder that may be written to.
        data: samples, or None for made-up inputs.
        hints: for made-up inputs.
        size_bytes: of the float model.
        track: shows progress over the samples.
        needs_fusion: whether a weight that onnxruntime would dequantize at every run is a fault;
            False for what is made for other runtimes.

    Raises:
        VerificationError: the result is invalid, or fails where the float model works.
        UnsupportedModelError: the runtime lacks kernels for it, as in too new an operator set.
        DataError: the samples do not fit the model.
        ExecutionError: the float model cannot run on the samples given.
    """
    notes = list(_check(float_path, quantized_path))
    if data is None and size_bytes > LARGEST_COMPARED_BYTES:
        _open_quantized(quantized_path, float_path, mapped=True)
        reason = f"not run: over {LARGEST_COMPARED_BYTES // 10**9} GB; --data DIR runs it anyway"
        return Verification(reason, 0, (), None, tuple(notes))
    refuse_beyond_memory(float_path, size_bytes, advice="free some, or leave out --data")
    quantized, optimized = _open_optimized(quantized_path, float_path)
    constant = len(optimized.constant_dequantize_nodes)
    if constant and not needs_fusion:
        notes.append(
            f"onnxruntime on the CPU does not fuse all of this: it would dequantize {constant} "
            "constants at every run, slower than float; the result is for other runtimes"
        )
    elif constant:
        raise VerificationError(
            f"{quantized_path.name}: {len(optimized.constant_dequantize_nodes)} weights would be "
            f"dequantized at every run, first '{optimized.constant_dequantize_nodes[0]}'; "
            "please report this model"
        )
    try:
        reference = Session(float_path)
    except ExecutionError as error:
        notes.append(f"the float model does not load: {error}")
        return Verification("not run", 0, (), optimized, tuple(notes))
    comparison = Comparison(reference, quantized)
    if data is not None:
        label = data.label
        for feeds in track(data.read(reference.inputs), data.count):
            comparison.add(feeds)
    else:
        label = _run_synthetic(reference, comparison, hints)
    outputs = comparison.results()
    notes += _find_weak_outputs(outputs)
    return Verification(label, comparison.samples, outputs, optimized, tuple(notes))


def find_hints(model: ir.Model) -> Hints:
    """What the weights of a model say about its inputs: rows of tables, rows of matrices."""
    rows: list[int] = []
    reductions: dict[int, None] = {}
    for scope in iterate_scopes(model):
        for node in scope.graph:
            index = {"Gather": 0, "MatMul": 1}.get(node.op_type)
            tensor = None if index is None else constant_tensor(node.inputs[index])
            if tensor is None or len(tensor.shape) != 2:
                continue
            if node.op_type == "Gather":
                rows.append(dimensions(tensor)[0])
            else:
                reductions[dimensions(tensor)[0]] = None
    return Hints(min(rows, default=2), tuple(reductions)[:MOST_SIZE_HINTS])


def _check(float_path: Path, quantized_path: Path) -> Iterator[str]:
    fault = find_fault(quantized_path)
    if fault is None:
        return
    if find_fault(float_path) is None:
        raise VerificationError(
            f"{quantized_path.name}: onnx.checker rejects the result: {fault}; "
            "please report this model"
        )
    yield f"onnx.checker rejects the float model too: {fault}"


def _find_weak_outputs(outputs: tuple[OutputComparison, ...]) -> Iterator[str]:
    for output in outputs:
        if output.sqnr_db is not None and output.sqnr_db < LOWEST_EXPECTED_SQNR_DB:
            yield (
                f"WARNING: output '{output.name}' keeps only {output.sqnr_db:.1f} dB; if the "
                "samples are real, leave out nodes with --exclude or take another type or mode"
            )
        if output.compared == 0:
            yield f"output '{output.name}': no sample gave finite numbers to compare"


def _open_optimized(quantized_path: Path, float_path: Path) -> tuple[Session, OptimizedGraph]:
    folder = quantized_path.parent / "optimized"
    folder.mkdir()
    optimized_path = folder / "optimized.onnx"
    session = _open_quantized(quantized_path, float_path, optimized_path=optimized_path)
    return session, read_optimized_graph(optimized_path)


def _open_quantized(
    quantized_path: Path,
    float_path: Path,
    *,
    optimized_path: Path | None = None,
    mapped: bool = False,
) -> Session:
    try:
        return Session(quantized_path, optimized_path=optimized_path, mapped=mapped)
    except ExecutionError as error:
        if optimized_path is not None and _loads(quantized_path):
            raise OutputError(
                f"{quantized_path.name}: no room to check the result in its folder "
                f"({error.reason}); free about {quantized_path.stat().st_size} bytes"
            ) from error
        try:
            Session(float_path)
        except ExecutionError as original:
            raise original from None
        if _NO_KERNEL in error.reason:
            raise UnsupportedModelError(
                f"{float_path}: this onnxruntime has no kernel for what its quantized form needs: "
                f"{error.reason}; export the model with an older operator set"
            ) from error
        raise VerificationError(
            f"{float_path}: loads, but its quantized form does not: {error.reason}; "
            "please report this model"
        ) from error


def _loads(path: Path) -> bool:
    try:
        Session(path)
    except ExecutionError:
        return False
    return True


def _run_synthetic(reference: Session, comparison: Comparison, hints: Hints) -> str:
    for feeds in propose_feeds(reference.inputs, hints):
        try:
            comparison.add(feeds)
        except ExecutionError:
            continue
        return "synthetic inputs"
    return "not run: no synthetic input fits the model; --data DIR compares on real samples"
