"""Layers whose weight and bias can be chosen with data: products of activations and a constant."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.algorithms.recipe import BiasPlace
from onnxq.algorithms.rows import Window, read_window, take_convolution_rows
from onnxq.graph.attributes import float_attribute, has_reference, int_attribute, is_set
from onnxq.graph.constants import constant_tensor, dimensions, release
from onnxq.numerics.affine import Array
from onnxq.plan import Plan, TensorPlan
from onnxq.plan.statistics import read_real
from onnxq.rules.calibrated import clip_bounds

TRANSPOSED = "ConvTranspose"

_OPERATORS = frozenset({"Conv", TRANSPOSED, "Gemm", "MatMul"})

Keep = Callable[[int], Array]
"""Of how many rows there are, the positions of those to keep."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer in the main graph.

    With its weight as a matrix for each of ``groups`` groups of channels, it computes, for each of
    its input rows, ``y = W x + b``. A transposed convolution has a row of W for each output channel
    and element of the kernel; it adds up what the rows give where they overlap, but each is rounded
    as if it were an output of its own.

    Attributes:
        node: in the float model.
        weight: what the plan makes of the weight.
        groups: of a convolution; 1 for a matrix product.
        window: of a convolution; None for a matrix product.
        bias_place: where its bias is read, or can be added; None if it can have none.
        bounds: limits of the Relu or Clip that alone reads it; None if there is none.
    """

    node: ir.Node
    weight: TensorPlan
    groups: int
    window: Window | None
    bias_place: BiasPlace | None
    bounds: tuple[float, float] | None

    @property
    def input(self) -> ir.Value:
        """What it multiplies."""
        value = self.node.inputs[0]
        if value is None:
            raise ValueError(f"node '{self.node.name}' reads nothing")
        return value

    @property
    def channels(self) -> int:
        """Of its output."""
        if self.is_transposed:
            return self.groups * self.weight.shape[1]
        return self.weight.shape[0] if self._is_output_first else self.weight.shape[1]

    @property
    def is_transposed(self) -> bool:
        """Whether it is a transposed convolution."""
        return self.node.op_type == TRANSPOSED

    @property
    def _is_output_first(self) -> bool:
        return self.node.op_type == "Conv" or is_set(self.node, "transB")

    @property
    def _kernel(self) -> int:
        """Elements of the kernel that have rows of their own."""
        return math.prod(self.weight.shape[2:]) if self.is_transposed else 1

    @property
    def matrices_shape(self) -> tuple[int, int, int]:
        """Of the weight as matrices: groups, rows a group, inputs."""
        rows = self.channels * self._kernel
        return self.groups, rows // self.groups, math.prod(self.weight.shape) // rows

    def read_weight(self) -> Array:
        """The float weight as matrices; shape [groups, rows a group, inputs]."""
        tensor = self.weight.constant.tensor
        matrices = self.to_matrices(np.array(read_real(tensor)))
        release(tensor)
        return matrices

    def to_matrices(self, weight: Array) -> Array:
        """A weight, in the axes of the model, as matrices."""
        groups, rows, inputs = self.matrices_shape
        if self.is_transposed:
            return weight.reshape(groups, inputs, rows).transpose(0, 2, 1)
        ordered = weight if self._is_output_first else weight.T
        return ordered.reshape(groups, rows, inputs)

    def from_matrices(self, matrices: Array) -> Array:
        """Matrices as a weight in the axes of the model."""
        if self.is_transposed:
            return np.ascontiguousarray(matrices.transpose(0, 2, 1)).reshape(self.weight.shape)
        if self._is_output_first:
            return matrices.reshape(self.weight.shape)
        return np.ascontiguousarray(matrices.reshape(self.channels, -1).T)

    @property
    def order_of_sums(self) -> Array:
        """Positions of the inputs of a matrix in the order in which integer kernels add them up."""
        if self.window is None:
            return np.arange(self.weight.shape[0 if not self._is_output_first else 1])
        shape = self.weight.shape[1:]
        positions = np.arange(int(np.prod(shape))).reshape(shape)
        return np.moveaxis(positions, 0, -1).reshape(-1)

    def spread_channels(self, numbers: Array) -> Array:
        """One number for each scale of the weight, or one for all, as [groups, rows, 1]."""
        flat = numbers.reshape(-1)
        if flat.size == 1:
            return np.broadcast_to(flat, (self.groups, self.matrices_shape[1], 1))
        if self.is_transposed:
            # The groups share the scales.
            return np.broadcast_to(
                np.repeat(flat, self._kernel)[:, None], (self.groups, flat.size * self._kernel, 1)
            )
        return flat.reshape(self.groups, -1, 1)

    def sum_rows(self, outputs: Array) -> Array:
        """What the rows of a transposed convolution give, as the mean of its output channels.

        Args:
            outputs: a number for each row, shape [groups times rows].

        Returns:
            Shape [channels]; at the borders, where fewer rows overlap, it is not exact.
        """
        strides = self.node.attributes.get("strides")
        places = math.prod(strides.as_ints()) if strides is not None else 1
        total: Array = outputs.reshape(self.channels, self._kernel).sum(axis=1) / places
        return total

    def read_bias(self) -> Array:
        """The float bias; zeros where there is none."""
        if self.bias_place is not None:
            node, index = self.bias_place
            tensor = constant_tensor(node.inputs[index]) if index < len(node.inputs) else None
            if tensor is not None:
                return np.array(tensor.numpy()).reshape(-1)
        return np.zeros(self.channels, np.float32)

    def take_rows(self, activation: Array, keep: Keep) -> Array:
        """What the layer multiplies by its matrices, at some places of its output.

        Args:
            activation: its input.
            keep: chooses the places.

        Returns:
            Shape [groups, rows, inputs].
        """
        if self.window is not None:
            return take_convolution_rows(activation, self.window, self.groups, keep)
        if self.is_transposed:
            places = np.moveaxis(activation, 1, -1).reshape(-1, activation.shape[1])
            kept = places[keep(places.shape[0])].reshape(-1, *self.matrices_shape[::2])
            return np.ascontiguousarray(kept.transpose(1, 0, 2))
        rows = activation.reshape(-1, activation.shape[-1])
        return np.ascontiguousarray(rows[keep(rows.shape[0])])[None]


def find_layers(plan: Plan, graph: ir.Graph) -> Iterator[Layer]:
    """Layers of ``graph`` with a weight of integers that nothing else reads, in graph order."""
    weights = {
        reader: tensor
        for tensor in plan.changes
        if (reader := _only_reader(tensor)) is not None and reader.op_type in _OPERATORS
    }
    for node in graph:
        if node in weights and _can_tune(node, weights[node]):
            yield Layer(
                node=node,
                weight=weights[node],
                groups=_count_groups(node),
                window=read_window(node) if node.op_type == "Conv" else None,
                bias_place=_find_bias(node, weights[node]),
                # What is clipped is a sum of several rows.
                bounds=None if node.op_type == TRANSPOSED else _find_bounds(node),
            )


def _count_groups(node: ir.Node) -> int:
    return int_attribute(node, "group", 1) if node.op_type in ("Conv", TRANSPOSED) else 1


def _only_reader(tensor: TensorPlan) -> ir.Node | None:
    scheme = tensor.scheme
    if len(tensor.uses) != 1 or scheme is None or scheme.type.is_half or scheme.block_size:
        return None
    use = tensor.uses[0].use
    if use is None or use.transposed or use.input_index != 1 or tensor.statistics is None:
        return None
    return use.node


def _can_tune(node: ir.Node, weight: TensorPlan) -> bool:
    if weight.dtype != "float" or node.domain or weight.constant.overridable:
        return False
    read = node.inputs[0]
    if read is None or read.const_value is not None:
        return False  # no sample feeds it, and neither does a node
    if node.op_type == "Conv":
        return read_window(node) is not None
    if node.op_type == TRANSPOSED:
        return not has_reference(node)
    if len(weight.shape) != 2:
        return False
    return node.op_type == "MatMul" or (
        not is_set(node, "transA")
        and float_attribute(node, "alpha", 1.0) == 1.0
        and float_attribute(node, "beta", 1.0) == 1.0
    )


def _find_bias(node: ir.Node, weight: TensorPlan) -> BiasPlace | None:
    """The third input of the layer, also where it has none yet, or the Add behind a MatMul."""
    if node.op_type == TRANSPOSED:
        channels = _count_groups(node) * weight.shape[1]
    else:
        is_first = node.op_type == "Conv" or is_set(node, "transB")
        channels = weight.shape[0 if is_first else 1]
    if node.op_type != "MatMul":
        value = node.inputs[2] if len(node.inputs) > 2 else None
        return (node, 2) if value is None or _is_vector(value, channels) else None
    uses = node.outputs[0].uses()
    if len(uses) != 1 or node.outputs[0].is_graph_output():
        return None
    reader, index = next(iter(uses))
    if reader.op_type != "Add" or reader.domain or reader.graph is not node.graph:
        return None
    return (reader, 1 - index) if _is_vector(reader.inputs[1 - index], channels) else None


def _is_vector(value: ir.Value | None, size: int) -> bool:
    tensor = constant_tensor(value)
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or dimensions(tensor) != (size,):
        return False
    # A mask of infinities behind a product is no bias that could be corrected.
    return bool(np.isfinite(tensor.numpy()).all())


def _find_bounds(node: ir.Node) -> tuple[float, float] | None:
    uses = node.outputs[0].uses()
    if len(uses) != 1 or node.outputs[0].is_graph_output():
        return None
    return clip_bounds(next(iter(uses))[0])
