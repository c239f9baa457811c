"""How the shape of an input decides what is done to images."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from onnxq.errors import DataError, UsageError
from onnxq.runtime.session import InputSignature
from onnxq.samples import ImageOptions
from onnxq.samples.image_plan import ImagePlan, plan_images

Shape = tuple[int | str | None, ...]


def _plan(shape: Shape, dtype: npt.DTypeLike = np.float32, **options: Any) -> ImagePlan:
    return plan_images([InputSignature("x", dtype, shape)], ImageOptions(**options))


@pytest.mark.parametrize(
    ("shape", "layout", "channels", "size"),
    [
        ((1, 3, 224, 192), "nchw", 3, (224, 192)),
        (("N", 3, 224, 192), "nchw", 3, (224, 192)),
        ((None, 224, 192, 3), "nhwc", 3, (224, 192)),
        ((1, 1, 28, 28), "nchw", 1, (28, 28)),
        ((1, 28, 28, 1), "nhwc", 1, (28, 28)),
        ((1, 3, "height", "width"), "nchw", 3, None),
        ((1, "height", "width", 3), "nhwc", 3, None),
        ((3, 32, 48), "nchw", 3, (32, 48)),
        ((32, 48, 3), "nhwc", 3, (32, 48)),
        ((1, 32, 48), "nchw", 1, (32, 48)),
    ],
    ids=str,
)
def test_shapes_that_leave_no_doubt(
    shape: Shape, layout: str, channels: int, size: tuple[int, int] | None
) -> None:
    plan = _plan(shape)
    assert (plan.layout, plan.channels, plan.size) == (layout, channels, size)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((1, 3, 224, 3), "both ends could be"),
        ((1, 3, 3, 1), "both ends could be"),
        ((1, "C", 224, 224), "neither end is 1 or 3"),
        ((1, None, None, None), "neither end is 1 or 3"),
        ((1, 4, 224, 224), "neither end is 1 or 3"),
        (("N", 224, 224), "neither end is 1 or 3"),
    ],
    ids=str,
)
def test_shapes_in_doubt(shape: Shape, reason: str) -> None:
    with pytest.raises(DataError, match=rf"{reason}\); give --layout nchw or --layout nhwc"):
        _plan(shape)


@pytest.mark.parametrize(
    ("shape", "layout", "size"),
    [((1, 3, 224, 3), "nhwc", (3, 224)), ((1, "C", 32, 48), "nchw", (32, 48))],
    ids=["both", "free"],
)
def test_layout_is_given(shape: Shape, layout: str, size: tuple[int, int]) -> None:
    plan = _plan(shape, layout=layout)
    assert (plan.layout, plan.channels, plan.size) == (layout, 3, size)


@pytest.mark.parametrize(
    ("shape", "options", "error", "part"),
    [
        ((1, 4, 8, 8), {"layout": "nchw"}, DataError, "as nchw the model takes 4"),
        ((8, 3, 8, 8), {}, DataError, "images are fed one by one, the model takes x: float32[8, 3"),
        ((1, 10), {}, DataError, "images need an input of 3 or 4 axes"),
        ((1, 3, 8, 8, 8), {}, DataError, "images need an input of 3 or 4 axes"),
        ((1, 3, 8, "width"), {}, DataError, "of which one side is free; give --size"),
        ((1, 3, 8, 8), {"size": (8, 9)}, UsageError, "--size 8x9 contradicts the model"),
        ((1, 1, 8, 8), {"mean": (1, 2, 3)}, UsageError, "--mean has 3 values, the model takes 1"),
    ],
    ids=["four", "batch", "two-axes", "five-axes", "one-side", "size", "mean"],
)
def test_models_and_options_that_do_not_go_together(
    shape: Shape, options: dict[str, Any], error: type[Exception], part: str
) -> None:
    with pytest.raises(error) as caught:
        _plan(shape, **options)
    assert part in str(caught.value)


def test_several_inputs() -> None:
    inputs = [InputSignature(name, np.float32, (1, 3, 8, 8)) for name in "ab"]
    with pytest.raises(DataError, match=r"images feed one input, the model takes 2: a: .*; use \."):
        plan_images(inputs, ImageOptions())


@pytest.mark.parametrize("dtype", [np.bool_, np.object_, np.complex64], ids=str)
def test_inputs_that_are_no_numbers(dtype: type) -> None:
    with pytest.raises(DataError, match="images are numbers, the model takes x"):
        _plan((1, 3, 8, 8), dtype)


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (np.int8, {}),
        (np.uint8, {"mean": (1.0,)}),
        (np.float16, {"scale": 1e6}),
        (np.float32, {"scale": 1e38}),
    ],
    ids=["int8", "uint8-under", "float16-over", "float32-over"],
)
def test_options_that_leave_the_range_of_the_type(dtype: type, options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"images become .* which does not fit x.*; change --scale"):
        _plan((1, 3, 8, 8), dtype, **options)


PIXELS = np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20


@pytest.mark.parametrize(
    ("dtype", "options", "expected"),
    [
        (np.float32, {}, PIXELS / 255),
        (np.float64, {}, PIXELS / 255),
        (np.float16, {}, PIXELS / 255),
        (ml_dtypes.bfloat16, {"scale": 1.0}, PIXELS),
        (np.uint8, {}, PIXELS),
        (np.int8, {"mean": (128.0,)}, PIXELS.astype(int) - 128),
        (np.uint8, {"scale": 0.5}, PIXELS // 2),
        (np.float32, {"scale": 1.0, "mean": (127.5,), "std": (2.0,)}, (PIXELS - 127.5) / 2),
        (
            np.float32,
            {"mean": (0.1, 0.2, 0.3), "std": (1.0, 2.0, 4.0)},
            (PIXELS / 255 - [0.1, 0.2, 0.3]) / [1, 2, 4],
        ),
        (
            np.float32,
            {"channels": "bgr", "scale": 1.0, "mean": (1.0, 2.0, 3.0)},
            PIXELS[..., ::-1] - [1.0, 2.0, 3.0],
        ),
    ],
    ids=lambda one: ",".join(one) if isinstance(one, dict) else getattr(one, "__name__", ""),
)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_pixels_become_values(
    dtype: type, options: dict[str, Any], expected: npt.NDArray[Any], layout: str
) -> None:
    shape: Shape = (1, 3, 2, 2) if layout == "nchw" else (1, 2, 2, 3)
    array = _plan(shape, dtype, **options).arrange(PIXELS)
    assert array.dtype == dtype
    assert array.flags.c_contiguous
    if layout == "nchw":
        array = array.transpose(0, 2, 3, 1)
    precision = 1e-6 if dtype in (np.float32, np.float64) else 2e-2
    np.testing.assert_allclose(array[0].astype(np.float64), expected, rtol=precision, atol=1e-6)


def test_no_batch_axis() -> None:
    assert _plan((3, 2, 2)).arrange(PIXELS).shape == (3, 2, 2)


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (
            _plan((1, 3, 224, 192)),
            "images: size 224x192, layout nchw from the shape of input 'x', rgb; scale 1/255, "
            "no mean, no std",
        ),
        (
            _plan((1, "h", "w", 1), np.uint8, layout="nhwc", mean=(0.0,), std=(0.5,), scale=0.25),
            "images: size each image's own, layout nhwc, gray; scale 0.25, 0 mean, 0.5 std",
        ),
    ],
    ids=["guessed", "given"],
)
def test_description(plan: ImagePlan, expected: str) -> None:
    assert plan.describe() == expected
