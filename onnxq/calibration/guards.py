"""Tensors that one scale cannot carry, found in what was observed."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from onnxq.calibration.resolve import Range
from onnxq.plan import CalibrationPlan

WIDEST_RATIO = 64.0
"""With parts this much apart, 8 bits leave the smaller one four levels."""


def find_overloaded_nodes(
    calibration: CalibrationPlan, ranges: Mapping[ir.Value, Range]
) -> dict[ir.Node, str]:
    """Nodes that have to stay float because of the ranges of what they read or give.

    A Concat of tensors whose ranges differ much has one scale for all, in which the smaller one is
    lost; then whatever reads it stays float, too. An Add in integers would lose the smaller summand
    in the same way; its sum can be quantized.

    Args:
        calibration: the plan.
        ranges: smallest and largest value of each activation in it; none for one that no sample
            reached.
    """
    roots = {member: one.value for one in calibration.activations for member in one.members}
    overloaded: dict[ir.Value, str] = {}
    refused = _find_unreached_nodes(calibration, roots, ranges)
    for node in calibration.nodes:
        if node.operator not in ("Add", "Concat") or node.one.node in refused:
            continue
        reason = _compare_parts({value: ranges[roots[value]] for value in node.one.inputs})
        if reason is None:
            continue
        refused[node.one.node] = reason
        if node.operator == "Concat":
            overloaded.update(dict.fromkeys(node.one.outputs, reason))
    bad_roots = {roots[value]: reason for value, reason in overloaded.items()}
    for node in calibration.nodes:
        for value in node.one.inputs:
            if roots[value] in bad_roots:
                refused.setdefault(node.one.node, bad_roots[roots[value]])
    return refused


def _find_unreached_nodes(
    calibration: CalibrationPlan,
    roots: Mapping[ir.Value, ir.Value],
    ranges: Mapping[ir.Value, Range],
) -> dict[ir.Node, str]:
    """Nodes in branches that no sample takes: nothing is known of their activations."""
    found = {}
    for node in calibration.nodes:
        outputs = node.one.outputs if node.quantizes_output else ()
        if any(roots[value] not in ranges for value in (*node.one.inputs, *outputs)):
            found[node.one.node] = "no sample reaches it"
    return found


def _compare_parts(parts: Mapping[ir.Value, Range]) -> str | None:
    widths = {value: max(abs(low), abs(high)) for value, (low, high) in parts.items()}
    largest = max(widths, key=lambda value: widths[value])
    smallest = min(
        (value for value in widths if widths[value] > 0.0),
        key=lambda value: widths[value],
        default=largest,
    )
    if widths[largest] <= WIDEST_RATIO * widths[smallest]:
        return None
    return (
        f"one scale for '{largest.name}' (up to {widths[largest]:.3g}) and '{smallest.name}' "
        f"(up to {widths[smallest]:.3g}) would lose the latter"
    )
