from __future__ import annotations

import numpy as np
import pytest

from onnxq.ranges.histogram import Bins
from onnxq.ranges.trimming import (
    MASK_BINS,
    SENTINEL,
    without_masks,
    without_outliers,
    without_sentinels,
)


def _bins(**counts_by_value: int) -> Bins:
    """Bins of no width: ``m`` stands for minus, as in ``m10=3``."""
    values = {float(name[1:]) * (-1 if name[0] == "m" else 1): count
              for name, count in counts_by_value.items()}  # fmt: skip
    points = np.array(sorted(values))
    return Bins(points, points, np.array([float(values[point]) for point in points]))


def test_sentinels_of_both_signs_go() -> None:
    points = np.array([-SENTINEL * 2, -1.0, 5.0, SENTINEL * 2])
    assert without_sentinels(Bins(points, points, np.ones(4))).lower.tolist() == [-1, 5]


MASKS = {
    "one": (_bins(m10000=50, m5=100, p3=100), [-5, 3]),
    "two_added": (_bins(m20000=5, m10000=50, m5=100, p3=100), [-5, 3]),
    "with_scores_added": (_bins(m10005=3, m10000=5, m9997=4, m5=100, p3=100), [-5, 3]),
    "exactly_far_enough": (_bins(m1000=50, m5=100, p10=100), [-5, 10]),
}

NO_MASKS = {
    "too_small": _bins(m999=50, m5=100, p3=100),
    "too_near": _bins(m1000=50, m5=100, p11=100),
    "too_rare": _bins(m100000=1, m5=10_000, p3=10_000),
    "positive": _bins(p10000=50, m5=100, p3=100),
    "nothing_else": _bins(m10000=50),
    "only_zeros_else": _bins(m10000=50, p0=100),
    "too_wide": _bins(**{f"m{10000 + 100 * k}": 9 for k in range(MASK_BINS + 1)}, p3=100),
    "empty": _bins(),
}


@pytest.mark.parametrize("name", sorted(MASKS))
def test_masks_go(name: str) -> None:
    bins, left = MASKS[name]
    assert without_masks(bins).lower.tolist() == left


@pytest.mark.parametrize("name", sorted(NO_MASKS))
def test_what_is_no_mask_stays(name: str) -> None:
    bins = NO_MASKS[name]
    assert without_masks(bins).lower.tolist() == bins.lower.tolist()


OUTLIERS = {
    "positive": (_bins(m5=20_000, p3=20_000, p500=1), [-5, 3]),
    "negative": (_bins(m500=1, m5=20_000, p3=20_000), [-5, 3]),
    "both": (_bins(m900=1, m5=20_000, p3=20_000, p500=1), [-5, 3]),
    "two_steps": (_bins(m5=20_000, p3=20_000, p500=1, p900000=1), [-5, 3]),
}

NO_OUTLIERS = {
    "near": _bins(m5=20_000, p3=20_000, p499=1),
    "frequent": _bins(m5=20_000, p3=20_000, p500=5),
    "only_zeros_else": _bins(p0=1_000_000, p500=1),
    "alone": _bins(p500=1),
    "empty": _bins(),
}


@pytest.mark.parametrize("name", sorted(OUTLIERS))
def test_outliers_go(name: str) -> None:
    bins, left = OUTLIERS[name]
    assert without_outliers(bins).lower.tolist() == left


@pytest.mark.parametrize("name", sorted(NO_OUTLIERS))
def test_what_is_no_outlier_stays(name: str) -> None:
    bins = NO_OUTLIERS[name]
    assert without_outliers(bins).lower.tolist() == bins.lower.tolist()
