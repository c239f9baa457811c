"""Where the activations of a plan are integers, and where one type of them becomes another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.plan import ActivationPlan, Plan
from onnxq.rules.roles import Form


@dataclass(frozen=True)
class IntegerBorders:
    """Where a plan has activations in integers.

    Attributes:
        made: values that integer nodes give as integers, each as they give it.
        entering: what each integer node has to quantize before it reads it: tensors of floats, and
            integers of another type than its own.
        at_run_time: products that quantize their activation when they are run, with its index.
    """

    made: Mapping[ir.Value, ActivationPlan]
    entering: Mapping[ir.Node, Mapping[ir.Value, ActivationPlan]]
    at_run_time: Mapping[ir.Node, int]

    @classmethod
    def of(cls, plan: Plan) -> IntegerBorders:
        """Those of a whole plan."""
        decisions = plan.decisions
        owners = decisions.owners
        made = {
            value: owners[value, one.scheme]
            for one in decisions.nodes
            if one.quantizes_output
            for value in one.one.outputs
        }
        entering = {
            one.one.node: {
                value: owners[value, one.scheme]
                for value in one.one.inputs
                if value not in made or made[value].scheme != one.scheme
            }
            for one in decisions.nodes
        }
        at_run_time = {
            use.use.node: 1 - use.use.input_index
            for tensor in plan.changes
            for use in tensor.uses
            if use.form is Form.INTEGER_MATMUL and use.use is not None
        }
        return cls(made, entering, at_run_time)
