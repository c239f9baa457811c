"""Whether arrays fit the inputs of a model."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from onnxq.errors import DataError
from onnxq.runtime.session import InputSignature
from onnxq.samples.fitting import find_masked_inputs, fit_feeds, refuse_untyped_inputs


def _fit(array: npt.NDArray[Any], dtype: npt.DTypeLike, *shape: int | str | None) -> Any:
    signature = InputSignature("x", dtype, shape or (None,) * array.ndim)
    return fit_feeds("0.npz", {"x": array}, [signature])["x"]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (np.float16, np.float32),
        (np.float32, np.float64),
        (">f4", np.float32),
        (np.uint8, np.float16),
        (np.int32, np.int64),
        (np.int32, np.float64),
        (np.bool_, np.float32),
        (np.int8, ml_dtypes.bfloat16),
        (ml_dtypes.bfloat16, np.float32),
    ],
    ids=str,
)
def test_exact_conversions(given: npt.DTypeLike, wanted: npt.DTypeLike) -> None:
    array = np.array([0, 1, 1]).astype(given)
    fitted = _fit(array, wanted)
    assert fitted.dtype == wanted
    np.testing.assert_array_equal(fitted.astype(np.float64), [0, 1, 1])


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (np.float64, np.float32),
        (np.int64, np.float64),
        (np.uint64, np.float64),
        (np.int64, np.int32),
        (np.int32, np.float32),
        (np.float32, np.int64),
        (np.int8, np.uint8),
        (np.int64, np.bool_),
        (np.complex64, np.float32),
        (np.float32, np.object_),
        ("S3", np.object_),
        ("U3", np.float32),
        ("V4", np.float32),
        ("M8[s]", np.int64),
    ],
    ids=str,
)
def test_conversions_with_loss(given: npt.DTypeLike, wanted: npt.DTypeLike) -> None:
    with pytest.raises(DataError, match=r"^0\.npz: array 'x' is .* does not convert without loss"):
        _fit(np.zeros(3, given), wanted)


def test_text_becomes_strings() -> None:
    fitted = _fit(np.array(["a", "bcd"]), np.object_)
    assert fitted.tolist() == ["a", "bcd"]
    assert fitted.dtype == np.object_


def test_array_that_fits_is_not_copied() -> None:
    array = np.zeros((2, 3), np.float32)
    assert _fit(array, np.float32, "batch", 3) is array


@pytest.mark.parametrize("shape", [(2, 4), (3,), (1, 2, 3)], ids=str)
def test_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"expected x: float32\[batch, 3\]"):
        _fit(np.zeros(shape, np.float32), np.float32, "batch", 3)


def test_long_lists_of_arrays_are_cut() -> None:
    arrays = {f"a{index:02d}": np.zeros(1) for index in range(15)}
    with pytest.raises(DataError, match=r"has no array 'x'; it holds .*'a09'\] and 5 more"):
        fit_feeds("0.npz", arrays, [InputSignature("x", np.float32, (1,))])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("value", "part"),
    [
        (np.nan, r"holds NaN: 1 of 6 values, first at \[1, 2\]; remove the sample"),
        (np.inf, r"holds Inf \(only -inf is taken, as in masks\): 1 of 6 values, first at \[1, 2"),
    ],
    ids=["nan", "inf"],
)
def test_values_that_give_no_ranges(value: float, part: str, dtype: npt.DTypeLike) -> None:
    array = np.zeros((2, 3), dtype)
    array[0, 0] = -np.inf
    array[1, 2] = value
    with pytest.raises(DataError, match=r"0\.npz: array 'x' " + part):
        find_masked_inputs("0.npz", {"x": array})


def test_masks_are_told() -> None:
    mask = np.array([0, -np.inf], np.float32)
    feeds = {"x": np.ones(2, np.float32), "mask": mask, "ids": np.ones(2, np.int64)}
    assert find_masked_inputs("0.npz", feeds) == ("mask",)


def test_sample_without_elements() -> None:
    with pytest.raises(DataError, match=r"0\.npz: holds no elements"):
        find_masked_inputs("0.npz", {"x": np.zeros((0, 3), np.float32)})


def test_one_input_without_elements_is_fine() -> None:
    """The past of a language model has length 0 at its first step."""
    feeds = {"ids": np.ones((1, 4), np.int64), "past": np.zeros((1, 8, 0, 64), np.float32)}
    assert find_masked_inputs("0.npz", feeds) == ()


def test_inputs_that_are_no_tensors() -> None:
    inputs = [InputSignature("x", np.float32, (1,)), InputSignature("s", None, ())]
    with pytest.raises(DataError, match="input 's' is no tensor that numpy can hold"):
        refuse_untyped_inputs(inputs)
