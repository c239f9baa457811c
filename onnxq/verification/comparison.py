"""Float against quantized outputs, streamed: one sample in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from onnxq.errors import ExecutionError, VerificationError
from onnxq.numerics.agreement import Agreement
from onnxq.numerics.metrics import ErrorAccumulator
from onnxq.runtime.session import Feeds, Session


@dataclass(frozen=True)
class OutputComparison:
    """One output over all samples.

    Attributes:
        name: of the output.
        sqnr_db: signal to quantization noise; infinite when identical, None if not of floats.
        cosine: mean over samples; None if not of floats.
        max_abs_error: largest difference of one element; None if not of floats.
        equal: share of equal elements; None for floats.
        compared: how many elements; 0 where all were NaN or infinite in the float model.
        agreement: share of places where both have their largest score at the same index; None if
            the output does not look like scores.
    """

    name: str
    sqnr_db: float | None
    cosine: float | None
    max_abs_error: float | None
    equal: float | None
    compared: int
    agreement: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data; an infinite SQNR is ``null`` with ``identical`` true."""
        identical = self.equal == 1.0 or self.sqnr_db == math.inf
        finite = self.sqnr_db if self.sqnr_db is not None and math.isfinite(self.sqnr_db) else None
        return {**vars(self), "sqnr_db": finite, "identical": identical}


class Named(Protocol):
    """A float model whose outputs are known already."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """What it gives, in order."""


class Comparison:
    """Runs two models on the same feeds and accumulates the differences."""

    def __init__(self, reference: Session | Named, quantized: Session) -> None:
        self._reference = reference
        self._quantized = quantized
        self._floats: dict[str, ErrorAccumulator] = {}
        self._agreements: dict[str, Agreement] = {}
        self._equal: dict[str, list[int]] = {}
        self.samples = 0

    def add(self, feeds: Feeds, expected: Sequence[Any] | None = None) -> Sequence[Any]:
        """Run both models on one sample; returns what the quantized one gives.

        Args:
            feeds: of the sample.
            expected: what the float model gives, where that is known already.

        Raises:
            ExecutionError: the float model cannot run on it.
            VerificationError: the quantized model cannot, or gives another shape, NaN or Inf.
        """
        if expected is None:
            if not isinstance(self._reference, Session):
                raise ValueError("what the float model gives has to be given")
            expected = self._reference.run(feeds)
        try:
            measured = self._quantized.run(feeds)
        except ExecutionError as error:
            raise VerificationError(
                f"the float model runs, the quantized one does not: {error.reason}"
            ) from error
        own = dict(zip(self._quantized.output_names, measured, strict=True))
        for name, a in zip(self._reference.output_names, expected, strict=True):
            if name not in own:
                raise VerificationError(f"the quantized model has no output '{name}'")
            b = own[name]
            if isinstance(a, Sequence):
                if len(a) != len(b):
                    raise VerificationError(
                        f"output '{name}' is a sequence of {len(b)} tensors in the quantized "
                        f"model, of {len(a)} in the float one"
                    )
                for index, (one, other) in enumerate(zip(a, b, strict=True)):
                    self._add_output(f"{name}[{index}]", np.asarray(one), np.asarray(other))
            else:
                self._add_output(name, np.asarray(a), np.asarray(b))
        self.samples += 1
        return measured

    def results(self) -> tuple[OutputComparison, ...]:
        """What was found so far: outputs of floats first, then the others."""
        floats = [
            OutputComparison(
                name,
                one.sqnr_db if one.compared else None,
                one.cosine if one.compared else None,
                one.max_abs_error if one.compared else None,
                None,
                one.compared,
                self._agreements[name].share,
            )
            for name, one in self._floats.items()
        ]
        others = [
            OutputComparison(name, None, None, None, equal / total if total else 1.0, total)
            for name, (equal, total) in self._equal.items()
        ]
        return (*floats, *others)

    def _add_output(
        self, name: str, expected: np.ndarray[Any, Any], measured: np.ndarray[Any, Any]
    ) -> None:
        if expected.shape != measured.shape:
            raise VerificationError(
                f"output '{name}' has shape {list(measured.shape)} in the quantized model, "
                f"{list(expected.shape)} in the float one"
            )
        if expected.dtype.kind not in "fV":
            counts = self._equal.setdefault(name, [0, 0])
            counts[0] += int(np.count_nonzero(expected == measured))
            counts[1] += expected.size
            return
        accumulator = self._floats.setdefault(name, ErrorAccumulator())
        accumulator.add(expected, measured)
        self._agreements.setdefault(name, Agreement()).add(expected, measured)
        if accumulator.non_finite:
            raise VerificationError(
                f"output '{name}' of the quantized model has NaN or infinity where the float "
                "model has numbers"
            )
