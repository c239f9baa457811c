"""Whether arrays are what a model takes, with the reason where they are not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxq.errors import DataError
from onnxq.runtime.session import Feeds, InputSignature

Arrays = Mapping[str, npt.NDArray[Any]]

MOST_NAMES = 10


def fit_feeds(where: str, arrays: Arrays, inputs: Sequence[InputSignature]) -> Feeds:
    """Feeds for ``inputs`` of ``arrays``; arrays that no input takes are left out.

    Args:
        where: the file, for messages.
        arrays: by the name of the input.
        inputs: of the model.

    Raises:
        DataError: one is missing, has another shape, or a type that does not convert exactly.
    """
    require_names(where, arrays.keys(), inputs)
    return {one.name: _fit(where, one, arrays[one.name]) for one in inputs}


def require_names(where: str, names: Collection[str], inputs: Sequence[InputSignature]) -> None:
    """Refuse arrays called ``names`` where one is missing.

    Raises:
        DataError: it is named, with those that are there.
    """
    missing = [one.name for one in inputs if one.name not in names]
    if missing:
        held = sorted(map(str, names))
        more = f" and {len(held) - MOST_NAMES} more" if len(held) > MOST_NAMES else ""
        raise DataError(
            f"{where}: has no array '{missing[0]}'; it holds {held[:MOST_NAMES]}{more}, the model "
            f"takes {'; '.join(map(str, inputs))}"
        )


def refuse_untyped_inputs(inputs: Sequence[InputSignature]) -> None:
    """Refuse a model that arrays cannot feed.

    Raises:
        DataError: an input is a sequence, or a type that numpy does not have.
    """
    for one in inputs:
        if one.dtype is None:
            raise DataError(
                f"input '{one.name}' is no tensor that numpy can hold, so samples cannot feed it; "
                "export the model with tensors as inputs"
            )


def find_masked_inputs(where: str, feeds: Feeds) -> tuple[str, ...]:
    """Names of the inputs that hold -inf, which is what attention masks are made with.

    Raises:
        DataError: an array holds NaN, or +inf, which no ranges can be made of; or all are empty.
    """
    masked = []
    for name, array in feeds.items():
        # bfloat16 is no numpy floating type, but every function on floats takes it.
        if array.dtype.kind not in "fc" and array.dtype.name != "bfloat16":
            continue
        if np.isfinite(array).all():
            continue
        _refuse_marked(where, name, np.isnan(array), "NaN")
        _refuse_marked(where, name, np.isposinf(array), "Inf (only -inf is taken, as in masks)")
        masked.append(name)
    if feeds and not any(array.size for array in feeds.values()):
        raise DataError(f"{where}: holds no elements; remove it")
    return tuple(masked)


def _refuse_marked(where: str, name: str, marks: npt.NDArray[np.bool_], what: str) -> None:
    if not marks.any():
        return
    first = [int(index) for index in np.unravel_index(int(marks.argmax()), marks.shape)]
    raise DataError(
        f"{where}: array '{name}' holds {what}: {int(marks.sum())} of {marks.size} values, first "
        f"at {first}; remove the sample, or make it again"
    )


def _fit(where: str, signature: InputSignature, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    what = f"{where}: array '{signature.name}' is {array.dtype.name}{list(array.shape)}"
    wanted = np.dtype(signature.dtype)
    if array.dtype != wanted and not _converts(array.dtype, wanted):
        raise DataError(f"{what}, which does not convert without loss; expected {signature}")
    if len(signature.shape) != array.ndim or any(
        isinstance(size, int) and size >= 0 and size != given
        for size, given in zip(signature.shape, array.shape, strict=True)
    ):
        raise DataError(f"{what}; expected {signature}")
    return array.astype(wanted, copy=False)


def _converts(given: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    if wanted == np.object_:  # strings; numpy makes objects of numbers too, which would fail later
        return given.kind == "U"
    if given.kind in "iu" and given.itemsize == 8 and wanted.kind in "fc":
        return False  # numpy calls int64 to float64 safe, although it rounds
    return np.can_cast(given, wanted, casting="safe")
