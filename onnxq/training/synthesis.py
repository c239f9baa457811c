"""Samples in which the float model sees what the given ones do not show.

A folder of samples shows a few of the things that a model has learnt to tell apart, and what is
tuned on it fits those. The model itself can be asked for others: a sample is changed, step by step,
in the direction in which one output grows (Erhan et al. 2009, Visualizing Higher-Layer Features of
a Deep Network). Quantization without data rests on such samples (Cai et al. 2020,
arXiv:2001.00281); here they begin at real ones, whose statistics they keep near to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from onnxq.training.examples import Arrays
from onnxq.training.interpreter import NodeError, run
from onnxq.training.program import Program
from onnxq.training.tensors import Array, to_numpy
from onnxq.training.variants import draw_variants
from onnxq.training.variations import is_graded

STEPS = 10
"""Of one sample. After these most classifiers are sure of what was asked for."""

WEAKEST_STEP, STRONGEST_STEP = 0.04, 0.12
"""Length of a step, in standard deviations of the input."""

UNCHANGED = 0.3
"""Share of the samples that stay the variants that they begin as: what is made up has other
means than what is real, and biases are found on both."""

TOGETHER = 8
"""Samples that are changed at once, where they can be stacked."""

OCTAVES = (1, 2, 4, 8)
"""Sizes of what is drawn into pictures, in pixels. Natural pictures have more power in what is
large, so each octave is scaled by the root of its size."""

LARGEST_SHIFT = 0.05
"""Of the height and width of a picture, by which it is moved in each step: what depends on single
pixels then comes to nothing."""


@dataclass(frozen=True, kw_only=True)
class Synthesizer:
    """Makes new samples of those that there are.

    Attributes:
        program: the float model.
        outputs: names of its outputs of floats.
        stacks: whether samples can be run together along the first axis.
        seed: of everything that is drawn.
    """

    program: Program
    outputs: Sequence[str]
    stacks: bool
    seed: int = 0

    def make(self, pool: Sequence[Arrays], count: int) -> Iterator[dict[str, Array]]:
        """New inputs.

        Args:
            pool: inputs of the samples to begin at.
            count: how many to make.

        Returns:
            Nothing where no input can be a little more or less.
        """
        graded = [name for name, array in pool[0].items() if is_graded(array)]
        limits = {
            name: (
                min(float(one[name].min()) for one in pool),
                max(float(one[name].max()) for one in pool),
            )
            for name in graded
        }
        generator = np.random.default_rng(self.seed)
        made = 0
        while graded and made < count:
            size = min(TOGETHER, count - made) if self.stacks else 1
            batch = draw_variants(pool, size, generator)
            made += size
            if generator.random() < UNCHANGED:
                yield from batch
                continue
            climbed = self._climb(batch, limits, generator)
            for at, begun in enumerate(batch):
                yield {**begun, **{name: one[at] for name, one in climbed.items()}}

    def _climb(
        self,
        batch: Sequence[Arrays],
        limits: Mapping[str, tuple[float, float]],
        generator: np.random.Generator,
    ) -> dict[str, list[Array]]:
        """The graded inputs of a batch, changed so that one output of each sample grows."""
        feeds: dict[str, Array | torch.Tensor] = {
            name: np.concatenate([one[name] for one in batch]) if len(batch) > 1 else array
            for name, array in batch[0].items()
        }
        real = {name: torch.from_numpy(np.array(feeds[name])) for name in limits}
        deviations = {name: float(one.std()) for name, one in real.items()}
        length = float(generator.uniform(WEAKEST_STEP, STRONGEST_STEP))
        chosen = str(generator.choice(np.array(self.outputs)))
        places = generator.random(len(batch))
        for _ in range(STEPS):
            shift = tuple(generator.uniform(-LARGEST_SHIFT, LARGEST_SHIFT, 2))
            moved = {name: _move(one, shift).requires_grad_() for name, one in real.items()}
            gradients = self._find_gradients(
                {**feeds, **moved}, tuple(moved.values()), chosen, places
            )
            if gradients is None:
                break
            for (name, one), gradient in zip(moved.items(), gradients, strict=True):
                stepped = one.detach()
                if gradient is not None:
                    direction = _smooth(gradient, len(batch))
                    step = length * deviations[name] * direction
                    stepped = (stepped + step).clamp(*limits[name])
                real[name] = _move(stepped, tuple(-part for part in shift))
        return {
            name: np.split(to_numpy(one).astype(batch[0][name].dtype), len(batch))
            for name, one in real.items()
        }

    def _find_gradients(
        self,
        feeds: Mapping[str, Array | torch.Tensor],
        inputs: Sequence[torch.Tensor],
        chosen: str,
        places: Array,
    ) -> Sequence[torch.Tensor | None] | None:
        """In which direction an output grows; None where none reaches the inputs."""
        try:
            wanted = _pick(run(self.program, feeds)[chosen], places)
        except NodeError:
            # Not every model takes all that is near a sample.
            return None
        if not wanted.requires_grad:
            # Something like an ArgMax is between.
            return None
        return torch.autograd.grad(wanted, tuple(inputs), allow_unused=True)


def _pick(output: torch.Tensor, places: Array) -> torch.Tensor:
    """The mean of one channel of each sample: of maps the second axis, else the last one."""
    if not output.dim():
        return output
    axis = 1 if output.dim() == 4 else output.dim() - 1
    size = output.shape[axis]
    rows = [output] if len(places) == 1 else list(output.split(output.shape[0] // len(places)))
    picked = [
        row.select(axis, min(size - 1, int(place * size))).mean()
        for row, place in zip(rows, places, strict=True)
    ]
    return torch.stack(picked).sum()


def _move(one: torch.Tensor, shift: tuple[float, ...]) -> torch.Tensor:
    """Pictures moved around, what leaves on one side coming back on the other."""
    if one.dim() != 4:
        return one.detach().clone()
    places = [round(part * size) for part, size in zip(shift, one.shape[2:], strict=True)]
    return torch.roll(one.detach(), places, (2, 3))


def _smooth(gradient: torch.Tensor, samples: int) -> torch.Tensor:
    """A direction of length 1 an element for each sample; of pictures the sum of its octaves."""
    if not bool(torch.isfinite(gradient).all()):
        return torch.zeros_like(gradient)
    if gradient.dim() != 4 or min(gradient.shape[2:]) < 2 * OCTAVES[-1]:
        return _normalize(gradient, samples)
    total = torch.zeros_like(gradient)
    for size in OCTAVES:
        coarse = functional.avg_pool2d(gradient, size)
        octave = functional.interpolate(
            coarse, size=gradient.shape[2:], mode="bilinear", align_corners=False
        )
        total += _normalize(octave, samples) * size**0.5
    return _normalize(total, samples)


def _normalize(one: torch.Tensor, samples: int) -> torch.Tensor:
    """In units of the root mean square of each sample."""
    rows = one.reshape(samples, -1)
    size = rows.square().mean(1, keepdim=True).sqrt()
    return (rows / size.clamp_min(1e-30)).reshape(one.shape)
