"""Task metrics: labels, and functions of the user."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from onnxq.comparison.labels import Labels
from onnxq.comparison.results import TaskMetric
from onnxq.errors import DataError
from onnxq.numerics.agreement import looks_like_scores
from onnxq.samples import Sample

Outputs = Mapping[str, npt.NDArray[Any]]
MetricFunction = Callable[[Outputs, Mapping[str, npt.NDArray[Any]], str], float | None]
"""(outputs, inputs, name of the sample) -> figure of merit of that sample, or None to leave it."""

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
        labels: by the name of the sample.
        hits: for each k, of the float and of the quantized model.
        total: labelled places so far.
    """

    labels: Labels
    hits: dict[int, list[int]] = field(default_factory=lambda: {top: [0, 0] for top in TOP})
    total: int = 0
    classes: int = 0

    def add(self, sample: Sample, expected: Outputs, measured: Outputs) -> None:
        """Rate one sample; those without a label are left out.

        Raises:
            DataError: there are not as many labels as rows of scores.
        """
        wanted = self.labels.find(sample.name)
        if wanted is None and self.labels.sequence is None:
            return
        name = self._find_output(expected)
        scores = expected[name].reshape(-1, expected[name].shape[-1])
        if wanted is None and self.labels.sequence is not None:
            wanted = self.labels.sequence[self.total :][: len(scores)]
        if wanted is None:
            return
        if len(wanted) != len(scores):
            raise DataError(
                f"{self.labels.source}: {len(wanted)} labels for sample {sample.name}, whose "
                f"output '{name}' has {len(scores)} rows of scores; give one label a row"
            )
        self.classes = scores.shape[-1]
        self.total += len(wanted)
        for model, outputs in enumerate((expected, measured)):
            rows = outputs[name].reshape(-1, self.classes)
            order = np.argsort(-rows, axis=-1, kind="stable")
            for top, hits in self.hits.items():
                hits[model] += int(
                    np.count_nonzero(np.any(order[:, :top] == wanted[:, None], axis=1))
                )

    def results(self) -> tuple[TaskMetric, ...]:
        """Top-1, and top-5 where there are more classes than that."""
        if not self.total:
            return ()
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

    def _find_output(self, outputs: Outputs) -> str:
        if self.labels.output is not None:
            if self.labels.output not in outputs:
                raise DataError(
                    f"{self.labels.source}: names output '{self.labels.output}'; the model has "
                    f"{', '.join(outputs)}"
                )
            return self.labels.output
        for name, array in outputs.items():
            if looks_like_scores(array):
                return name
        raise DataError(
            f"{self.labels.source}: no output of the model looks like scores of classes; name one "
            'in labels.json: "output": "NAME"'
        )


@dataclass
class FunctionScorer:
    """The mean of a function of the user over the samples.

    Attributes:
        name: 'module:function'.
        function: rates the outputs of one model on one sample.
        sums: of the float and of the quantized model.
        total: rated samples so far.
    """

    name: str
    function: MetricFunction
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
                name=self.name,
                float_value=self.sums[0] / self.total,
                quantized_value=self.sums[1] / self.total,
                samples=self.total,
                is_share=False,
            ),
        )

    def _rate(self, outputs: Outputs, sample: Sample) -> float | None:
        try:
            rating = self.function(outputs, sample.feeds, sample.name)
            return None if rating is None else float(rating)
        except Exception as error:  # code of the user raises what it likes
            raise DataError(
                f"--metric {self.name} failed on sample {sample.name}: "
                f"{type(error).__name__}: {error}"
            ) from error
