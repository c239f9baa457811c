"""Recipes with some blocks in float and others in 16 bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from onnxq.algorithms.blocks import Block
from onnxq.algorithms.layers import find_layers
from onnxq.algorithms.mixing import Width
from onnxq.algorithms.recipe import Recipe
from onnxq.calibration import Range
from onnxq.graph.opset import raise_copy
from onnxq.plan.requirements import INT4_IR_VERSION, WIDE_AND_NARROW_TYPES_OPSET
from onnxq.plan.translate import translate_plan

REASON = "kept float for accuracy"


@dataclass(frozen=True)
class Mixable:
    """A recipe whose blocks can have other widths.

    Attributes:
        recipe: with every block in integers.
        blocks: of its plan.
    """

    recipe: Recipe
    blocks: tuple[Block, ...]

    def mix(self, widths: Sequence[Width]) -> Recipe:
        """The same numbers for a plan with these widths; biases have to be found anew.

        Args:
            widths: of each block.
        """
        recipe = self.recipe
        kept = dict.fromkeys(self._find_nodes(widths, Width.FLOAT), REASON)
        wide = self._find_nodes(widths, Width.WIDE)
        changed = kept.keys() | wide
        planner = recipe.planner.keep_float(kept).widen(wide)
        plan = planner.plan()
        ranges = spread_ranges(recipe, recipe.ranges)
        # Of a MatMul the bias is an input of the Add behind it, which is in no block.
        stale = {
            layer.bias_place
            for layer in find_layers(recipe.plan, recipe.model.graph)
            if layer.node in changed
        }
        used = {one.constant.value for one in plan.changes if one.scheme is not None}
        return replace(
            recipe,
            planner=planner,
            plan=plan,
            ranges={one.value: ranges[one.value] for one in plan.decisions.activations},
            # Those that were tuned are integers of the type asked for.
            weights={
                value: weight
                for value, weight in recipe.weights.items()
                if value in used and not any(reader in changed for reader, _ in value.uses())
            },
            biases={place: bias for place, bias in recipe.biases.items() if place not in stale},
        )

    def _find_nodes(self, widths: Sequence[Width], width: Width) -> dict[ir.Node, None]:
        chosen = zip(self.blocks, widths, strict=True)
        return dict.fromkeys(node for block, own in chosen if own is width for node in block.nodes)

    def can_widen(self, block: Block) -> bool:
        """Whether there are 16 bits for a block: what it computes on is calibrated."""
        return any(one.one.node in block.nodes for one in self.recipe.plan.decisions.nodes)

    def follow(self, extremes: Mapping[ir.Value, Range], path: Path) -> Mixable:
        """The same for a copy of the model in which blocks can have 16 bits.

        Args:
            extremes: of each activation of the plan, on samples.
            path: of the model, for messages.

        Raises:
            UnsupportedModelError: its operator set cannot be raised.
        """
        recipe = self.recipe
        copy = raise_copy(recipe.model, WIDE_AND_NARROW_TYPES_OPSET, path=path)
        copy.model.ir_version = max(copy.model.ir_version, INT4_IR_VERSION)
        # What 8 bits clip to have smaller steps, 16 bits need not clip.
        found = {
            value: (min(low, recipe.ranges[value][0]), max(high, recipe.ranges[value][1]))
            for value, (low, high) in extremes.items()
        }
        values, nodes = copy.values, copy.nodes
        followed = Recipe(
            planner=recipe.planner.follow(copy),
            plan=translate_plan(recipe.plan, copy),
            ranges={values[value]: one for value, one in recipe.ranges.items()},
            weights={values[value]: one for value, one in recipe.weights.items()},
            biases={(nodes[node], at): one for (node, at), one in recipe.biases.items()},
            wide_ranges={values[value]: one for value, one in spread_ranges(recipe, found).items()},
        )
        blocks = (Block(one.name, tuple(nodes[node] for node in one.nodes)) for one in self.blocks)
        return Mixable(followed, tuple(blocks))


def spread_ranges(recipe: Recipe, ranges: Mapping[ir.Value, Range]) -> dict[ir.Value, Range]:
    """Ranges of every tensor that has one; with other nodes in float another of them decides.

    Args:
        recipe: whose plan says which tensors share a range.
        ranges: of the activations of that plan.
    """
    return {
        member: ranges[one.value]
        for one in recipe.plan.decisions.activations
        for member in one.members
    }
