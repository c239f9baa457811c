"""Order, memory and stacking of examples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from onnxq.training.examples import Example, Examples, make_batches, stack  # noqa: E402

BYTES = 16


def example(number: int, width: int = 2) -> Example:
    """16 bytes with two columns."""
    values = np.full((1, width), number, np.float32)
    return Example(str(number), {"x": values}, {"y": values})


class Source:
    def __init__(self, count: int) -> None:
        self.count, self.reads, self.open = count, 0, 0

    def __call__(self) -> Iterator[Example]:
        self.reads += 1
        yield from map(example, range(self.count))


def order(examples: Examples, seed: int) -> list[int]:
    return [int(one.name) for one in examples.shuffled(np.random.default_rng(seed))]


@given(st.integers(1, 40), st.integers(0, 60 * BYTES), st.integers(0, 5))
def test_each_example_comes_once_an_epoch(count: int, kept_bytes: int, seed: int) -> None:
    examples = Examples(Source(count), kept_bytes=kept_bytes)
    first = order(examples, seed)
    assert sorted(first) == list(range(count))
    assert order(examples, seed) == first


def test_another_seed_is_another_order() -> None:
    examples = Examples(Source(30))
    assert order(examples, 1) != order(examples, 2)


def test_few_examples_are_read_once() -> None:
    source = Source(8)
    examples = Examples(source, kept_bytes=8 * BYTES)
    for seed in range(3):
        order(examples, seed)
    assert source.reads == 1


def test_of_many_only_a_window_is_in_memory() -> None:
    source = Source(100)
    examples = Examples(source, kept_bytes=10 * BYTES)
    drawn = order(examples, 0)
    assert source.reads == 2
    # Of a window of ten the n-th draw cannot be later than the sample n + 10.
    assert all(number <= place + 10 for place, number in enumerate(drawn))
    assert drawn != sorted(drawn)


def test_batches_have_the_size_that_was_asked_for() -> None:
    sizes = [len(batch) for batch in make_batches(map(example, range(10)), 4)]
    assert sizes == [4, 4, 2]


def test_examples_of_other_shapes_are_not_stacked() -> None:
    stacked = stack([example(0), example(1, width=3), example(2)])
    assert [(one.feeds["x"].shape, count) for one, count in stacked] == [((2, 2), 2), ((1, 3), 1)]
    np.testing.assert_array_equal(stacked[0][0].targets["y"][:, 0], [0, 2])
