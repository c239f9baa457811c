"""What is learnt from, and how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from onnxq.training.examples import Example, Examples  # noqa: E402
from onnxq.training.school import join_evenly  # noqa: E402


class Source:
    """Examples of one kind, which counts how often it is asked."""

    def __init__(self, kind: str, count: int) -> None:
        self.kind, self.count, self.reads = kind, count, 0

    def __call__(self) -> Iterable[Example]:
        self.reads += 1
        for at in range(self.count):
            yield Example(f"{self.kind} {at}", {"x": np.zeros((1, 2), np.float32)}, {})


@pytest.mark.parametrize(
    ("real", "synthetic", "times"),
    [
        pytest.param(5, 16, 3, id="few real ones come as often as they are fewer"),
        pytest.param(5, 5, 1, id="as many come once"),
        pytest.param(8, 3, 1, id="more come once"),
        pytest.param(4, 0, 1, id="alone they come once"),
    ],
)
def test_real_samples_are_not_outnumbered(real: int, synthetic: int, times: int) -> None:
    joined = join_evenly(Examples(Source("real", real)), Examples(Source("made", synthetic)))
    found = Counter(one.name for one in joined.shuffled(np.random.default_rng(0)))
    wanted = {f"real {at}": times for at in range(real)}
    wanted |= {f"made {at}": 1 for at in range(synthetic)}
    assert found == wanted
    assert joined.count == times * real + synthetic


def test_samples_that_come_again_are_neither_read_nor_held_twice() -> None:
    real, made = Source("real", 2), Source("made", 6)
    joined = join_evenly(Examples(real), Examples(made))
    first = list(joined.in_order())
    assert (real.reads, made.reads) == (1, 1)
    assert len({id(one) for one in first}) == 8
    assert len(first) == 12


def test_what_is_too_large_to_keep_is_not_read_only_to_count_it() -> None:
    real, made = Source("real", 2), Source("made", 4)
    list(join_evenly(Examples(real, kept_bytes=0), Examples(made)).in_order())
    assert (real.reads, made.reads) == (2, 1)
