"""LSTM, GRU and RNN, one step after the other so that gradients reach every weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from onnxq.training.operators.call import (
    Call,
    Inputs,
    Operator,
    Outputs,
    UnsupportedFormError,
    optional,
)

Function = Callable[[torch.Tensor], torch.Tensor]
State = tuple[torch.Tensor, ...]
Step = Callable[[torch.Tensor, State], State]

_FUNCTIONS: Mapping[str, Function] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
}


@dataclass(frozen=True)
class Direction:
    """What one direction of a recurrent layer computes with.

    Attributes:
        projected: inputs times weights, bias added; [steps, batch, gates * hidden].
        recurrent: weights of the state, [gates * hidden, hidden].
        recurrent_bias: of the state, [gates * hidden].
        peephole: [3 * hidden], or None.
        functions: the activation functions, in the order of ONNX.
    """

    projected: torch.Tensor
    recurrent: torch.Tensor
    recurrent_bias: torch.Tensor
    peephole: torch.Tensor | None
    functions: list[Function]


def _functions(call: Call, defaults: list[str], directions: int) -> list[list[Function]]:
    names = call.attributes.get("activations") or defaults * directions
    try:
        found = [_FUNCTIONS[str(name).lower()] for name in names]
    except KeyError as error:
        raise UnsupportedFormError(f"{call.operator} with activation {error.args[0]}") from error
    size = len(defaults)
    return [found[at : at + size] for at in range(0, size * directions, size)]


def _run(
    step: Step, projected: torch.Tensor, state: State, lengths: torch.Tensor | None, reverse: bool
) -> tuple[torch.Tensor, State]:
    """Every step in order; the outputs of all, and the state after the last one of each row."""
    steps = projected.shape[0]
    outputs: list[torch.Tensor] = [projected] * steps
    for at in reversed(range(steps)) if reverse else range(steps):
        new = step(projected[at], state)
        if lengths is None:
            state = new
            outputs[at] = new[0]
            continue
        active = (at < lengths).to(projected.device)[:, None]
        state = tuple(torch.where(active, a, b) for a, b in zip(new, state, strict=True))
        outputs[at] = torch.where(active, new[0], torch.zeros_like(new[0]))
    return torch.stack(outputs), state


def _lstm_step(direction: Direction, call: Call, hidden: int) -> Step:
    f, g, h = direction.functions
    peephole = direction.peephole
    weight, bias = direction.recurrent.t(), direction.recurrent_bias
    coupled, limit = call.integer("input_forget", 0), call.number("clip", 0.0)

    def bound(value: torch.Tensor) -> torch.Tensor:
        return value.clamp(-limit, limit) if limit else value

    def step(given: torch.Tensor, state: State) -> State:
        gates = given + torch.addmm(bias, state[0], weight)
        i, o, forget, c = gates.split(hidden, dim=1)
        if peephole is not None:
            p_i, p_o, p_f = peephole.split(hidden)
            i, forget = i + p_i * state[1], forget + p_f * state[1]
        i = f(bound(i))
        forget = 1 - i if coupled else f(bound(forget))
        cell = forget * state[1] + i * g(bound(c))
        if peephole is not None:
            o = o + p_o * cell
        return f(bound(o)) * h(cell), cell

    return step


def _gru_step(direction: Direction, call: Call, hidden: int) -> Step:
    f, g = direction.functions
    limit = call.number("clip", 0.0)
    weight, bias = direction.recurrent.t(), direction.recurrent_bias
    inside = call.integer("linear_before_reset", 0)

    def bound(value: torch.Tensor) -> torch.Tensor:
        return value.clamp(-limit, limit) if limit else value

    def step(given: torch.Tensor, state: State) -> State:
        (before,) = state
        x_zr, x_h = given[:, : 2 * hidden], given[:, 2 * hidden :]
        if inside:
            gates = torch.addmm(bias, before, weight)
            z, r = f(bound(x_zr + gates[:, : 2 * hidden])).split(hidden, dim=1)
            candidate = x_h + r * gates[:, 2 * hidden :]
        else:
            gates = torch.addmm(bias[: 2 * hidden], before, weight[:, : 2 * hidden])
            z, r = f(bound(x_zr + gates)).split(hidden, dim=1)
            product = (r * before) @ weight[:, 2 * hidden :]
            candidate = x_h + product + bias[2 * hidden :]
        return ((1 - z) * g(bound(candidate)) + z * before,)

    return step


def _rnn_step(direction: Direction, call: Call, _hidden: int) -> Step:
    (f,) = direction.functions
    limit = call.number("clip", 0.0)
    weight, bias = direction.recurrent.t(), direction.recurrent_bias

    def step(given: torch.Tensor, state: State) -> State:
        total = given + torch.addmm(bias, state[0], weight)
        return (f(total.clamp(-limit, limit) if limit else total),)

    return step


@dataclass(frozen=True)
class _Cell:
    """A kind of recurrent layer."""

    make: Callable[[Direction, Call, int], Step]
    gates: int
    functions: list[str]
    states: int


_LSTM = _Cell(_lstm_step, 4, ["Sigmoid", "Tanh", "Tanh"], 2)
_GRU = _Cell(_gru_step, 3, ["Sigmoid", "Tanh"], 1)
_RNN = _Cell(_rnn_step, 1, ["Tanh"], 1)


def _recurrent(cell: _Cell) -> Operator:
    def compute(call: Call, inputs: Inputs) -> Outputs:
        return run_recurrent(cell, call, inputs)

    return compute


def run_recurrent(cell: _Cell, call: Call, inputs: Inputs) -> Outputs:
    """All directions of a layer."""
    value, weight, recurrent = inputs[:3]
    if call.integer("layout", 0):
        raise UnsupportedFormError(f"{call.operator} with layout 1")
    count, hidden = weight.shape[0], recurrent.shape[-1]
    kind = call.text("direction", "forward")
    functions = _functions(call, cell.functions, count)
    outputs, finals = [], []
    for at in range(count):
        direction = _direction(cell, inputs, at, functions[at], hidden)
        state = _initial(cell, inputs, at, value, hidden)
        step = cell.make(direction, call, hidden)
        reverse = kind == "reverse" or at == 1
        output, final = _run(step, direction.projected, state, optional(inputs, 4), reverse)
        outputs.append(output)
        finals.append(final)
    states = tuple(torch.stack([one[at] for one in finals]) for at in range(cell.states))
    return (torch.stack(outputs, dim=1), *states)[: call.outputs]


def _direction(
    cell: _Cell, inputs: Inputs, at: int, functions: list[Function], hidden: int
) -> Direction:
    value, weight, recurrent, bias = inputs[0], inputs[1][at], inputs[2][at], optional(inputs, 3)
    width = cell.gates * hidden
    if bias is None:
        own = torch.zeros(2 * width, dtype=value.dtype, device=value.device)
    else:
        own = bias[at]
    projected = value @ weight.t() + own[:width]
    peepholes: Any = optional(inputs, 7) if cell is _LSTM else None
    peephole = None if peepholes is None else peepholes[at]
    return Direction(projected, recurrent, own[width:], peephole, functions)


def _initial(cell: _Cell, inputs: Inputs, at: int, value: torch.Tensor, hidden: int) -> State:
    zeros = value.new_zeros(value.shape[1], hidden)
    given = [optional(inputs, 5 + index) for index in range(cell.states)]
    return tuple(zeros if one is None else one[at] for one in given)


OPERATORS: Mapping[str, Operator] = {
    "LSTM": _recurrent(_LSTM),
    "GRU": _recurrent(_GRU),
    "RNN": _recurrent(_RNN),
}
