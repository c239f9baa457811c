"""Options that no sample can be read with."""

from __future__ import annotations

from typing import Any

import pytest

from onnxq.errors import UsageError
from onnxq.samples import ImageOptions, SampleOptions


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"size": (0, 224)}, "--size 0x224: give a height and a width of 1 or more"),
        ({"mean": (0.1, 0.2)}, "--mean 0.1,0.2: give one number, or three"),
        ({"mean": (float("nan"),)}, "--mean nan: give one number"),
        ({"std": ()}, "--std : give one number"),
        ({"std": (1.0, 0.0, 1.0)}, "--std 0: pixels are divided by it"),
        ({"layout": "chwn"}, "--layout chwn: choose from nchw, nhwc"),
        ({"channels": "gray"}, "--channels gray: choose from rgb, bgr"),
        ({"scale": 0.0}, "--scale 0.0: give a number other than 0"),
        ({"scale": float("inf")}, "--scale inf: give a number"),
    ],
    ids=lambda one: next(iter(one)) if isinstance(one, dict) else "",
)
def test_image_options(wrong: dict[str, Any], part: str) -> None:
    with pytest.raises(UsageError) as caught:
        ImageOptions(**wrong)
    assert part in str(caught.value)


@pytest.mark.parametrize("limit", [0, -3])
def test_number_of_samples(limit: int) -> None:
    with pytest.raises(UsageError, match=f"--samples {limit}: give 1 or more"):
        SampleOptions(limit=limit)


def test_defaults_take_everything() -> None:
    assert SampleOptions().limit is None
    assert SampleOptions().images is None
