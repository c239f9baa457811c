"""Adam with a learning rate for each kind of quantity, warm-up, cosine decay, and clipping."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch

from onnxq.training.quantities import Quantities

LEARNING_RATES: Mapping[str, float] = {
    "weight": 0.02,  # steps of the integers
    "scale": 0.003,  # of the logarithm
    "bias": 0.003,  # root mean squares of the tensor
    "float": 0.0003,  # likewise
}
"""Of each kind, before the factor of the user or of the trial."""

WARM_UP = 0.05
"""Share of the steps in which the learning rate grows."""

_REMEMBERED = 0.95


class Optimizer:
    """Takes steps; what it knows can be saved."""

    def __init__(
        self, quantities: Quantities, *, factor: float, steps: int, clipping: float
    ) -> None:
        """Prepare.

        Args:
            quantities: to train.
            factor: on the learning rates.
            steps: that the schedule is for.
            clipping: see ``TrainingOptions.gradient_clipping``.
        """
        self._quantities = quantities
        self._steps = steps
        self._taken = 0
        self._clipping = clipping
        self._usual_norm = 0.0
        groups = [
            {"params": quantities.of_kind(kind), "lr": rate * factor, "rate": rate * factor}
            for kind, rate in LEARNING_RATES.items()
            if quantities.of_kind(kind)
        ]
        self._adam = torch.optim.Adam(groups, betas=(0.9, 0.99), foreach=True)

    def clear(self) -> None:
        """Forget the gradients."""
        self._adam.zero_grad(set_to_none=True)

    def step(self, elapsed: float = 0.0) -> bool:
        """Move once; not where a gradient is not finite, which is what False says.

        Args:
            elapsed: share of the time that there is; the schedule is at least as far.
        """
        share = schedule(max(self._taken, int(elapsed * self._steps)), self._steps)
        self._taken += 1
        norm = self._clip()
        if not math.isfinite(norm):
            return False
        for group in self._adam.param_groups:
            group["lr"] = group["rate"] * share
        self._adam.step()
        self._quantities.project()
        return True

    def _clip(self) -> float:
        """Cut gradients that are much longer than usual; returns the length before."""
        learned = [one for one in self._quantities.learned if one.grad is not None]
        limit = self._clipping * self._usual_norm if self._usual_norm else math.inf
        if not self._clipping:
            limit = math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(learned, limit))
        if math.isfinite(norm):
            bounded = min(norm, limit)
            before = self._usual_norm or bounded
            self._usual_norm = _REMEMBERED * before + (1 - _REMEMBERED) * bounded
        return norm

    def save(self) -> dict[str, Any]:
        """Everything needed to go on."""
        return {
            "adam": copy.deepcopy(self._adam.state_dict()),
            "taken": self._taken,
            "usual_norm": self._usual_norm,
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what ``save`` gave."""
        self._adam.load_state_dict(saved["adam"])
        self._taken = int(saved["taken"])
        self._usual_norm = float(saved["usual_norm"])


def schedule(taken: int, steps: int) -> float:
    """Share of the learning rate: linear warm-up, then a cosine to 0.

    As in Loshchilov and Hutter 2017 (arXiv:1608.03983), without restarts.

    >>> [round(schedule(at, 100), 2) for at in (0, 4, 50, 99)]
    [0.2, 1.0, 0.53, 0.0]
    """
    warm = max(1, round(WARM_UP * steps))
    if taken < warm:
        return (taken + 1) / warm
    progress = (taken - warm + 1) / max(1, steps - warm + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
