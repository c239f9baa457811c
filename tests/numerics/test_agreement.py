from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.numerics.agreement import Agreement, looks_like_scores
from onnxq.numerics.probabilities import LARGEST_SUM_ERROR

ROW = np.float32([0.2, 0.5, 0.3])

LOOKS = {
    "matrix": (np.float32([[3, -4], [0, 1]]), True),
    "one-row": (np.float32([[3, 4]]), True),
    "half": (np.float16([[3, 4]]), True),
    "double": (np.float64([[3, 4]]), True),
    "probabilities": (np.tile(ROW, (2, 4, 1)), True),
    "probabilities-in-half": (np.tile(ROW, (2, 4, 1)).astype(np.float16), True),
    "four-axes": (np.tile(ROW, (2, 4, 5, 1)), True),
    "sums-almost-to-one": (np.tile(ROW, (2, 4, 1)) * np.float32(1 + LARGEST_SUM_ERROR / 2), True),
    "sums-to-more": (np.tile(ROW, (2, 4, 1)) * np.float32(1 + 2 * LARGEST_SUM_ERROR), False),
    "negative": (np.float32([[[1.5, -0.5]]]), False),
    "not-a-number": (np.float32([[[np.nan, 1.0]]]), False),
    "one-class": (np.ones((4, 1), np.float32), False),
    "vector": (ROW, False),
    "scalar": (np.float32(1), False),
    "integers": (np.array([[1, 2]]), False),
    "booleans": (np.array([[True, False]]), False),
    "strings": (np.array([["a", "b"]]), False),
    "no-rows": (np.zeros((0, 3), np.float32), False),
    "no-classes": (np.zeros((3, 0), np.float32), False),
}


@pytest.mark.parametrize(("array", "expected"), LOOKS.values(), ids=LOOKS)
def test_what_looks_like_scores(array: np.ndarray, expected: bool) -> None:
    assert looks_like_scores(np.asarray(array)) is expected


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    classes=st.integers(2, 6),
    seed=st.integers(0, 1000),
)
def test_share_is_the_mean_over_samples(sizes: list[int], classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    agreement = Agreement()
    shares = []
    for rows in sizes:
        a, b = rng.integers(0, 3, (2, rows, classes)).astype(np.float32)
        agreement.add(a, b)
        # The first of equal scores counts.
        same = [list(x).index(max(x)) == list(y).index(max(y)) for x, y in zip(a, b, strict=True)]
        shares.append(sum(same) / rows)
    # A mean of n numbers of at most 1: each addition in float64 errs by at most n * 2^-53.
    assert agreement.share is not None
    assert abs(agreement.share - sum(shares) / len(shares)) <= 4 * len(shares) * 2.0**-53


def test_same_scores_agree(rng: np.random.Generator) -> None:
    agreement = Agreement()
    for _ in range(3):
        scores = rng.standard_normal((4, 10)).astype(np.float32)
        agreement.add(scores, 2 * scores - 1)
    assert agreement.share == 1.0


def test_every_place_counts() -> None:
    expected = np.float32([[[0.9, 0.1], [0.2, 0.8]]])
    agreement = Agreement()
    agreement.add(expected, np.float32([[[0.4, 0.6], [0.1, 0.9]]]))
    assert agreement.share == 0.5


def test_the_float_model_says_whether_these_are_scores() -> None:
    agreement = Agreement()
    agreement.add(np.float32([[[0.9, 0.1]]]), np.float32([[[7.0, -1.0]]]))
    assert agreement.share == 1.0


def test_one_sample_that_is_no_scores_ends_it() -> None:
    agreement = Agreement()
    scores, other = np.float32([[[0.9, 0.1]]]), np.float32([[[9, 1]]])
    for expected in (scores, other, scores):
        agreement.add(expected, expected)
    assert (agreement.share, agreement.is_scores) == (None, False)


def test_nothing_to_compare() -> None:
    agreement = Agreement()
    assert agreement.share is None
    agreement.add(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32))
    assert agreement.share is None
    agreement.add(np.float32([[1, 2]]), np.float32([[1, 2]]))
    assert agreement.share == 1.0
