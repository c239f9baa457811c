"""The mean of the last steps, which is better than any of them (Polyak and Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from onnxq.training.quantities import Quantities

MEMORY = 0.05
"""Share of all steps that the mean looks back."""

_FIRST_STEPS = 9.0
"""The mean of the first n steps looks back about a tenth of them: the start is soon forgotten."""


class Average:
    """A mean of what is learned, in which older steps count less and less."""

    def __init__(self, quantities: Quantities, *, steps: int) -> None:
        """Begin with what is learned now.

        Args:
            quantities: that are trained.
            steps: of the whole training.
        """
        self._quantities = quantities
        self._decay = 1.0 - 1.0 / max(1.0, MEMORY * steps)
        self._count = 0
        self._mean = quantities.save()

    def add(self) -> None:
        """Take what is learned now into the mean."""
        self._count += 1
        decay = min(self._decay, self._count / (self._count + _FIRST_STEPS))
        learned = [one.detach() for one in self._quantities.learned]
        torch._foreach_lerp_(self._mean, learned, 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, what is learned is the mean."""
        before = self._quantities.save()
        self._quantities.restore(self._mean)
        try:
            yield
        finally:
            self._quantities.restore(before)

    def save(self) -> dict[str, Any]:
        """Everything needed to go on."""
        return {"count": self._count, "mean": [one.clone() for one in self._mean]}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what ``save`` gave."""
        self._count = int(saved["count"])
        mean: Sequence[torch.Tensor] = saved["mean"]
        for one, before in zip(self._mean, mean, strict=True):
            one.copy_(before)
