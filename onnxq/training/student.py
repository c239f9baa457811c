"""The quantized graph while it is trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from onnxq.training.examples import Example, can_stack, stack
from onnxq.training.interpreter import NodeError, run
from onnxq.training.losses import Loss, Outputs, Sqnr
from onnxq.training.options import Effort
from onnxq.training.program import Program
from onnxq.training.quantities import Quantities

_SAME = 0.05
"""Relative difference between samples run one by one and stacked. Ranges that are found at run
time differ by less; a first axis that is no batch gives another shape or other numbers."""


@dataclass
class Student:
    """A program with what is trained in it.

    Attributes:
        program: of the quantized graph.
        quantities: trained.
        watched: values inside that the loss compares.
        stacks: whether samples can be run together along the first axis.
    """

    program: Program
    quantities: Quantities
    watched: Sequence[ir.Value] = ()
    stacks: bool = False

    def outputs(self, example: Example) -> Outputs:
        """What the graph gives for one example."""
        known = self.quantities.compute()
        return run(self.program, example.feeds, known, watched=self.watched)

    def try_stacking(self, first: Example, second: Example) -> None:
        """Find out whether samples can be stacked, by doing so with two."""
        self.stacks = False
        if not can_stack(first, second):
            return
        with torch.no_grad():
            alone = [self.outputs(one) for one in (first, second)]
            try:
                together = self.outputs(stack((first, second))[0][0])
            except NodeError:
                return
        for name, found in together.items():
            expected = [one[name] for one in alone]
            if not expected[0].dim():
                return
            joined = torch.cat(expected)
            if joined.shape != found.shape or _differ(joined, found):
                return
        self.stacks = True

    def measure_effort(self, example: Example) -> Effort:
        """What one example takes: operations of matrix products and convolutions, and calls."""
        with torch.no_grad(), FlopCounterMode(display=False) as counter, _CallCounter() as calls:
            self.outputs(example)
        return Effort(float(counter.get_total_flops()), calls.count)

    def parts(self, batch: Sequence[Example]) -> list[tuple[Example, int]]:
        """What of a batch is run together, and how many samples it holds."""
        return stack(batch) if self.stacks else [(one, 1) for one in batch]

    def backward(self, batch: Sequence[Example], loss: Loss) -> float:
        """Add the gradients of a batch; returns its loss."""
        total = 0.0
        for example, count in self.parts(batch):
            found = loss(self.outputs(example), example) * (count / len(batch))
            torch.autograd.backward(found)
            total += float(found.detach())
        return total

    def measure(
        self, batches: Iterable[Sequence[Example]], names: Sequence[str], loss: Loss
    ) -> tuple[float, float]:
        """SQNR in dB at ``names``, and the mean loss, over examples."""
        sqnr, total, count = Sqnr(names), 0.0, 0
        known = self.quantities.compute()
        with torch.no_grad():
            for batch in batches:
                for example, size in self.parts(batch):
                    outputs = run(self.program, example.feeds, known, watched=self.watched)
                    sqnr.add(outputs, example)
                    total += float(loss(outputs, example)) * size
                    count += size
        return sqnr.mean_db, total / max(1, count)


class _CallCounter(TorchFunctionMode):
    """Counts functions of torch that are called inside."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> torch.Tensor:
        self.count += 1
        result: torch.Tensor = func(*args, **(kwargs or {}))
        return result


def _differ(expected: torch.Tensor, measured: torch.Tensor) -> bool:
    if not expected.is_floating_point():
        return bool((expected != measured).any())
    norm = float(torch.linalg.vector_norm(expected))
    return float(torch.linalg.vector_norm(expected - measured)) > _SAME * max(norm, 1e-30)
