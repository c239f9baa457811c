from __future__ import annotations

from hypothesis import given, settings

from onnxq.ranges.min_max import choose_range
from tests.ranges.observing import GRIDS, Floats, observe, ordinary_floats


@settings(deadline=None)
@given(values=ordinary_floats)
def test_extremes_are_exact_where_nothing_is_masked(values: Floats) -> None:
    observation = observe(values)
    if not observation.is_masked:
        expected = (min(values.min(), 0), max(values.max(), 0))
        assert choose_range(observation, GRIDS["u8"]) == expected
