"""New samples made of those that there are; the float model says what is right for them.

Few samples are soon learnt by heart: training then fits these and not the model. But who learns
from a teacher and not from labels can ask it about any input. A mixture of two samples (mixup,
Zhang et al. 2018, arXiv:1710.09412), each a little varied, is one that nobody asked about before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from onnxq.errors import DataError
from onnxq.training.examples import KEPT_BYTES, Arrays, Example, Examples, make_batches
from onnxq.training.tensors import Array
from onnxq.training.variations import is_graded, vary

SHARE = 0.9
"""Of the samples of a step that are mixtures; the others are as they came."""

SHARE_BESIDE_LABELS = 0.5
"""Likewise, where samples have labels: mixtures have none."""

ENLARGED = 256
"""Samples and mixtures that ``enlarge`` makes, where they fit in memory."""

_GROUP = 32
"""Samples among which ``enlarge`` mixes."""

Ask = Callable[[Sequence[Arrays]], Sequence[Arrays]]


@dataclass
class Mixtures:
    """Makes mixtures of the samples of a batch.

    Attributes:
        ask: what the float model gives for inputs.
        share: of the samples that become mixtures.
        failed: why there are none any more; '' while there are.
    """

    ask: Ask
    share: float = SHARE
    failed: str = ""

    def renew(self, batch: Sequence[Example], generator: np.random.Generator) -> list[Example]:
        """A batch of the same length, in which some samples are mixed with others of it.

        Args:
            batch: samples; each is mixed with one of the same shapes.
            generator: chooses which are mixed, with which, and how much of each.
        """
        mixed: dict[int, Arrays] = {}
        for group in _group_by_shapes(batch):
            for at in group:
                # Both are drawn always: then the order does not depend on what was found.
                is_mixed, weight = generator.random() < self.share, generator.random()
                partner = group[int(generator.integers(len(group)))]
                if is_mixed:
                    first = vary(batch[at].feeds, generator)
                    second = vary(batch[partner].feeds, generator)
                    mixed[at] = mix(first, second, weight=float(weight))
        return self._teach(batch, mixed) if mixed and not self.failed else list(batch)

    def _teach(self, batch: Sequence[Example], mixed: Mapping[int, Arrays]) -> list[Example]:
        try:
            answers = self.ask(list(mixed.values()))
        except DataError as error:
            # Not every model takes all that is between two samples.
            self.failed = str(error)
            return list(batch)
        renewed = list(batch)
        for (at, feeds), targets in zip(mixed.items(), answers, strict=True):
            renewed[at] = replace(batch[at], feeds=feeds, targets=targets, labels=None)
        return renewed


def enlarge(
    examples: Examples, mixtures: Mixtures, *, seed: int, kept_bytes: int = KEPT_BYTES
) -> Examples:
    """Samples and, behind them, mixtures that stay the same; for those who read more than once.

    Args:
        examples: samples.
        mixtures: makes new ones of them.
        seed: of the mixtures.
        kept_bytes: that all of them may take.
    """
    wanted = min(ENLARGED, _count_affordable(examples, kept_bytes)) - examples.count
    if wanted <= 0:
        return examples

    def read() -> Iterator[Example]:
        yield from examples.in_order()
        yield from islice(_mix_forever(examples, mixtures, seed), wanted)

    return Examples(read, kept_bytes=kept_bytes)


def _count_affordable(examples: Examples, kept_bytes: int) -> int:
    """How many of their kind fit in memory."""
    first = next(iter(examples.in_order()), None)
    return 0 if first is None else int(kept_bytes / max(1, first.size_bytes))


def _mix_forever(examples: Examples, mixtures: Mixtures, seed: int) -> Iterator[Example]:
    generator = np.random.default_rng(seed)
    while True:
        for batch in make_batches(examples.shuffled(generator), _GROUP):
            yield from mixtures.renew(batch, generator)


def mix(first: Arrays, second: Arrays, *, weight: float) -> dict[str, Array]:
    """Values between those of two samples; everything else of the one that has more weight.

    Args:
        first: inputs by name.
        second: inputs of the same shapes.
        weight: of the first, 0 to 1.

    >>> a, b = np.arange(20, dtype=np.float32), np.ones(20, np.float32)
    >>> mix({"x": a, "n": np.int64(1)}, {"x": b, "n": np.int64(2)}, weight=0.75)["x"][:3].tolist()
    [0.25, 1.0, 1.75]
    """
    stronger = first if weight >= 0.5 else second
    mixed = {}
    for name, array in first.items():
        if is_graded(array):
            one, other = array.dtype.type(weight), array.dtype.type(1.0 - weight)
            mixed[name] = np.asarray(one * array + other * second[name], array.dtype)
        else:
            mixed[name] = stronger[name]
    return mixed


def _group_by_shapes(batch: Sequence[Example]) -> list[list[int]]:
    groups: dict[object, list[int]] = {}
    for at, example in enumerate(batch):
        shapes = tuple((name, one.shape, one.dtype) for name, one in example.feeds.items())
        groups.setdefault(shapes, []).append(at)
    return list(groups.values())
