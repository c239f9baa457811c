"""Regions of integers that would take longer than floats.

A tensor that enters a region is narrowed and laid out anew, one that leaves it widened and laid out
back. Each costs about as much as so many multiplications of a convolution save.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import onnx_ir as ir

from onnxq.graph.constants import dimensions, require_constant
from onnxq.plan import CalibratedNode, CalibrationPlan
from onnxq.rules.calibrated import Behaviour
from onnxq.targets import Target

DEPTHWISE_LOSS = 5.0
"""A depthwise 3x3 convolution takes 0.45 ns an output longer in integers, as long as a dense one
saves on 5 times its multiplications (x86-64 Zen 4, docs/targets.md)."""


def find_unprofitable_nodes(
    calibration: CalibrationPlan, elements: Mapping[ir.Value, int], target: Target
) -> dict[ir.Node, str]:
    """Nodes of regions that save less than their borders cost.

    Args:
        calibration: the plan.
        elements: of each activation, over all samples.
        target: what an element at the border costs.
    """
    roots = {member: one.value for one in calibration.activations for member in one.members}
    sizes = {value: elements.get(root, 0) for value, root in roots.items()}
    refused: dict[ir.Node, str] = {}
    for region in find_joined_regions(calibration.nodes):
        if any(node.one.behaviour is Behaviour.PRODUCT for node in region):
            continue
        saved, crossing = count_multiplications(region, sizes)
        if saved < target.crossing_multiplications * crossing:
            reason = (
                f"no gain: {saved / max(1, crossing):.0f} multiplications saved for each element "
                "that enters or leaves integers"
            )
            refused.update({node.one.node: reason for node in region})
    return refused


def count_multiplications(
    region: list[CalibratedNode], elements: Mapping[ir.Value, int]
) -> tuple[float, int]:
    """What the convolutions of a region gain, and how many elements enter or leave it.

    Args:
        region: nodes that hand integers to each other.
        elements: of each activation that they read or give.

    Returns:
        Multiplications that gain from integers, less those that lose; elements that are narrowed
        before the region or widened behind it.
    """
    saved = sum(_count_saved(node, elements) for node in region)
    return saved, _count_crossing(region, elements)


def find_joined_regions(nodes: tuple[CalibratedNode, ...]) -> Iterable[list[CalibratedNode]]:
    """Nodes that hand integers to each other, together."""
    producers = {value: node for node in nodes for value in _outputs(node)}
    names: dict[ir.Node, ir.Node] = {node.one.node: node.one.node for node in nodes}

    def find(node: ir.Node) -> ir.Node:
        while names[node] is not node:
            names[node] = names[names[node]]
            node = names[node]
        return node

    for node in nodes:
        for value in node.one.inputs:
            if value in producers:
                names[find(node.one.node)] = find(producers[value].one.node)
    regions: dict[ir.Node, list[CalibratedNode]] = {}
    for node in nodes:
        regions.setdefault(find(node.one.node), []).append(node)
    return regions.values()


def _outputs(node: CalibratedNode) -> tuple[ir.Value, ...]:
    return node.one.outputs if node.quantizes_output else ()


def _count_saved(node: CalibratedNode, sizes: Mapping[ir.Value, int]) -> float:
    """Multiplications that gain from integers, less those that lose."""
    if node.one.behaviour is not Behaviour.CONVOLUTION:
        return 0.0
    shape = dimensions(require_constant(node.one.node.inputs[1]))
    count = float(sizes.get(node.one.outputs[0], 0) * math.prod(shape[1:]))
    # Along one axis the float kernels have no fast layout: there depthwise gains, too.
    return -DEPTHWISE_LOSS * count if shape[1] == 1 and len(shape) > 3 else count


def _count_crossing(region: list[CalibratedNode], sizes: Mapping[ir.Value, int]) -> int:
    inside = {node.one.node for node in region}
    made = {value for node in region for value in _outputs(node)}
    entering = {value for node in region for value in node.one.inputs if value not in made}
    leaving = {value for value in made if any(reader not in inside for reader, _ in value.uses())}
    return sum(sizes.get(value, 0) for value in (*entering, *leaving))
