"""Which layers the error of a quantized model comes from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxq.comparison.layers_probes import (
    FloatTypes,
    KindProbe,
    LayerProbe,
    add_kind_probes,
    add_layer_probes,
)
from onnxq.comparison.results import LayerError
from onnxq.errors import DataError, ExecutionError, OutputError
from onnxq.graph.files import load_model
from onnxq.graph.opset import raise_opset
from onnxq.numerics.affine import Array
from onnxq.numerics.metrics import ErrorAccumulator
from onnxq.runtime.session import Session
from onnxq.samples import Sample

ROUNDING_DB = 110.0
"""What float32 leaves when it computes the same in another order; the loss of int16 is greater."""

_OLDEST_OPSET = 10
"""The first in which Slice takes its bounds as inputs, and in which there are integers at all."""

_EXTERNAL_TENSOR_BYTES = 1024


@dataclass
class _Sums:
    """Of one layer over the samples so far."""

    accumulated: ErrorAccumulator = field(default_factory=ErrorAccumulator)
    added: ErrorAccumulator = field(default_factory=ErrorAccumulator)

    def add(self, signal: float, accumulated: float, added: float) -> None:
        """Add one sample; one on which the float model has no finite numbers says nothing."""
        if not np.isfinite(signal):
            return
        for total, noise in ((self.accumulated, accumulated), (self.added, added)):
            total.samples += 1
            total.signal += signal
            total.noise += noise
            total.non_finite += not np.isfinite(noise)


def measure_layers(
    float_path: Path, quantized_path: Path, samples: Iterable[Sample], *, folder: Path
) -> tuple[LayerError, ...]:
    """Run both models in one and compare the tensors that they share.

    Memory does not depend on the number of samples: sums are all that leaves the runtime.

    Args:
        float_path: of the float model.
        quantized_path: of the quantized model.
        samples: each is run once.
        folder: for temporary files, as large as both models; they are removed.

    Returns:
        The largest error added first; empty where the models share nothing. Layers without a
        weight that lose nothing are left out. -inf where the quantized model has no finite numbers.

    Raises:
        ModelError: a model cannot be read, or not be raised to the operator set of the other.
        ExecutionError: the two do not load together.
        DataError: they cannot run on a sample.
        OutputError: the folder cannot be written to.
    """
    iterator = iter(samples)
    first = next(iterator, None)
    if first is None:
        return ()
    float_model, quantized = _load_both(float_path, quantized_path)
    usable = _find_usable(float_model, quantized, first, folder)
    model, probes = add_layer_probes(float_model, quantized, usable)
    if not probes:
        return ()
    sums = [_Sums() for _ in probes]
    names = [name for probe in probes for name in probe.outputs]
    with _open(model, folder) as session:
        for sample in chain((first,), iterator):
            results = _run(session, sample, names)
            for probe, one in zip(probes, sums, strict=True):
                one.add(
                    float(results[probe.signal]),
                    float(results[probe.accumulated]),
                    float(results[probe.added]) if probe.added else 0.0,
                )
    return _rank(probes, sums)


def _load_both(float_path: Path, quantized_path: Path) -> tuple[ir.Model, ir.Model]:
    """Both models, the older one raised to the operator set of the newer."""
    paths = (float_path, quantized_path)
    models = [load_model(path).model for path in paths]
    version = max(_OLDEST_OPSET, *(model.opset_imports[""] for model in models))
    raised = [
        model if model.opset_imports[""] == version else raise_opset(model, version, path=path)
        for model, path in zip(models, paths, strict=True)
    ]
    return raised[0], raised[1]


def _find_usable(
    float_model: ir.Model, quantized: ir.Model, sample: Sample, folder: Path
) -> dict[str, FloatTypes]:
    """Tensors of floats that have the same shape in both models.

    What a model file says of shapes and types is optional, and wrong at times.
    """
    model, probes = add_kind_probes(float_model, quantized)
    if not probes:
        return {}
    names = [name for probe in probes for name in (*probe.shapes, *probe.elements)]
    with _open(model, folder) as session:
        results = _run(session, sample, names)
    return {probe.name: types for probe in probes if (types := _types(probe, results)) is not None}


def _types(probe: KindProbe, results: Mapping[str, Array]) -> FloatTypes | None:
    shape, other_shape = (results[name] for name in probe.shapes)
    types = [results[name].dtype for name in probe.elements]
    if any(one.kind != "f" for one in types) or shape.size == 0:
        return None
    return FloatTypes(types[0], types[1]) if np.array_equal(shape, other_shape) else None


@contextmanager
def _open(model: ir.Model, folder: Path) -> Iterator[Session]:
    """A session of a model; its files are there as long, because the runtime may map them."""
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as own:
        path = Path(own) / "layers.onnx"
        try:
            ir.save(
                model,
                path,
                external_data="weights",
                size_threshold_bytes=_EXTERNAL_TENSOR_BYTES,
                max_workers=1,
            )
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(f"{folder}: cannot be written to: {reason}") from error
        yield Session(path)


def _run(session: Session, sample: Sample, names: Sequence[str]) -> dict[str, Array]:
    try:
        return dict(zip(names, session.run(sample.feeds, names), strict=True))
    except ExecutionError as error:
        raise DataError(f"sample {sample.name}: the models cannot run: {error.reason}") from error


def _rank(probes: Sequence[LayerProbe], sums: Sequence[_Sums]) -> tuple[LayerError, ...]:
    """Worst first; equal ones as they stand in the model."""
    errors = [
        LayerError(
            node=probe.node,
            operator=probe.operator,
            tensor=probe.tensor,
            added_sqnr_db=_sqnr_db(one.added),
            accumulated_sqnr_db=_sqnr_db(one.accumulated),
        )
        for probe, one in zip(probes, sums, strict=True)
        if one.added.samples and (probe.has_weight or _sqnr_db(one.added) < ROUNDING_DB)
    ]
    return tuple(sorted(errors, key=lambda error: error.added_sqnr_db))


def _sqnr_db(error: ErrorAccumulator) -> float:
    return -np.inf if error.non_finite else error.sqnr_db
