"""Samples with what the float model gives for them, in batches and in an order that a seed sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxq.training.tensors import Array

KEPT_BYTES = 512 * 2**20
"""Samples that together are smaller stay in memory between epochs."""

Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Example:
    """One sample, or several of them stacked.

    Attributes:
        name: of the sample.
        feeds: an array for each input.
        targets: what the float model gives, by name of the tensor.
        labels: classes, one for each row of scores; None without.
    """

    name: str
    feeds: Arrays
    targets: Arrays
    labels: Array | None = None

    @property
    def size_bytes(self) -> int:
        """Memory that it takes."""
        return sum(array.nbytes for array in (*self.feeds.values(), *self.targets.values()))

    @property
    def signature(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Shapes without the first axis: examples that have the same can be stacked."""
        arrays = {**self.feeds, **self.targets}
        return tuple((name, array.shape[1:]) for name, array in arrays.items())


class Examples:
    """Reads samples as often as it is asked; keeps them in memory where they are few.

    Where they are many only a window of them is in memory: it is filled in the order of the
    samples, and each next example is drawn from it.
    """

    def __init__(
        self, read: Callable[[], Iterable[Example]], *, kept_bytes: int = KEPT_BYTES
    ) -> None:
        """Read nothing yet.

        Args:
            read: gives the examples anew at each call.
            kept_bytes: that examples in memory may take.
        """
        self._read = read
        self._kept_bytes = kept_bytes
        self._kept: list[Example] | None = None
        self._count: int | None = None

    @property
    def count(self) -> int:
        """How many there are; reads them once."""
        if self._count is None:
            self._count = sum(1 for _ in self.in_order())
        return self._count

    def in_order(self) -> Iterator[Example]:
        """Each example, as they come."""
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Example] | None = []
        count = size_bytes = 0
        for example in self._read():
            count += 1
            size_bytes += example.size_bytes
            if kept is not None:
                kept.append(example)
                if size_bytes > self._kept_bytes:
                    kept = None
            yield example
        self._kept, self._count = kept, count

    def shuffled(self, generator: np.random.Generator) -> Iterator[Example]:
        """Each example once, in an order that ``generator`` sets."""
        if self._kept is None and self._count is None:
            for _ in self.in_order():
                pass
        if self._kept is not None:
            for at in generator.permutation(len(self._kept)):
                yield self._kept[at]
            return
        window: list[Example] = []
        size_bytes = 0
        for example in self._read():
            window.append(example)
            size_bytes += example.size_bytes
            if size_bytes > self._kept_bytes:
                drawn = window.pop(int(generator.integers(len(window))))
                size_bytes -= drawn.size_bytes
                yield drawn
        for at in generator.permutation(len(window)):
            yield window[at]


def make_batches(examples: Iterable[Example], size: int) -> Iterator[list[Example]]:
    """Groups of ``size`` samples; the last one may be smaller.

    A sample that holds several rows counts as one.
    """
    batch: list[Example] = []
    for example in examples:
        batch.append(example)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def stack(examples: Sequence[Example]) -> list[tuple[Example, int]]:
    """Examples of the same shapes as one along the first axis, and how many each holds."""
    groups: dict[object, list[Example]] = {}
    for example in examples:
        groups.setdefault((example.signature, example.labels is None), []).append(example)
    return [(_join(group), len(group)) for group in groups.values()]


def _join(group: Sequence[Example]) -> Example:
    if len(group) == 1:
        return group[0]
    first = group[0]

    def join(arrays: Sequence[Arrays]) -> Arrays:
        return {name: np.concatenate([one[name] for one in arrays]) for name in arrays[0]}

    labels = None
    if first.labels is not None:
        labels = np.concatenate([one.labels for one in group if one.labels is not None])
    return Example(
        first.name, join([one.feeds for one in group]), join([one.targets for one in group]), labels
    )


def can_stack(first: Example, second: Example) -> bool:
    """Whether two examples could be one along the first axis: same shapes, no scalars."""
    arrays = [*first.feeds.values(), *first.targets.values()]
    return first.signature == second.signature and all(array.ndim for array in arrays)
