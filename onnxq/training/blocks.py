"""Cutting a graph where a single float tensor passes from what is before to what is behind."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch

from onnxq.training.interpreter import place_feeds, run_steps
from onnxq.training.operators.fused import fake_quantize_pair
from onnxq.training.program import Block, Program, Step, Values
from onnxq.training.quantities import (
    IntegerBias,
    IntegerWeight,
    ProductScale,
    Quantities,
    Quantity,
    RepeatedScale,
)
from onnxq.training.tensors import Array


@dataclass(frozen=True)
class Segment:
    """The steps between two cuts.

    Attributes:
        steps: in order.
        inputs: what they read of the steps before.
        output: the one float tensor that passes the cut behind.
        passed: all that the steps behind read of this segment and of those before.
        target: name of the same tensor in the float model.
    """

    steps: tuple[Step, ...]
    inputs: tuple[ir.Value, ...]
    output: ir.Value
    passed: tuple[ir.Value, ...]
    target: str


def cut_program(
    program: Program, feeds: Mapping[str, Array], parameters: Values, known: Collection[str]
) -> tuple[Segment, ...]:
    """Segments that cover the graph, each with something to train in it.

    Args:
        program: of the quantized graph.
        feeds: of one sample, to see which tensors are floats.
        parameters: what is trained.
        known: names of tensors in the float model.
    """
    floats = _find_floats(program, feeds, parameters)
    active, passive = _divide(program)
    segments: list[Segment] = []
    seen: set[ir.Value] = set()
    begin = 0
    inputs: tuple[ir.Value, ...] = ()
    for end, live in _iterate_live(active, program.block.outputs):
        crossing = [value for value in live if value in floats]
        # A pair belongs to what is before it: what crosses is then what the next layer reads.
        is_before_pair = end < len(active) and active[end].operator is fake_quantize_pair
        if len(crossing) != 1 or is_before_pair:
            continue
        target = find_target(crossing[0], known)
        part = _add_needed(active[begin:end], passive)
        fresh = {value for step in part for value in step.reads & program.trained} - seen
        if target is None or not fresh:
            continue
        seen |= fresh
        passed = tuple(sorted(live, key=lambda value: value.name or ""))
        segments.append(Segment(part, inputs, crossing[0], passed, target))
        begin, inputs = end, passed
    return tuple(segments)


def _divide(program: Program) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """Steps that depend on an input, and those that compute weights only, each in order."""
    dependent = set(program.inputs)
    active, passive = [], []
    for step in program.block.steps:
        if step.reads & dependent:
            dependent |= set(step.outputs)
            active.append(step)
        else:
            passive.append(step)
    return tuple(active), tuple(passive)


def _add_needed(part: Sequence[Step], passive: Sequence[Step]) -> tuple[Step, ...]:
    """Steps with those before them that compute their weights."""
    needed = {value for step in part for value in step.reads}
    found = []
    for step in reversed(passive):
        if needed & set(step.outputs):
            needed |= step.reads
            found.append(step)
    return (*reversed(found), *part)


def _find_floats(
    program: Program, feeds: Mapping[str, Array], parameters: Values
) -> frozenset[ir.Value]:
    values: Values = {**program.constants, **parameters, **place_feeds(program, feeds)}
    found: set[ir.Value] = set()
    with torch.no_grad():
        for step in program.block.steps:
            run_steps((step,), values, program.device, frozenset(step.outputs))
            found |= {
                value
                for value in step.outputs
                if value in values and values[value].is_floating_point()
            }
            for value in step.last_uses:
                values.pop(value, None)
    return frozenset(found)


def _iterate_live(
    steps: Sequence[Step], outputs: Sequence[ir.Value]
) -> Iterable[tuple[int, set[ir.Value]]]:
    """After each step: what was made so far and is read later, outputs of the graph included."""
    needed: list[set[ir.Value]] = [set(outputs)]
    for step in reversed(steps):
        needed.append((needed[-1] - set(step.outputs)) | step.reads)
    made: set[ir.Value] = set()
    for end, step in enumerate(steps, start=1):
        made |= set(step.outputs)
        yield end, made & needed[len(steps) - end]


def find_target(value: ir.Value, known: Collection[str]) -> str | None:
    """The name that a tensor has in the float model; behind a pair, that of what is quantized."""
    names = [value.name or ""]
    names.append(names[0].removesuffix("_dq"))
    producer = value.producer()
    while producer is not None and producer.op_type in ("DequantizeLinear", "Clip"):
        source = producer.inputs[0]
        producer = None if source is None else source.producer()
    if producer is not None and producer.op_type == "QuantizeLinear" and producer.inputs[0]:
        names.append(producer.inputs[0].name or "")
    return next((name for name in names if name in known), None)


def make_part(program: Program, segment: Segment) -> Program:
    """A segment as a program of its own."""
    read = {value for step in segment.steps for value in step.reads}
    inputs = tuple(dict.fromkeys((*program.inputs, *segment.inputs)))
    outputs = (segment.output, *(one for one in segment.passed if one is not segment.output))
    constants = {value: one for value, one in program.constants.items() if value in read}
    kept = frozenset(outputs)
    steps = tuple(_keep(step, kept) for step in segment.steps)
    return Program(Block(steps, outputs), inputs, constants, program.trained & read, program.device)


def _keep(step: Step, kept: frozenset[ir.Value]) -> Step:
    last_uses = tuple(value for value in step.last_uses if value not in kept)
    return Step(
        step.node, step.operator, step.call, step.inputs, step.outputs, step.branches, last_uses
    )


def choose_quantities(quantities: Quantities, wanted: Collection[ir.Value]) -> tuple[Quantity, ...]:
    """Those of ``wanted`` values and what they are computed from, in their order."""
    by_value = {one.value: one for one in quantities.all}
    found: set[ir.Value] = set()
    waiting = [value for value in wanted if value in by_value]
    while waiting:
        value = waiting.pop()
        if value not in found:
            found.add(value)
            waiting += [one for one in _sources(by_value[value]) if one in by_value]
    return tuple(one for one in quantities.all if one.value in found)


def _sources(quantity: Quantity) -> Sequence[ir.Value]:
    if isinstance(quantity, RepeatedScale):
        return (quantity.source,)
    if isinstance(quantity, ProductScale):
        return quantity.activation, quantity.weight
    if isinstance(quantity, IntegerBias):
        return (quantity.scale,)
    if isinstance(quantity, IntegerWeight) and quantity.scale is not None:
        return (quantity.scale.value,)
    return ()
