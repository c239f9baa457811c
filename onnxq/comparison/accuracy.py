"""Both models on the same samples, one after the other; constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxq.comparison.results import TaskMetric
from onnxq.comparison.scoring import Outputs, Scorer
from onnxq.errors import DataError, ExecutionError, VerificationError
from onnxq.runtime.session import Session
from onnxq.samples import Sample
from onnxq.verification.comparison import Comparison, OutputComparison


@dataclass(frozen=True)
class Accuracy:
    """What was found.

    Attributes:
        outputs: by the name of the session: float against that one.
        metrics: task metrics of the float model and of the first session.
        samples: how many were run.
    """

    outputs: Mapping[str, tuple[OutputComparison, ...]]
    metrics: tuple[TaskMetric, ...]
    samples: int


def measure_accuracy(
    reference: Session,
    quantized: Mapping[str, Session],
    samples: Iterable[Sample],
    scorers: Sequence[Scorer] = (),
) -> Accuracy:
    """Run the float model and several forms of the quantized one over samples.

    Args:
        reference: the float model.
        quantized: the quantized model, loaded in one way or in several; the first one is scored.
        samples: each is run once by each.
        scorers: rate outputs.

    Raises:
        DataError: the float model cannot run on a sample.
        VerificationError: the quantized one cannot, or gives another shape, NaN or infinity.
    """
    comparisons = {name: Comparison(reference, one) for name, one in quantized.items()}
    first = next(iter(quantized))
    count = 0
    for sample in samples:
        try:
            expected = reference.run(sample.feeds)
        except ExecutionError as error:
            raise DataError(f"sample {sample.name}: {error.reason}") from error
        measured = {
            name: _run(comparison, sample, expected) for name, comparison in comparisons.items()
        }
        # Functions of the user may write into what they are given: they come last.
        for scorer in scorers:
            scorer.add(
                sample,
                _name_outputs(reference, expected),
                _name_outputs(quantized[first], measured[first]),
            )
        count += 1
    return Accuracy(
        {name: comparison.results() for name, comparison in comparisons.items()},
        tuple(metric for scorer in scorers for metric in scorer.results()),
        count,
    )


def _run(comparison: Comparison, sample: Sample, expected: Sequence[Any]) -> Sequence[Any]:
    try:
        return comparison.add(sample.feeds, expected)
    except VerificationError as error:
        raise VerificationError(f"sample {sample.name}: {error}") from error


def _name_outputs(reference: Session, results: Sequence[Any]) -> Outputs:
    return {
        name: np.asarray(result)
        for name, result in zip(reference.output_names, results, strict=True)
        if not isinstance(result, Sequence)
    }
