"""What is not as the lock has it."""

from __future__ import annotations

from collections.abc import Iterator

from onnxq.runs.lock import LockedRanges, LockEntry
from onnxq.runs.numbers import Numbers

SQNR_TOLERANCE_DB = 0.1
SHARE_TOLERANCE = 0.005
"""Another processor rounds sums of floats in another order, so the same model gives numbers that
differ a little. The model itself has to be the same to the last bit."""

MOST_RANGES_NAMED = 3


def find_differences(locked: LockEntry, found: LockEntry) -> tuple[str, ...]:
    """One text for each; empty if the results are the same. Times and memory are not compared."""
    differences = []
    if locked.output != found.output:
        differences.append(
            f"the output differs: sha256 {found.output[:12]}, in the lock {locked.output[:12]}"
        )
        differences += _explain(locked, found)
        differences += _compare_ranges(locked.ranges, found.ranges)
    return (*differences, *_compare_numbers(locked.numbers, found.numbers))


def _explain(locked: LockEntry, found: LockEntry) -> Iterator[str]:
    before, now = locked.fingerprints, found.fingerprints
    for what, is_same in (
        ("the model", before.model == now.model),
        ("the calibration data", before.calibration == now.calibration),
        ("the options", before.options == now.options),
    ):
        if not is_same:
            yield f"{what} changed since the lock was written"
    for name, version in now.versions.items():
        if before.versions.get(name) != version:
            yield f"{name} is {version}, in the lock {before.versions.get(name, 'not there')}"


def _compare_ranges(locked: LockedRanges | None, found: LockedRanges | None) -> Iterator[str]:
    if locked is None or found is None:
        return
    if locked.method != found.method:
        yield f"ranges are chosen by {found.method}, in the lock by {locked.method}"
    different = [
        name
        for name, pair in found.tensors.items()
        if name in locked.tensors and locked.tensors[name] != pair
    ]
    for name in different[:MOST_RANGES_NAMED]:
        low, high = found.tensors[name]
        old_low, old_high = locked.tensors[name]
        yield f"range of '{name}' is {low:g} to {high:g}, in the lock {old_low:g} to {old_high:g}"
    if len(different) > MOST_RANGES_NAMED:
        yield f"and {len(different) - MOST_RANGES_NAMED} more ranges"


def _compare_numbers(locked: Numbers, found: Numbers) -> Iterator[str]:
    if locked.samples != found.samples:
        yield f"{found.samples} samples were compared, in the lock {locked.samples}"
    before, now = _name_numbers(locked), _name_numbers(found)
    for name in dict.fromkeys((*before, *now)):
        if not _is_close(name, before.get(name), now.get(name)):
            yield f"{name} is {_show(now.get(name))}, in the lock {_show(before.get(name))}"


def _name_numbers(numbers: Numbers) -> dict[str, float | None]:
    """Those that the same model gives everywhere; of the largest error only the size is."""
    found: dict[str, float | None] = {"size": float(numbers.size_bytes)}
    for one in numbers.outputs:
        found[f"SQNR of '{one.name}'"] = one.sqnr_db
        found[f"cosine of '{one.name}'"] = one.cosine
        found[f"agreement of '{one.name}'"] = one.agreement
        found[f"equal share of '{one.name}'"] = one.equal
    for metric in numbers.metrics:
        found[f"{metric.name} of the float model"] = metric.float_value
        found[f"{metric.name} of the quantized model"] = metric.quantized_value
    return found


def _is_close(name: str, locked: float | None, found: float | None) -> bool:
    if locked is None or found is None or name == "size":
        return locked == found
    tolerance = (
        SQNR_TOLERANCE_DB if name.startswith("SQNR") else SHARE_TOLERANCE * max(1.0, abs(locked))
    )
    return locked == found or abs(locked - found) <= tolerance


def _show(number: float | None) -> str:
    return "not there" if number is None else f"{number:.6g}"
