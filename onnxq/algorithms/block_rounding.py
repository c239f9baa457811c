"""Second-order rounding of 4-bit weights in blocks, with the inputs that their layers have.

GPTQ and coordinate descent (``numerics.second_order``) for MatMulNBits. Inputs are those of the
float model. No bias can take a shift of the mean back, so that the Hessian is not centred.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxq.apply import BlockKey, Job, block_key, find_jobs, read_matrix
from onnxq.apply.weights import scheme_of
from onnxq.graph.copies import copy_model
from onnxq.graph.names import Names
from onnxq.numerics.affine import Array, Parameters
from onnxq.numerics.blocks import quantize_blocks_second_order
from onnxq.numerics.moments import Moments
from onnxq.plan import Plan
from onnxq.rules.roles import Form
from onnxq.runtime.session import Feeds, Session

MOST_MOMENT_BYTES = 512 * 2**20
"""Second moments in memory at a time, if one layer does not take more: one pass over the samples
for each such group of layers. Rounding a layer takes another five times its moments."""


@dataclass(frozen=True)
class BlockLayer:
    """A 4-bit weight and all that is multiplied by it.

    Attributes:
        job: one of its readers.
        inputs: what its readers multiply by it, in the main graph.
    """

    job: Job
    inputs: tuple[ir.Value, ...]

    @property
    def size(self) -> int:
        """K, elements that each output is a sum over."""
        _, layout, _ = block_key(self.job)
        return self.job.tensor.shape[layout[0]]


def find_block_layers(plan: Plan, graph: ir.Graph) -> tuple[BlockLayer, ...]:
    """Layers whose 4-bit weights have all their readers in ``graph``, in its order."""
    found: dict[BlockKey, list[Job]] = {}
    for jobs in find_jobs(plan).values():
        for job in jobs:
            if job.form is Form.BLOCKED_MATMUL:
                found.setdefault(block_key(job), []).append(job)
    layers = []
    for jobs in found.values():
        inputs = tuple(dict.fromkeys(job.use.node.inputs[0] for job in jobs))
        if all(job.use.node.graph is graph for job in jobs):
            layers.append(BlockLayer(jobs[0], tuple(one for one in inputs if one is not None)))
    return tuple(layers)


def round_block_layers(
    model: ir.Model,
    layers: Sequence[BlockLayer],
    read_feeds: Callable[[], Iterable[Feeds]],
    path: Path,
) -> dict[BlockKey, tuple[Array, Parameters]]:
    """Choose the integers of some layers; memory is bounded by one layer and one sample.

    Args:
        model: the float model, which is left as it is.
        layers: of it.
        read_feeds: the samples, from the first one each time.
        path: where to write a model for a while.

    Returns:
        Integers and parameters as ``quantize_blocks`` gives them; for layers of which no finite
        input was seen there is no entry.

    Raises:
        ExecutionError: the model cannot be run on a sample.
    """
    names = _write_with_inputs(model, layers, path)
    session = Session(path, lean=True)
    found = {}
    for group in _split(layers):
        moments = {layer.inputs: Moments(groups=1, size=layer.size) for layer in group}
        values = list(dict.fromkeys(one for inputs in moments for one in inputs))
        for feeds in read_feeds():
            results = session.run(feeds, [names[one] for one in values])
            _add(moments, dict(zip(values, results, strict=True)))
        for layer in group:
            hessian = _find_hessian(moments[layer.inputs])
            if hessian is not None:
                found[block_key(layer.job)] = quantize_blocks_second_order(
                    read_matrix(layer.job), hessian, scheme_of(layer.job.tensor)
                )
    return found


def _add(moments: Mapping[tuple[ir.Value, ...], Moments], read: Mapping[ir.Value, Array]) -> None:
    for inputs, one in moments.items():
        for value in inputs:
            rows = np.asarray(read[value], np.float32).reshape(-1, one.size)
            rows = rows[np.isfinite(rows).all(axis=1)][None]
            one.add(rows, rows)


def _find_hessian(moments: Moments) -> Array | None:
    """Of the inputs as they are, not centred; None where it says nothing."""
    mean = moments.mean_float[0]
    hessian: Array = moments.hessian[0] + moments.count * np.outer(mean, mean)
    return hessian if moments.count and np.all(np.isfinite(hessian)) else None


def _split(layers: Sequence[BlockLayer]) -> Iterator[list[BlockLayer]]:
    """Groups whose moments fit in memory; layers with the same inputs share them."""
    by_inputs: dict[tuple[ir.Value, ...], list[BlockLayer]] = {}
    for layer in layers:
        by_inputs.setdefault(layer.inputs, []).append(layer)
    group: list[BlockLayer] = []
    size_bytes = 0
    for alike in by_inputs.values():
        own = alike[0].size ** 2 * np.dtype(np.float64).itemsize
        if group and size_bytes + own > MOST_MOMENT_BYTES:
            yield group
            group, size_bytes = [], 0
        group += alike
        size_bytes += own
    if group:
        yield group


def _write_with_inputs(
    model: ir.Model, layers: Sequence[BlockLayer], path: Path
) -> dict[ir.Value, str]:
    """Write a copy that gives what the layers read; returns the names of those outputs."""
    copy = copy_model(model)
    names = Names(copy.model)
    found: dict[ir.Value, str] = {}
    copy.model.graph.outputs.clear()
    for layer in layers:
        for value in layer.inputs:
            if value in found:
                continue
            node = ir.node("Identity", [copy.values[value]])
            output = node.outputs[0]
            output.name = found[value] = names.new_value("onnxq_layer_input")
            output.type = ir.TensorType(layer.job.tensor.constant.tensor.dtype)
            copy.model.graph.append(node)
            copy.model.graph.outputs.append(output)
    ir.save(copy.model, path, external_data=f"{path.name}.data", max_workers=1)
    return found
