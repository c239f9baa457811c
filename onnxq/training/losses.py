"""What training makes smaller, and what says whether it got better."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch.nn import functional

from onnxq.errors import DataError, UsageError
from onnxq.training.examples import Example
from onnxq.training.tensors import Array, to_torch

Outputs = Mapping[str, torch.Tensor]
UserLoss = Callable[[Outputs, Mapping[str, torch.Tensor], str], torch.Tensor]

_LEAST_SIGNAL = 1e-12


@dataclass
class Distillation:
    """Squared difference from the float model, in units of its mean square: 1 is all noise.

    Attributes:
        weights: of each tensor that is compared, by name.
        signals: mean square of each, fixed when it is first seen so that the unit stays.
    """

    weights: Mapping[str, float]
    signals: dict[str, float] = field(default_factory=dict)

    def measure(self, examples: Sequence[Example]) -> None:
        """Find the unit of each tensor."""
        for name in self.weights:
            sums = [_square_sum(one.targets[name]) for one in examples if name in one.targets]
            total, count = sum(one[0] for one in sums), sum(one[1] for one in sums)
            self.signals[name] = max(_LEAST_SIGNAL, total / max(1, count))

    def __call__(self, outputs: Outputs, example: Example) -> torch.Tensor:
        """The loss of one example."""
        total = torch.zeros(())
        for name, weight in self.weights.items():
            measured = outputs[name]
            target = to_torch(example.targets[name]).to(measured.device)
            finite = torch.isfinite(target)
            if bool(finite.all()):
                error = functional.mse_loss(measured, target)
            else:
                error = (measured - target)[finite].square().mean()
            total = total.to(error.device) + weight * error / self.signals[name]
        return total


@dataclass(frozen=True)
class CrossEntropy:
    """The task loss of a classifier, beside a share of distillation.

    Attributes:
        output: that holds the scores.
        distillation: keeps what labels say nothing of.
        share: of the labels, 0 to 1.
    """

    output: str
    distillation: Distillation
    share: float = 0.5

    def __call__(self, outputs: Outputs, example: Example) -> torch.Tensor:
        """The loss of one example; distillation alone where it has no labels."""
        kept = self.distillation(outputs, example)
        if example.labels is None:
            return kept
        scores = outputs[self.output]
        rows = scores.reshape(-1, scores.shape[-1])
        labels = torch.from_numpy(example.labels).to(rows.device)
        return self.share * functional.cross_entropy(rows, labels) + (1 - self.share) * kept


@dataclass(frozen=True)
class FunctionLoss:
    """A function of the user: (outputs, inputs, name of the sample) to a scalar tensor."""

    name: str
    function: Callable[..., object]

    def __call__(self, outputs: Outputs, example: Example) -> torch.Tensor:
        """The loss of one example.

        Raises:
            DataError: the function gives no scalar tensor that depends on the outputs.
        """
        inputs = {name: to_torch(array) for name, array in example.feeds.items()}
        found = self.function(dict(outputs), inputs, example.name)
        if not isinstance(found, torch.Tensor) or found.numel() != 1:
            raise DataError(f"--loss {self.name}: gives {type(found).__name__}; give one number")
        return found.reshape(())


Loss = Distillation | CrossEntropy | FunctionLoss


def check_outputs(names: Sequence[str], known: Sequence[str], option: str) -> None:
    """Refuse names of tensors that there are none of.

    Raises:
        UsageError: names the first.
    """
    for name in names:
        if name not in known:
            raise UsageError(f"{option} {name}: the model has no such tensor on both sides")


@dataclass
class Sqnr:
    """Signal to noise of each output over a stream of examples.

    Attributes:
        names: of the outputs.
        sums: power of signal and of noise, by name.
    """

    names: Sequence[str]
    sums: dict[str, list[float]] = field(default_factory=dict)

    def add(self, outputs: Outputs, example: Example) -> None:
        """Add one example."""
        for name in self.names:
            target = to_torch(example.targets[name]).to(torch.float64)
            noise = outputs[name].detach().cpu().to(torch.float64) - target
            finite = torch.isfinite(target)
            sums = self.sums.setdefault(name, [0.0, 0.0])
            sums[0] += float(target[finite].square().sum())
            sums[1] += float(noise[finite].square().sum())

    @property
    def mean_db(self) -> float:
        """The mean over the outputs, in dB; lower than any number where one is not finite."""
        found = [_ratio_db(*sums) for sums in self.sums.values()]
        return sum(found) / len(found) if found else math.inf


def _ratio_db(signal: float, noise: float) -> float:
    if not math.isfinite(noise):
        return -math.inf
    if noise == 0.0:
        return 200.0
    return max(-200.0, 10 * math.log10(max(signal, 1e-300) / noise))


def _square_sum(array: Array) -> tuple[float, int]:
    values = to_torch(array).to(torch.float64)
    finite = values[torch.isfinite(values)]
    return float(finite.square().sum()), finite.numel()
