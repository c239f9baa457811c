"""Activations of all samples between two layers: in memory while there is room, then in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxq.numerics.affine import Array

MOST_BYTES = 1 << 28
"""In memory, for each of the two models."""


class ActivationStore:
    """Arrays by sample and value."""

    def __init__(self, folder: Path, *, most_bytes: int = MOST_BYTES) -> None:
        """Keep what does not fit in memory in ``folder``, which is made when it is needed."""
        self._folder = folder
        self._most_bytes = most_bytes
        self._held: dict[tuple[int, ir.Value], Array] = {}
        self._files: dict[tuple[int, ir.Value], Path] = {}
        self._bytes = 0
        self._written = 0
        self.samples = 0
        """How many there have been."""

    def put(self, sample: int, value: ir.Value, array: Array) -> None:
        """Keep an array."""
        self.samples = max(self.samples, sample + 1)
        if self._bytes + array.nbytes <= self._most_bytes or array.dtype == np.object_:
            self._held[sample, value] = array
            self._bytes += array.nbytes
            return
        self._folder.mkdir(exist_ok=True)
        path = self._folder / f"{self._written}.npy"
        self._written += 1
        np.save(path, array, allow_pickle=False)
        self._files[sample, value] = path

    def copy(self, other: ActivationStore) -> None:
        """Hold what another store holds instead of what this one does."""
        for sample, value in [*self._held, *self._files]:
            self.drop(sample, value)
        for sample, value in [*other._held, *other._files]:
            self.put(sample, value, other.get(sample, value))

    def get(self, sample: int, value: ir.Value) -> Array:
        """The array of a sample."""
        held = self._held.get((sample, value))
        if held is not None:
            return held
        loaded: Array = np.load(self._files[sample, value], allow_pickle=False)
        return loaded

    def drop(self, sample: int, value: ir.Value) -> None:
        """Forget an array."""
        held = self._held.pop((sample, value), None)
        if held is not None:
            self._bytes -= held.nbytes
            return
        path = self._files.pop((sample, value), None)
        if path is not None:
            path.unlink(missing_ok=True)
