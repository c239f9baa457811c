"""What the processor that quantizes means for the result."""

from __future__ import annotations

from dataclasses import replace

from onnxq.plan import Plan
from onnxq.rules.products import adds_pairs_of_products
from onnxq.runtime.processor import adds_products_exactly
from onnxq.schemes import WeightType
from onnxq.targets import Target

_SEVEN_BITS = (
    "7-bit weights, because this processor adds 8-bit products inexactly (no VNNI); "
    "--no-reduce-range for others"
)
_PAIRS = (
    "scales of weights in which no sum of two products overflows, because this processor adds "
    "8-bit products inexactly (no VNNI); --no-reduce-range for others"
)
_EIGHT_BITS = (
    "8-bit weights, whose products this processor adds inexactly (no VNNI): the comparison here "
    "shows errors that other processors do not make"
)


def adapt_target(target: Target) -> Target:
    """A target as it is on this processor."""
    return replace(target, adds_products_exactly=adds_products_exactly())


def note_products(plan: Plan, reduce_range: bool | None, target: Target) -> tuple[str, ...]:
    """What a user should know of weights on a processor that adds their products inexactly.

    Args:
        plan: every decision.
        reduce_range: as the user asked; None where the processor decided.
        target: adapted to the processor.
    """
    if target.adds_products_exactly:
        return ()
    if reduce_range is None:
        schemes = [one.scheme for one in plan.changes if one.scheme is not None]
        if any(scheme.limits_pairs for scheme in schemes):
            return (_PAIRS,)
        reduced = any(scheme.reduce_range for scheme in schemes)
        return (_SEVEN_BITS,) if reduced else ()
    return (_EIGHT_BITS,) if not reduce_range and _has_inexact_sums(plan) else ()


def _has_inexact_sums(plan: Plan) -> bool:
    return any(
        use.use is not None and adds_pairs_of_products(use.use, use.form, one.constant.tensor)
        for one in plan.changes
        if one.scheme is not None and one.scheme.type is WeightType.INT8
        for use in one.uses
    )
