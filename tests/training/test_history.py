"""Which point of a learning curve is kept."""

from __future__ import annotations

import math

import pytest

from onnxq.training.history import MOST_CHANCE, History, Point


def follow(*losses: float) -> list[int]:
    """The best point after each one."""
    history, found = History(), []
    for at, loss in enumerate(losses):
        history.points.append(Point(at, at, math.nan, loss, 0.0, 0.0))
        if history.is_last_best():
            history.best = at
        found.append(history.best)
    return found


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        pytest.param((9, 8, 7, 6), [0, 1, 2, 3], id="what falls is followed"),
        pytest.param((9, 9.5, 9.4, 9.3), [0, 0, 0, 0], id="nothing worse than the start"),
        pytest.param((9, 8.9999), [0, 0], id="less than a thousandth is no gain"),
        pytest.param((9, 5, 5.2, 5, 5.1), [0, 1, 1, 3, 4], id="by chance worse is as good"),
        pytest.param((9, 5, 5, 5, 5.1), [0, 1, 1, 1, 1], id="where nothing varies worse is worse"),
        pytest.param((9, 5, 7, 5, 7, 5.4), [0, 1, 1, 3, 3, 5], id="much variation counts a tenth"),
        pytest.param((9, 5, 7, 5, 7, 5.6), [0, 1, 1, 3, 3, 3], id="and no more"),
        pytest.param((9, 5, 5.2, 5.4, 5.6, 5.8), [0, 1, 1, 1, 1, 1], id="what only rises is left"),
        pytest.param((9, 5, math.nan, math.inf, 6), [0, 1, 1, 1, 1], id="no number is never best"),
        pytest.param((9, 0, 0, 0), [0, 1, 1, 1], id="nothing is less than 0"),
    ],
)
def test_the_last_of_the_equally_good_is_kept(
    losses: tuple[float, ...], expected: list[int]
) -> None:
    assert follow(*losses) == expected


def test_chance_is_a_tenth_at_the_most() -> None:
    points = [Point(at, at, 0.0, loss, 0.0, 0.0) for at, loss in enumerate((9.0, 1.0, 8.0, 1.0))]
    assert History(points).chance == MOST_CHANCE
