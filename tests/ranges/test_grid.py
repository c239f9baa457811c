from __future__ import annotations

import pytest

from onnxq.schemes import Scheme, WeightType
from tests.ranges.observing import GRIDS


@pytest.mark.parametrize("grid", sorted(GRIDS))
def test_levels_are_all_integers_in_use(grid: str) -> None:
    low, high = GRIDS[grid].quantized_min, GRIDS[grid].quantized_max
    assert GRIDS[grid].levels == len(range(low, high + 1))


@pytest.mark.parametrize(
    ("grid", "weight_type"), [("s8_symmetric", WeightType.INT8), ("u8_symmetric", WeightType.UINT8)]
)
def test_the_midpoint_is_that_of_a_symmetric_scheme(grid: str, weight_type: WeightType) -> None:
    assert GRIDS[grid].midpoint == Scheme(type=weight_type).midpoint


def test_an_asymmetric_grid_has_no_midpoint() -> None:
    assert GRIDS["u8"].midpoint is None
