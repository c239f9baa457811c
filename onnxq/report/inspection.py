"""What is in a model file, and what a mode would do with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxq.errors import UsageError
from onnxq.graph.constants import FLOAT_TYPES, iterate_constants
from onnxq.graph.files import ModelFile, load_model
from onnxq.graph.scopes import iterate_scopes
from onnxq.pipelines import (
    Planner,
    adapt_target,
    note_products,
    plan_with_opset,
    prepare_model,
)
from onnxq.plan import (
    DynamicOptions,
    Plan,
    Selection,
    StaticOptions,
    plan_dynamic,
    plan_static,
)
from onnxq.rules.quantized import find_quantization
from onnxq.runtime.damage import explain_damage
from onnxq.targets import Target


@dataclass(frozen=True)
class Edge:
    """An input or output of the model."""

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None

    def __str__(self) -> str:
        sizes = "unknown shape" if self.shape is None else ", ".join(map(str, self.shape))
        return f"{self.name}: {self.dtype}[{sizes}]"


@dataclass(frozen=True)
class WeightGroup:
    """The float constants that one type of operator reads."""

    operator: str
    tensors: int
    elements: int
    size_bytes: int


@dataclass(frozen=True)
class Inspection:
    """What ``onnxq inspect`` prints.

    Attributes:
        path: of the model.
        size_bytes: external data included.
        ir_version: of the file.
        opsets: version of each operator set.
        producer: who exported it.
        inputs: of the main graph.
        outputs: of the main graph.
        operators: how often each type occurs, in all bodies.
        weights: float constants by the operator that reads them first.
        quantized: what shows that the model is quantized already, or None.
        plan: the plan, where one was asked for.
        notes: what a user should know of the processor that the plan is for.
    """

    path: Path
    size_bytes: int
    ir_version: int
    opsets: dict[str, int]
    producer: str
    inputs: tuple[Edge, ...]
    outputs: tuple[Edge, ...]
    operators: dict[str, int]
    weights: tuple[WeightGroup, ...]
    quantized: str | None
    plan: Plan | None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "schema_version": 1,
            "path": str(self.path),
            "size_bytes": self.size_bytes,
            "ir_version": self.ir_version,
            "opsets": self.opsets,
            "producer": self.producer,
            "inputs": [vars(edge) for edge in self.inputs],
            "outputs": [vars(edge) for edge in self.outputs],
            "operators": self.operators,
            "weights": [vars(group) for group in self.weights],
            "quantized": self.quantized,
            "notes": list(self.notes),
            "plan": None if self.plan is None else self.plan.to_json(),
        }


def _plan_dynamic(target: Target, model: ir.Model, selection: Selection) -> Plan:
    return plan_dynamic(model, target, DynamicOptions(), selection)


def _plan_static(target: Target, model: ir.Model, selection: Selection) -> Plan:
    return plan_static(model, target, StaticOptions(), selection)


PLANNERS: Mapping[str, Callable[[Target], Planner]] = {
    "dynamic": lambda target: partial(_plan_dynamic, target),
    "static": lambda target: partial(_plan_static, target),
}


def inspect_model(path: Path, *, plan: str | None, target: Target) -> Inspection:
    """Read a model and describe it.

    Args:
        path: of the model.
        plan: the mode to plan, or None.
        target: to plan for.

    Raises:
        ModelError: the model cannot be read, or planned.
        UsageError: there is no such mode.
    """
    if plan is not None and plan not in PLANNERS:
        raise UsageError(f"--plan {plan}: unknown mode; known modes: {', '.join(PLANNERS)}")
    file = load_model(path)
    inspection = _inspect(file)
    if plan is None or inspection.quantized is not None:
        return inspection
    options, target = DynamicOptions(), adapt_target(target)
    with explain_damage(path):
        selection = prepare_model(file.model, options, keep_metadata=True)
        decided = plan_with_opset(file, target, PLANNERS[plan](target), selection)[1]
    return replace(inspection, plan=decided, notes=note_products(decided, None, target))


def _inspect(file: ModelFile) -> Inspection:
    model = file.model
    operators = Counter(node.op_type for scope in iterate_scopes(model) for node in scope.graph)
    return Inspection(
        path=file.path,
        size_bytes=file.size_bytes,
        ir_version=model.ir_version,
        opsets={domain or "ai.onnx": number for domain, number in model.opset_imports.items()},
        producer=" ".join(filter(None, (model.producer_name, model.producer_version))),
        inputs=tuple(
            _describe(value) for value in model.graph.inputs if not value.is_initializer()
        ),
        outputs=tuple(_describe(value) for value in model.graph.outputs),
        operators=dict(operators.most_common()),
        weights=_group_weights(model),
        quantized=find_quantization(model),
        plan=None,
    )


def _describe(value: ir.Value) -> Edge:
    shape = None
    if value.shape is not None:
        shape = tuple(size if isinstance(size, int) else str(size) for size in value.shape)
    dtype = "?" if value.dtype is None else value.dtype.name.lower()
    return Edge(value.name or "?", dtype, shape)


def _group_weights(model: ir.Model) -> tuple[WeightGroup, ...]:
    groups: dict[str, list[int]] = {}
    for constant in iterate_constants(model):
        uses = constant.uses
        if constant.tensor.dtype not in FLOAT_TYPES or not uses:
            continue
        totals = groups.setdefault(uses[0].node.op_type, [0, 0, 0])
        totals[0] += 1
        totals[1] += constant.tensor.size
        totals[2] += constant.tensor.nbytes
    largest_first = sorted(groups.items(), key=lambda item: (-item[1][2], item[0]))
    return tuple(WeightGroup(operator, *totals) for operator, totals in largest_first)
