"""Whether two models decide the same, where an output holds scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxq.numerics.affine import Array
from onnxq.numerics.probabilities import are_probabilities


def looks_like_scores(array: Array) -> bool:
    """Whether the last axis holds one score a class.

    That is so for probabilities, which are not negative and sum to 1, and for any matrix: one row
    a sample, one column a class.

    >>> looks_like_scores(np.float32([[[0.25, 0.75]]])), looks_like_scores(np.float32([[[3, 4]]]))
    (True, False)
    """
    if array.ndim < 2 or array.shape[-1] < 2 or array.dtype.kind != "f" or not array.size:
        return False
    return array.ndim == 2 or are_probabilities(array)


@dataclass
class Agreement:
    """Share of places where both have their largest score at the same index, streamed.

    Attributes:
        is_scores: whether every sample so far looked like scores.
        mean_sum: of the shares of the samples, each of which counts the same.
        samples: how many there were.
    """

    is_scores: bool = True
    mean_sum: float = 0.0
    samples: int = 0

    def add(self, expected: Array, measured: Array) -> None:
        """Add one sample; both arrays have the same shape."""
        if not expected.size or not self.is_scores:
            return
        self.is_scores = looks_like_scores(expected)
        if not self.is_scores:
            return
        same = expected.argmax(axis=-1) == measured.argmax(axis=-1)
        self.mean_sum += float(np.mean(same))
        self.samples += 1

    @property
    def share(self) -> float | None:
        """Mean over the samples; None where the output is no scores.

        >>> agreement = Agreement()
        >>> agreement.add(np.float32([[1, 2], [4, 3]]), np.float32([[1, 2], [3, 4]]))
        >>> agreement.share
        0.5
        """
        return self.mean_sum / self.samples if self.is_scores and self.samples else None
