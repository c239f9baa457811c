"""Running a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch

from onnxq.errors import OnnxqError, UnsupportedModelError
from onnxq.training.operators import UnsupportedFormError
from onnxq.training.program import Block, Program, Step, Values
from onnxq.training.tensors import Array, to_torch


def run(
    program: Program,
    feeds: Mapping[str, Array | torch.Tensor],
    parameters: Mapping[ir.Value, torch.Tensor] | None = None,
    *,
    watched: Sequence[ir.Value] = (),
) -> dict[str, torch.Tensor]:
    """The outputs of a graph, by name.

    Args:
        program: the graph.
        feeds: an array for each input, or a tensor where its gradient is wanted.
        parameters: a tensor for each value in ``program.trained``.
        watched: values inside the graph that are wanted, too.

    Raises:
        UnsupportedModelError: a node has a form that the engine lacks.
    """
    values: Values = {**program.constants, **(parameters or {})}
    values.update(place_feeds(program, feeds))
    kept = frozenset(watched)
    run_steps(program.block.steps, values, program.device, kept)
    wanted = (*program.block.outputs, *watched)
    return {value.name or "": values[value] for value in wanted}


def place_feeds(program: Program, feeds: Mapping[str, Array | torch.Tensor]) -> Values:
    """Inputs of a graph as tensors: floats on the device, integers on the CPU.

    Images lie with their channels last, and so does what is computed of them: on the CPU a step of
    EfficientNet-Lite0 then takes three quarters of the time (x86-64 Zen 3, one thread).
    """
    placed = {}
    for value in program.inputs:
        given = feeds[value.name or ""]
        tensor = given if isinstance(given, torch.Tensor) else to_torch(given)
        if tensor.is_floating_point():
            own = program.real if tensor.dtype is torch.float32 else tensor.dtype
            tensor = tensor.to(program.device, own)
            if tensor.dim() == 4:
                tensor = tensor.contiguous(memory_format=torch.channels_last)
        placed[value] = tensor
    return placed


def run_steps(
    steps: Sequence[Step],
    values: Values,
    device: torch.device,
    kept: frozenset[ir.Value] = frozenset(),
) -> None:
    """Run steps in order; each leaves its outputs in ``values`` until nothing reads them more.

    Args:
        steps: of one body.
        values: everything that they read.
        device: where floats are.
        kept: values that stay.

    Raises:
        UnsupportedModelError: a node has a form that the engine lacks.
    """
    for step in steps:
        if step.operator is None:
            results: Sequence[torch.Tensor] = _run_branch(step, values, device, kept)
        else:
            inputs = [None if one is None else values[one] for one in step.inputs]
            if device.type != "cpu":
                _align(inputs, device)
            results = _compute(step, inputs)
        # Optional outputs at the end may be left out by the operator.
        values.update(zip(step.outputs, results, strict=False))
        for value in step.last_uses:
            if value not in kept:
                values.pop(value, None)


def _compute(step: Step, inputs: list[Any]) -> Sequence[torch.Tensor]:
    assert step.operator is not None
    try:
        return step.operator(step.call, inputs)
    except UnsupportedFormError as error:
        raise UnsupportedModelError(f"the training engine lacks {error}{_where(step)}") from error
    except OnnxqError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise NodeError(f"{step.node.op_type} failed{_where(step)}: {error}") from error


class NodeError(Exception):
    """torch could not compute a node; the text says which."""


def _where(step: Step) -> str:
    return f" at node '{step.node.name}'" if step.node.name else ""


def _run_branch(
    step: Step, values: Values, device: torch.device, kept: frozenset[ir.Value]
) -> Sequence[torch.Tensor]:
    condition = step.inputs[0]
    assert condition is not None
    branch: Block = step.branches[0 if bool(values[condition].any()) else 1]
    run_steps(branch.steps, values, device, kept)
    return [values[value] for value in branch.outputs]


def _align(inputs: list[Any], device: torch.device) -> None:
    """Masks beside floats on a device have to be there, too."""
    if not any(one is not None and one.is_floating_point() for one in inputs):
        return
    for at, one in enumerate(inputs):
        if one is not None and (one.dtype is torch.bool or one.is_floating_point()):
            inputs[at] = one.to(device)
