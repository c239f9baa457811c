from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.numerics.probabilities import are_probabilities, to_log_odds, to_logits

# Within these no probability is as small as the smallest that is told apart.
_LOGITS = st.lists(st.floats(-4, 4, width=32), min_size=2, max_size=6)


@settings(deadline=None)
@given(_LOGITS)
def test_logits_come_back_less_their_mean(numbers: list[float]) -> None:
    logits = np.array(numbers)
    powers = np.exp(logits)
    found = to_logits(powers / powers.sum())
    np.testing.assert_allclose(found, logits - logits.mean(), atol=1e-9)


@settings(deadline=None)
@given(_LOGITS)
def test_log_odds_come_back(numbers: list[float]) -> None:
    odds = np.array(numbers)
    np.testing.assert_allclose(to_log_odds(1 / (1 + np.exp(-odds))), odds, atol=1e-9)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.float32([[0.25, 0.75], [1.0, 0.0]]), True),
        (np.float16([0.1, 0.2, 0.7]), True),
        (np.float32([[0.25, 0.7]]), False),
        (np.float32([[1.5, -0.5]]), False),
        (np.float32([[np.nan, 1.0]]), False),
        (np.float32([[1.0]]), False),
        (np.int64([[0, 1]]), False),
        (np.zeros((0, 2), np.float32), False),
        (np.float32(1.0), False),
    ],
    ids=["rows", "half", "sum", "negative", "nan", "one-class", "integers", "empty", "scalar"],
)
def test_what_probabilities_are(array: np.ndarray, expected: bool) -> None:
    assert are_probabilities(array) is expected


def test_zeros_and_ones_stay_finite() -> None:
    assert np.isfinite(to_logits(np.float32([0.0, 1.0]))).all()
    assert np.isfinite(to_log_odds(np.float32([0.0, 1.0]))).all()
