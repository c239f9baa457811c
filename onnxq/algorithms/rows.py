"""What a convolution multiplies by its weight, as the rows of a matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxq.graph.attributes import has_reference
from onnxq.graph.constants import constant_tensor, dimensions
from onnxq.numerics.affine import Array


@dataclass(frozen=True)
class Window:
    """How a convolution moves over its input; one number for each axis of space.

    Attributes:
        kernel: elements of the kernel.
        strides: steps between places.
        dilations: steps between elements of the kernel.
        pads: zeros before and behind, or None where they follow from the size of the input.
        is_padded_before: where pads follow from the size, whether an odd one goes before.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...] | None
    is_padded_before: bool = False

    @property
    def extents(self) -> tuple[int, ...]:
        """Elements of the input that the kernel spans."""
        pairs = zip(self.kernel, self.dilations, strict=True)
        return tuple((size - 1) * dilation + 1 for size, dilation in pairs)

    def pads_for(self, sizes: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        """Zeros before and behind an input of such sizes."""
        if self.pads is not None:
            return self.pads
        found = []
        for size, stride, extent in zip(sizes, self.strides, self.extents, strict=True):
            total = max(0, (math.ceil(size / stride) - 1) * stride + extent - size)
            fewer, more = total // 2, total - total // 2
            found.append((more, fewer) if self.is_padded_before else (fewer, more))
        return tuple(found)


def read_window(node: ir.Node) -> Window | None:
    """The window of a Conv with a constant weight; None where attributes are not known."""
    tensor = constant_tensor(node.inputs[1])
    if tensor is None or has_reference(node):
        return None
    kernel = dimensions(tensor)[2:]
    ones = (1,) * len(kernel)
    attribute = node.attributes.get("auto_pad")
    automatic = "NOTSET" if attribute is None else attribute.as_string()
    pads: tuple[tuple[int, int], ...] | None
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        pads = None
    elif automatic == "VALID":
        pads = ((0, 0),) * len(kernel)
    else:
        flat = _integers(node, "pads", (0,) * (2 * len(kernel)))
        pads = tuple(zip(flat[: len(kernel)], flat[len(kernel) :], strict=True))
    return Window(
        kernel,
        _integers(node, "strides", ones),
        _integers(node, "dilations", ones),
        pads,
        automatic == "SAME_LOWER",
    )


def take_convolution_rows(
    activation: Array, window: Window, groups: int, keep: Callable[[int], Array]
) -> Array:
    """Patches of an activation at some places of the output (im2col).

    Args:
        activation: shape [batch, channels, *space].
        window: of the convolution.
        groups: of its channels.
        keep: of how many places there are, the positions of those to take.

    Returns:
        Shape [groups, places, inputs of a group]; inputs in the order of the weight.
    """
    space = activation.shape[2:]
    pads = window.pads_for(space)
    places = [
        max(0, (size + sum(pad) - extent) // stride + 1)
        for size, pad, extent, stride in zip(
            space, pads, window.extents, window.strides, strict=True
        )
    ]
    shape = (activation.shape[0], *places)
    batch, *where = np.unravel_index(keep(math.prod(shape)), shape)
    axes = len(space)
    index: list[Any] = [_spread(batch, None, axes)]
    inside = np.ones((batch.size, *window.kernel, 1), np.bool_)
    for axis, position in enumerate(where):
        first = position * window.strides[axis] - pads[axis][0]
        steps = np.arange(window.kernel[axis]) * window.dilations[axis]
        read = _spread(first[:, None] + steps, axis, axes)
        inside &= ((read >= 0) & (read < space[axis]))[..., None]
        index.append(np.clip(read, 0, max(0, space[axis] - 1)))
    # Channels last, as their axis is the only one that is not indexed.
    patches = np.moveaxis(activation, 1, -1)[tuple(index)]
    if not inside.all():
        patches = np.where(inside, patches, activation.dtype.type(0))
    # Counted, as an empty activation has no number of inputs to be found.
    inputs = math.prod((*window.kernel, activation.shape[1])) // groups
    rows = np.moveaxis(patches, -1, 1).reshape(batch.size, groups, inputs)
    return np.ascontiguousarray(rows.transpose(1, 0, 2))


def _spread(positions: Array, axis: int | None, axes: int) -> Array:
    """Positions with an axis for each of space: of one number a place, or those along ``axis``."""
    shape = [positions.shape[0], *([1] * axes)]
    if axis is not None:
        shape[1 + axis] = positions.shape[1]
    return positions.reshape(shape)


def _integers(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    attribute = node.attributes.get(name)
    return default if attribute is None else tuple(attribute.as_ints())
