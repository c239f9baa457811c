"""The float model that trials are compared with; what it gives is computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnxq.runtime.session import InputSignature, Session
from onnxq.samples import Part, Sample

MOST_BYTES = 1 << 26
"""Of outputs that are remembered: 64 MB. What is beyond is computed again for each trial."""

Outputs = Sequence[Any]
_Signature = tuple[tuple[InputSignature, ...], tuple[str, ...]]


@dataclass
class _Remembered:
    """The outputs for the first samples of a part."""

    part: Part
    outputs: list[Outputs] = field(default_factory=list)


class Reference:
    """A float model; it is in memory only while its samples are read."""

    def __init__(self, path: Path, *, most_bytes: int = MOST_BYTES) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self._bytes = 0
        self._known: list[_Remembered] = []
        self._session: Session | None = None
        self._signature: _Signature | None = None

    @property
    def output_names(self) -> tuple[str, ...]:
        """What it gives, in order."""
        return self._read_signature()[1]

    def read(self, part: Part) -> Iterator[tuple[Sample, Outputs]]:
        """The samples of a part, each with what the model gives for it.

        Raises:
            ExecutionError: it cannot be loaded, or not be run.
        """
        known = self._find(part)
        try:
            for index, sample in enumerate(part.read_samples(self._read_signature()[0])):
                if index < len(known.outputs):
                    yield sample, known.outputs[index]
                    continue
                outputs = self._open().run(sample.feeds)
                if index == len(known.outputs):
                    self._remember(known, outputs)
                yield sample, outputs
        finally:
            self._session = None

    def _open(self) -> Session:
        if self._session is None:
            self._session = Session(self._path, lean=True)
        return self._session

    def _read_signature(self) -> _Signature:
        if self._signature is None:
            session = self._open()
            self._signature = session.inputs, session.output_names
        return self._signature

    def _find(self, part: Part) -> _Remembered:
        for one in self._known:
            if one.part is part:
                return one
        self._known.append(_Remembered(part))
        return self._known[-1]

    def _remember(self, known: _Remembered, outputs: Outputs) -> None:
        # A sequence may hold any number of arrays.
        if not all(isinstance(one, np.ndarray) for one in outputs):
            return
        size = sum(int(one.nbytes) for one in outputs)
        if self._bytes + size <= self._most_bytes:
            known.outputs.append(outputs)
            self._bytes += size
