from __future__ import annotations

from dataclasses import replace

import pytest

from onnxq.runs.differences import find_differences
from onnxq.runs.lock import LockedRanges, LockEntry
from tests.runs.pipelines import make_entry, make_numbers

NUMBERS = make_numbers()
(FLOATS, WHOLE), (TOP1,) = NUMBERS.outputs, NUMBERS.metrics


def entry_with(**changes: object) -> LockEntry:
    return make_entry(numbers=replace(NUMBERS, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "found",
    [
        make_entry(),
        make_entry(model="other"),  # what went in may differ as long as the result does not
        entry_with(outputs=(replace(FLOATS, sqnr_db=40.05, max_abs_error=9.0), WHOLE)),
        entry_with(metrics=(replace(TOP1, quantized_value=0.972),)),
    ],
)
def test_same_results(found: LockEntry) -> None:
    assert find_differences(make_entry(), found) == ()


@pytest.mark.parametrize(
    ("found", "part"),
    [
        (entry_with(outputs=(replace(FLOATS, sqnr_db=39.8), WHOLE)), "SQNR of 'y' is 39.8, in"),
        (entry_with(outputs=(replace(FLOATS, sqnr_db=None), WHOLE)), "SQNR of 'y' is not there"),
        (entry_with(outputs=(FLOATS,)), "equal share of 'n' is not there, in the lock 1"),
        (entry_with(outputs=(FLOATS, replace(WHOLE, equal=0.9))), "equal share of 'n' is 0.9"),
        (entry_with(metrics=(replace(TOP1, quantized_value=0.96),)), "top-1 of the quantized"),
        (entry_with(metrics=()), "top-1 of the float model is not there"),
        (entry_with(samples=9), "9 samples were compared, in the lock 8"),
        (entry_with(size_bytes=251), "size is 251, in the lock 250"),
    ],
)
def test_other_numbers(found: LockEntry, part: str) -> None:
    assert any(one.startswith(part) for one in find_differences(make_entry(), found))


def test_other_output_comes_with_what_may_explain_it() -> None:
    before = make_entry(ranges=LockedRanges("mse", {f"t{n}": (0.0, 1.0) for n in range(6)}))
    after = make_entry(
        output="decade",
        model="changed",
        ranges=LockedRanges("minmax", {f"t{n}": (0.0, 1.0 + n) for n in range(6)}),
    )
    versions = {"onnxq": "2", "numpy": "3"}
    after = replace(after, fingerprints=replace(after.fingerprints, versions=versions))
    assert find_differences(before, after) == (
        "the output differs: sha256 decade, in the lock c0ffee",
        "the model changed since the lock was written",
        "onnxq is 2, in the lock 1",
        "numpy is 3, in the lock not there",
        "ranges are chosen by minmax, in the lock by mse",
        "range of 't1' is 0 to 2, in the lock 0 to 1",
        "range of 't2' is 0 to 3, in the lock 0 to 1",
        "range of 't3' is 0 to 4, in the lock 0 to 1",
        "and 2 more ranges",
    )
