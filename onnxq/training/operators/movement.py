"""Operators that move elements and change none."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from onnxq.training.operators.call import Call, Inputs, Operator, Outputs, optional, pointwise
from onnxq.training.tensors import to_integers


def _reshape(call: Call, inputs: Inputs) -> Outputs:
    value, wanted = inputs
    sizes = to_integers(wanted)
    if not call.integer("allowzero", 0):
        sizes = [value.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return (value.reshape(sizes),)


def _flatten(call: Call, inputs: Inputs) -> Outputs:
    (value,) = inputs
    axis = call.integer("axis", 1)
    axis += value.dim() if axis < 0 else 0
    rows = 1
    for size in value.shape[:axis]:
        rows *= size
    return (value.reshape(rows, -1) if value.numel() else value.reshape(rows, 0),)


def _axes(call: Call, inputs: Inputs) -> list[int] | None:
    given = optional(inputs, 1)
    return call.integers("axes") if given is None else to_integers(given)


def _squeeze(call: Call, inputs: Inputs) -> Outputs:
    value, axes = inputs[0], _axes(call, inputs)
    return (value.squeeze() if axes is None else value.squeeze(tuple(axes)),)


def _unsqueeze(call: Call, inputs: Inputs) -> Outputs:
    value, axes = inputs[0], _axes(call, inputs) or []
    rank = value.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        value = value.unsqueeze(axis)
    return (value,)


def _transpose(call: Call, inputs: Inputs) -> Outputs:
    (value,) = inputs
    return (value.permute(call.integers("perm") or list(range(value.dim()))[::-1]),)


def _concat(call: Call, inputs: Inputs) -> Outputs:
    return (torch.cat(list(inputs), dim=call.integer("axis", 0)),)


def _split(call: Call, inputs: Inputs) -> Outputs:
    value, given = inputs[0], optional(inputs, 1)
    axis = call.integer("axis", 0)
    sizes = call.integers("split") if given is None else to_integers(given)
    if sizes is None:
        parts = call.integer("num_outputs", call.outputs)
        sizes = [-(-value.shape[axis] // parts)] * parts
        sizes[-1] = value.shape[axis] - sum(sizes[:-1])
    return tuple(torch.split(value, sizes, dim=axis))


def _slice(call: Call, inputs: Inputs) -> Outputs:
    value = inputs[0]
    if call.opset < 10:
        starts, ends = call.integers("starts") or [], call.integers("ends") or []
        axes, steps = call.integers("axes"), None
    else:
        starts, ends = to_integers(inputs[1]), to_integers(inputs[2])
        axes = None if optional(inputs, 3) is None else to_integers(inputs[3])
        steps = None if optional(inputs, 4) is None else to_integers(inputs[4])
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        value = _slice_axis(value, axis, start, end, step)
    return (value,)


def _slice_axis(value: torch.Tensor, axis: int, start: int, end: int, step: int) -> torch.Tensor:
    size = value.shape[axis]
    first, last, _ = slice(start, end, step).indices(size)
    if step == 1:
        return value.narrow(axis, first, max(0, last - first))
    # The largest negative end means: down to the first element, included.
    chosen = torch.arange(first, last, step) if (last - first) * step > 0 else torch.arange(0)
    return value.index_select(axis, chosen.to(value.device))


def _gather(call: Call, inputs: Inputs) -> Outputs:
    value, indices = inputs
    axis = call.integer("axis", 0) % max(1, value.dim())
    numbers = indices.to(torch.int64)
    numbers = torch.where(numbers < 0, numbers + value.shape[axis], numbers).to(value.device)
    found = value.index_select(axis, numbers.reshape(-1))
    return (found.reshape([*value.shape[:axis], *indices.shape, *value.shape[axis + 1 :]]),)


def _gather_elements(call: Call, inputs: Inputs) -> Outputs:
    value, indices = inputs
    axis = call.integer("axis", 0)
    numbers = torch.where(indices < 0, indices + value.shape[axis], indices)
    return (torch.gather(value, axis, numbers.to(torch.int64).to(value.device)),)


def _gather_nd(call: Call, inputs: Inputs) -> Outputs:
    value, indices = inputs
    batch = call.integer("batch_dims", 0)
    lead = value.shape[:batch]
    rows = 1
    for size in lead:
        rows *= size
    flat = value.reshape(rows, *value.shape[batch:])
    places = indices.reshape(rows, -1, indices.shape[-1]).to(torch.int64).to(value.device)
    row = torch.arange(rows, device=value.device)[:, None].expand(places.shape[:2])
    found = flat[(row, *places.unbind(-1))]
    return (found.reshape([*indices.shape[:-1], *found.shape[2:]]),)


def _scatter_elements(call: Call, inputs: Inputs) -> Outputs:
    value, indices, updates = inputs
    axis, reduction = call.integer("axis", 0), call.text("reduction", "none")
    numbers = torch.where(indices < 0, indices + value.shape[axis], indices).to(torch.int64)
    numbers = numbers.to(value.device)
    if reduction == "none":
        return (value.scatter(axis, numbers, updates),)
    kind = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}[reduction]
    return (value.scatter_reduce(axis, numbers, updates, kind),)


def _scatter_nd(call: Call, inputs: Inputs) -> Outputs:
    value, indices, updates = inputs
    reduction = call.text("reduction", "none")
    places = tuple(indices.to(torch.int64).to(value.device).unbind(-1))
    if reduction not in ("none", "add"):
        raise ValueError(f"ScatterND with reduction {reduction}")
    return (value.index_put(places, updates, accumulate=reduction == "add"),)


def _expand(_call: Call, inputs: Inputs) -> Outputs:
    value, wanted = inputs
    sizes = torch.broadcast_shapes(value.shape, tuple(to_integers(wanted)))
    return (value.expand(sizes),)


def _tile(_call: Call, inputs: Inputs) -> Outputs:
    return (inputs[0].repeat(to_integers(inputs[1])),)


def _depth_to_space(call: Call, inputs: Inputs) -> Outputs:
    (value,) = inputs
    block = call.integer("blocksize", 1)
    count, depth, height, width = value.shape
    if call.text("mode", "DCR") == "DCR":
        parts = value.reshape(count, block, block, depth // block**2, height, width)
        parts = parts.permute(0, 3, 4, 1, 5, 2)
    else:
        parts = value.reshape(count, depth // block**2, block, block, height, width)
        parts = parts.permute(0, 1, 4, 2, 5, 3)
    return (parts.reshape(count, depth // block**2, height * block, width * block),)


def _space_to_depth(call: Call, inputs: Inputs) -> Outputs:
    (value,) = inputs
    block = call.integer("blocksize", 1)
    count, depth, height, width = value.shape
    parts = value.reshape(count, depth, height // block, block, width // block, block)
    parts = parts.permute(0, 3, 5, 1, 2, 4)
    return (parts.reshape(count, depth * block**2, height // block, width // block),)


def _drop_out(call: Call, inputs: Inputs) -> Outputs:
    value = inputs[0]
    if call.outputs == 1:
        return (value,)
    return value, torch.ones_like(value, dtype=torch.bool)


OPERATORS: Mapping[str, Operator] = {
    "Identity": pointwise(lambda value: value),
    "Dropout": _drop_out,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "Expand": _expand,
    "Tile": _tile,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}
