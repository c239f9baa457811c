"""Task metrics: labels, and functions of the user."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from onnxq.comparison.labels import LabelArray, Labels
from onnxq.comparison.results import TaskMetric
from onnxq.errors import DataError
from onnxq.numerics.agreement import looks_like_scores
from onnxq.samples import Sample
from onnxq.samples.user_code import UserFunction, importable, user_errors_named

Outputs = Mapping[str, npt.NDArray[Any]]

TOP = (1, 5)


class Scorer(Protocol):
    """Something that rates the outputs of both models."""

    def add(self, sample: Sample, expected: Outputs, measured: Outputs) -> None:
        """Rate one sample."""

    def results(self) -> tuple[TaskMetric, ...]:
        """What was found so far."""


@dataclass
class LabelScorer:
    """Top-1 and top-5 accuracy on labels.

    Attributes:
        labels: by the name of the sample, or in their order.
        hits: for each k, of the float and of the quantized model.
        total: labelled rows of scores so far.
        classes: how many the model has; 0 before the first sample.
        output: the one with the scores; None before the first sample.
    """

    labels: Labels
    hits: dict[int, list[int]] = field(default_factory=lambda: {top: [0, 0] for top in TOP})
    total: int = 0
    classes: int = 0
    output: str | None = None

    def add(self, sample: Sample, expected: Outputs, measured: Outputs) -> None:
        """Rate one sample; those without a label are left out.

        Raises:
            DataError: labels and scores do not fit.
        """
        wanted = self.labels.find(sample.name)
        if wanted is None and self.labels.sequence is None:
            return
        if self.output is None:
            self.output = self._find_output(expected)
            if self.output is None:
                return
        scores = _rows_of_scores(self.labels, self.output, expected)
        if wanted is None and self.labels.sequence is not None:
            wanted = self.labels.sequence[self.total :][: len(scores)]
        if wanted is None:
            return
        self._check(sample, wanted, scores)
        self.classes = scores.shape[-1]
        self.total += len(wanted)
        for model, rows in enumerate((scores, _rows_of_scores(self.labels, self.output, measured))):
            # A label is among the top k if fewer than k scores beat it; of equals the first wins.
            own = np.take_along_axis(rows, wanted[:, None], axis=1)
            index = np.arange(self.classes)
            better = (rows > own) | ((rows == own) & (index < wanted[:, None]))
            rank = np.count_nonzero(better, axis=1)
            for top, hits in self.hits.items():
                hits[model] += int(np.count_nonzero(rank < top))

    def results(self) -> tuple[TaskMetric, ...]:
        """Top-1, and top-5 where there are more classes than that.

        Raises:
            DataError: there are labels left over, or none fits a sample.
        """
        sequence = self.labels.sequence
        if sequence is not None and self.total != len(sequence):
            raise DataError(
                f"{self.labels.source}: {len(sequence)} labels for {self.total} rows of scores; "
                "labels without names need every sample: use .json or .csv with --samples"
            )
        if not self.total:
            if self.labels.is_guessed:
                return ()
            raise DataError(f"{self.labels.source}: no label is for a sample that was run")
        return tuple(
            TaskMetric(
                name=f"top-{top}",
                float_value=hits[0] / self.total,
                quantized_value=hits[1] / self.total,
                samples=self.total,
            )
            for top, hits in self.hits.items()
            if top == 1 or self.classes > top
        )

    def _check(self, sample: Sample, wanted: LabelArray, scores: npt.NDArray[Any]) -> None:
        source = self.labels.source
        if len(wanted) != len(scores):
            raise DataError(
                f"{source}: {len(wanted)} labels for sample {sample.name}, whose output "
                f"'{self.output}' has {len(scores)} rows of scores; give one label a row"
            )
        outside = wanted[(wanted < 0) | (wanted >= scores.shape[-1])]
        if outside.size:
            raise DataError(
                f"{source}: class {int(outside[0])} of sample {sample.name}; output "
                f"'{self.output}' has {scores.shape[-1]} classes, counted from 0"
            )

    def _find_output(self, outputs: Outputs) -> str | None:
        known = ", ".join(outputs)
        if self.labels.output is not None:
            if self.labels.output not in outputs:
                raise DataError(
                    f"{self.labels.source}: names output '{self.labels.output}'; the model has "
                    f"{known}"
                )
            return self.labels.output
        for name, array in outputs.items():
            if looks_like_scores(array):
                return name
        if self.labels.is_guessed:
            return None
        raise DataError(
            f"{self.labels.source}: no output of the model looks like scores of classes; name one "
            f'of {known} in labels.json: "output": "NAME"'
        )


def _rows_of_scores(labels: Labels, name: str, outputs: Outputs) -> npt.NDArray[Any]:
    array = outputs[name]
    if array.ndim == 0 or array.dtype.kind not in "fiu":
        raise DataError(
            f"{labels.source}: output '{name}' is {array.dtype.name} of rank {array.ndim}, which "
            "holds no scores of classes; name another one"
        )
    return array.reshape(-1, array.shape[-1])


@dataclass
class FunctionScorer:
    """The mean of a function of the user over the samples.

    Attributes:
        user: rates the outputs of one model on one sample: (outputs, inputs, name of the sample)
            to a figure of merit, or None to leave the sample out.
        sums: of the float and of the quantized model.
        total: rated samples so far.
    """

    user: UserFunction
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0])
    total: int = 0

    def add(self, sample: Sample, expected: Outputs, measured: Outputs) -> None:
        """Rate one sample.

        Raises:
            DataError: the function fails, or gives no number.
        """
        rated = [self._rate(outputs, sample) for outputs in (expected, measured)]
        if rated[0] is None or rated[1] is None:
            return
        self.sums = [self.sums[0] + rated[0], self.sums[1] + rated[1]]
        self.total += 1

    def results(self) -> tuple[TaskMetric, ...]:
        """The means."""
        if not self.total:
            return ()
        return (
            TaskMetric(
                name=self.user.name,
                float_value=self.sums[0] / self.total,
                quantized_value=self.sums[1] / self.total,
                samples=self.total,
                is_share=False,
            ),
        )

    def _rate(self, outputs: Outputs, sample: Sample) -> float | None:
        what = f"--metric {self.user.name} on sample {sample.name}"
        with importable(self.user.folder), user_errors_named(what):
            rating = self.user.function(dict(outputs), dict(sample.feeds), sample.name)
            number = None if rating is None else float(rating)
        if number is not None and not math.isfinite(number):
            raise DataError(
                f"{what}: gives {number}; give a finite number, or None to leave it out"
            )
        return number
