"""Random small models: any mixture of layers, movements, bodies, types and operator sets.

Every choice is one of hypothesis, so that a model that fails gets smaller by itself. Shapes are
known while a model grows; whether the result is valid decides onnxruntime, by running it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.hardening.cases import Case

NEWEST_OPSET = 24
"""The newest that onnxruntime 1.32 runs without a warning."""

DTYPES = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.DOUBLE: np.dtype(np.float64),
    TensorProto.FLOAT16: np.dtype(np.float16),
    TensorProto.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
}
TYPES = (*(TensorProto.FLOAT,) * 17, *DTYPES)
"""Most operators of onnxruntime take float only."""

SIZES = (1, 2, 3, 4, 7, 16, 33, 72, 96)
IR_VERSIONS = ((8, 3), (14, 4), (20, 8), (NEWEST_OPSET, 10))
"""Of exporters, up to an operator set; before 4 every initializer is an input, too."""

MOST_ELEMENTS = 40_000
FILLS = (
    "normal",
    "normal",
    "normal",
    "zeros",
    "ones",
    "outlier",
    "tiny",
    "huge",
    "nan",
    "integers",
)
SOURCES = (
    *("initializer",) * 8,
    *("constant", "shared", "identity", "transposed", "widened") * 2,
    *("overridable", "output", "input"),
)


@dataclass(frozen=True)
class Edge:
    """A tensor of the model under construction."""

    name: str
    shape: tuple[int, ...]

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)


@dataclass
class Body:
    """A graph under construction.

    Attributes:
        draw: of hypothesis.
        opset: of the model.
        type: element type of its floats.
        depth: how many bodies it lies in.
        edges: what a new node can read.
        shared: weights that may be read again.
    """

    draw: Callable[[Any], Any]
    opset: int
    type: int
    depth: int
    names: list[int]
    edges: list[Edge]
    shared: list[Edge]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[Edge] = field(default_factory=list)
    feeds: dict[str, Any] = field(default_factory=dict)

    def name(self, hint: str = "t") -> str:
        """An unused name; some look like those that a quantizer would give."""
        self.names[0] += 1
        suffix = self.draw(
            st.sampled_from(("", "", "", "_quantized", "_scale", "_weight", "/x", "_2"))
        )
        return f"{hint}{self.names[0]}{suffix}"

    def pick(self, rank: int | None = None, least: int = 0) -> Edge | None:
        """An edge of some rank; recent ones more often."""
        found = [
            one for one in self.edges if (rank is None or one.rank == rank) and one.rank >= least
        ]
        if not found:
            return None
        index = self.draw(st.integers(0, len(found) - 1))
        return found[-1 - index]

    def node(
        self, operator: str, inputs: list[str], shape: tuple[int, ...], **attributes: Any
    ) -> Edge:
        """A node with one output."""
        edge = Edge(self.name(operator.lower()), shape)
        named = self.draw(st.booleans())
        self.nodes.append(
            helper.make_node(
                operator,
                inputs,
                [edge.name],
                name=f"/{edge.name}/{operator}" if named else "",
                **attributes,
            )
        )
        return edge

    def keep(self, edge: Edge) -> None:
        """Let later nodes read an edge."""
        self.edges.append(edge)

    def constant(self, array: Any, hint: str = "c") -> str:
        """An initializer or a Constant node."""
        name = self.name(hint)
        if self.draw(st.booleans()):
            self.initializers.append(numpy_helper.from_array(array, name))
        else:
            self.nodes.append(
                helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))
            )
        return name

    def weight(self, shape: tuple[int, ...]) -> str:
        """A float tensor that a layer reads, in one of the ways that exporters know."""
        draw = self.draw
        source = draw(st.sampled_from(SOURCES))
        if source == "shared":
            same = [one.name for one in self.shared if one.shape == shape]
            if same:
                return draw(st.sampled_from(same))
        array = fill(draw, shape).astype(DTYPES[self.type])
        if source == "constant":
            name = self.name("w")
            self.nodes.append(
                helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))
            )
            return self._share(name, shape)
        if source == "transposed" and len(shape) == 2:
            stored = self._initializer(np.ascontiguousarray(array.T))
            return self._share(self.node("Transpose", [stored], shape, perm=[1, 0]).name, shape)
        if source == "identity":
            return self._share(self.node("Identity", [self._initializer(array)], shape).name, shape)
        if source == "widened":
            narrow = draw(st.sampled_from(tuple(DTYPES)))
            with np.errstate(all="ignore"):
                stored = self._initializer(array.astype(DTYPES[narrow]))
            return self._share(self.node("Cast", [stored], shape, to=self.type).name, shape)
        name = self._initializer(array)
        if source in ("overridable", "input") and self.depth == 0:
            self.inputs.append(helper.make_tensor_value_info(name, self.type, shape))
            if source == "input":
                self.initializers.pop()
                self.feeds[name] = array
        if source == "output" and self.depth == 0:
            self.outputs.append(Edge(name, shape))
        return self._share(name, shape)

    def _initializer(self, array: Any) -> str:
        name = self.name("w")
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def _share(self, name: str, shape: tuple[int, ...]) -> str:
        self.shared.append(Edge(name, shape))
        return name


def fill(draw: Callable[[Any], Any], shape: tuple[int, ...]) -> Any:
    """Values of a weight, ordinary and not."""
    rng = np.random.default_rng(draw(st.integers(0, 3)))
    kind = draw(st.sampled_from(FILLS))
    fan_in = max(1, math.prod(shape) // max(1, max(shape, default=1)))
    array = rng.standard_normal(shape) / math.sqrt(fan_in)
    if kind == "zeros":
        array = np.zeros(shape)
    elif kind == "ones":
        array = np.ones(shape)
    elif kind == "integers":
        array = rng.integers(-3, 4, shape).astype(np.float64)
    elif kind == "tiny":
        array = array * 1e-30
    elif kind == "huge":
        array = array * 1e30
    elif array.size and kind == "outlier":
        array.reshape(-1)[-1] = 1000.0
    elif array.size and kind == "nan":
        array.reshape(-1)[0] = draw(st.sampled_from((math.nan, math.inf, -math.inf)))
    return array


def _matmul(body: Body) -> Edge | None:
    x = body.pick(least=1)
    if x is None:
        return None
    columns = body.draw(st.sampled_from(SIZES))
    batch = x.shape[:-2] if body.draw(st.booleans()) and x.rank > 2 else ()
    if body.draw(st.integers(0, 3)):
        w = body.weight((*batch, x.shape[-1], columns))
        return body.node("MatMul", [x.name, w], (*x.shape[:-1], columns))
    if x.rank < 2:
        return None
    w = body.weight((columns, x.shape[-2]))
    return body.node("MatMul", [w, x.name], (*x.shape[:-2], columns, x.shape[-1]))


def _gemm(body: Body) -> Edge | None:
    x = body.pick(rank=2)
    if x is None:
        return None
    draw = body.draw
    trans_a, trans_b = draw(st.booleans()), draw(st.booleans())
    rows, inner = x.shape[::-1] if trans_a else x.shape
    columns = draw(st.sampled_from(SIZES))
    w = body.weight((columns, inner) if trans_b else (inner, columns))
    inputs = [x.name, w]
    bias = draw(st.sampled_from((None, (columns,), (1, columns), (rows, columns), (rows, 1), (1,))))
    if bias is not None or body.opset < 11:
        inputs.append(body.weight(bias or (columns,)))
    attributes: dict[str, Any] = {}
    if trans_a:
        attributes["transA"] = 1
    if trans_b:
        attributes["transB"] = 1
    for name in ("alpha", "beta"):
        if draw(st.integers(0, 3)) == 0:
            attributes[name] = draw(st.sampled_from((0.0, 0.5, -2.0, 1.0)))
    return body.node("Gemm", inputs, (rows, columns), **attributes)


def _matmul_pair(body: Body) -> Edge | None:
    x = body.pick(least=2)
    if x is None:
        return None
    turned = _turn(body, x, (*range(x.rank - 2), x.rank - 1, x.rank - 2))
    return body.node("MatMul", [x.name, turned.name], (*x.shape[:-1], x.shape[-2]))


def _conv(body: Body) -> Edge | None:
    x = body.pick(least=3)
    if x is None or x.rank > 5:
        return None
    draw = body.draw
    channels = x.shape[1]
    group = draw(
        st.sampled_from([one for one in (1, 1, 1, 2, channels) if one and channels % one == 0])
    )
    out = draw(st.sampled_from((1, 2, 4, 16, 24))) * group
    kernel = tuple(draw(st.sampled_from((1, 1, 2, 3))) for _ in x.shape[2:])
    if any(k > s for k, s in zip(kernel, x.shape[2:], strict=True)):
        kernel = (1,) * len(kernel)
    attributes: dict[str, Any] = {}
    if group != 1:
        attributes["group"] = group
    if draw(st.booleans()):
        attributes["kernel_shape"] = list(kernel)
    stride = draw(st.sampled_from((1, 1, 2)))
    pad = draw(st.sampled_from((0, 0, 1)))
    if stride != 1:
        attributes["strides"] = [stride] * len(kernel)
    if pad:
        attributes["pads"] = [pad] * (2 * len(kernel))
    inputs = [x.name, body.weight((out, channels // group, *kernel))]
    if draw(st.booleans()):
        inputs.append(body.weight((out,)))
    spatial = tuple(
        (s + 2 * pad - k) // stride + 1 for s, k in zip(x.shape[2:], kernel, strict=True)
    )
    return body.node("Conv", inputs, (x.shape[0], out, *spatial), **attributes)


def _conv_transpose(body: Body) -> Edge | None:
    x = body.pick(least=3)
    if x is None or x.rank > 4:
        return None
    draw = body.draw
    channels = x.shape[1]
    group = draw(st.sampled_from([one for one in (1, 1, 2) if channels % one == 0]))
    out = draw(st.sampled_from((1, 4, 8)))
    kernel = (draw(st.sampled_from((1, 2, 3))),) * (x.rank - 2)
    inputs = [x.name, body.weight((channels, out, *kernel))]
    if draw(st.booleans()):
        inputs.append(body.weight((out * group,)))
    spatial = tuple(s + kernel[0] - 1 for s in x.shape[2:])
    return body.node("ConvTranspose", inputs, (x.shape[0], out * group, *spatial), group=group)


def _batch_normalization(body: Body) -> Edge | None:
    x = body.pick(least=2)
    if x is None:
        return None
    c = (x.shape[1],)
    inputs = [x.name, body.weight(c), body.weight(c), body.weight(c)]
    inputs.append(body.constant(np.linspace(0.5, 2, c[0]).astype(DTYPES[body.type]), "var"))
    return body.node("BatchNormalization", inputs, x.shape, epsilon=1e-3)


def _recurrent(body: Body) -> Edge | None:
    x = body.pick(rank=3)
    if x is None:
        return None
    draw = body.draw
    operator, gates = draw(st.sampled_from((("LSTM", 4), ("GRU", 3), ("RNN", 1))))
    direction = draw(st.sampled_from(("forward", "reverse", "bidirectional")))
    count = 2 if direction == "bidirectional" else 1
    hidden = draw(st.sampled_from((1, 3, 16)))
    length, batch, size = x.shape
    inputs = [
        x.name,
        body.weight((count, gates * hidden, size)),
        body.weight((count, gates * hidden, hidden)),
    ]
    biases = 2 * gates * hidden
    if draw(st.booleans()):
        inputs.append(body.weight((count, biases)))
    attributes: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
    if operator == "GRU" and draw(st.booleans()):
        attributes["linear_before_reset"] = 1
    return body.node(operator, inputs, (length, count, batch, hidden), **attributes)


def _gather(body: Body) -> Edge | None:
    draw = body.draw
    shape = draw(st.sampled_from(((5, 16), (40, 3), (300, 20))))
    axis = draw(st.sampled_from((0, 0, 1, -1, -2)))
    indices = draw(st.sampled_from((np.int64(1), np.array([0, 2, 1]), np.array([[0, -1]]))))
    name = body.constant(np.asarray(indices, np.int64), "indices")
    table = body.weight(shape)
    axis_length = axis % 2
    result = (*shape[:axis_length], *np.shape(indices), *shape[axis_length + 1 :])
    return body.node("Gather", [table, name], tuple(map(int, result)), axis=axis)


def _einsum(body: Body) -> Edge | None:
    x = body.pick(rank=3)
    if x is None or body.opset < 12:
        return None
    columns = body.draw(st.sampled_from(SIZES))
    w = body.weight((x.shape[2], columns))
    return body.node("Einsum", [x.name, w], (*x.shape[:2], columns), equation="bij,jk->bik")


def _binary(body: Body) -> Edge | None:
    x = body.pick()
    if x is None:
        return None
    draw = body.draw
    operator = draw(st.sampled_from(("Add", "Mul", "Sub", "Div")))
    same = [one for one in body.edges if one.shape == x.shape]
    if draw(st.booleans()):
        other = draw(st.sampled_from(same)).name
    else:
        shape = draw(st.sampled_from((x.shape, x.shape[-1:], (), (1,) * x.rank, _channel(x))))
        other = body.weight(shape)
    inputs = [x.name, other] if draw(st.booleans()) else [other, x.name]
    return body.node(operator, inputs, x.shape)


def _channel(x: Edge) -> tuple[int, ...]:
    return (x.shape[1], *([1] * (x.rank - 2))) if x.rank > 1 else ()


def _unary(body: Body) -> Edge | None:
    x = body.pick()
    if x is None:
        return None
    operators = [
        "Relu",
        "Sigmoid",
        "Tanh",
        "LeakyRelu",
        "Identity",
        "Neg",
        "Softplus",
        "Elu",
        "Abs",
    ]
    if x.rank > 1:
        operators.append("Softmax")
    if body.opset >= 14:
        operators.append("HardSwish")
    if body.opset >= 20:
        operators.append("Gelu")
    return body.node(body.draw(st.sampled_from(operators)), [x.name], x.shape)


def _clip(body: Body) -> Edge | None:
    x = body.pick()
    if x is None:
        return None
    low, high = body.draw(st.sampled_from(((0.0, 6.0), (-1.0, 1.0), (0.0, 0.0), (1.0, 2.0))))
    if body.opset < 11:
        return body.node("Clip", [x.name], x.shape, min=low, max=high)
    dtype = DTYPES[body.type]
    names = [body.constant(np.asarray(low, dtype)), body.constant(np.asarray(high, dtype))]
    if body.draw(st.integers(0, 3)) == 0:
        names[0] = ""
    return body.node("Clip", [x.name, *names], x.shape)


def _turn(body: Body, x: Edge, order: tuple[int, ...]) -> Edge:
    return body.node("Transpose", [x.name], tuple(x.shape[i] for i in order), perm=list(order))


def _transpose(body: Body) -> Edge | None:
    x = body.pick(least=1)
    if x is None:
        return None
    return _turn(body, x, tuple(body.draw(st.permutations(range(x.rank)))))


def _reshape(body: Body) -> Edge | None:
    x = body.pick()
    if x is None:
        return None
    total = math.prod(x.shape)
    choices: list[tuple[int, ...]] = [(total,), (1, total), (total, 1), (1, 1, total)]
    if x.rank > 1:
        choices.append((x.shape[0] * x.shape[1], *x.shape[2:]))
    if x.rank > 0 and x.shape[-1] % 2 == 0:
        choices.append((*x.shape[:-1], 2, x.shape[-1] // 2))
    shape = body.draw(st.sampled_from(choices))
    return body.node("Reshape", [x.name, body.constant(np.array(shape, np.int64), "shape")], shape)


def _flatten(body: Body) -> Edge | None:
    x = body.pick(least=1)
    if x is None:
        return None
    axis = body.draw(st.integers(0, x.rank))
    shape = (math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
    return body.node("Flatten", [x.name], shape, axis=axis)


def _squeeze(body: Body) -> Edge | None:
    x = body.pick()
    if x is None:
        return None
    ones = [axis for axis, size in enumerate(x.shape) if size == 1]
    if ones and body.draw(st.booleans()):
        operator, axis = "Squeeze", body.draw(st.sampled_from(ones))
        shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    else:
        operator, axis = "Unsqueeze", body.draw(st.integers(0, x.rank))
        shape = (*x.shape[:axis], 1, *x.shape[axis:])
    if body.opset < 13:
        return body.node(operator, [x.name], shape, axes=[axis])
    return body.node(operator, [x.name, body.constant(np.array([axis], np.int64))], shape)


def _slice(body: Body) -> Edge | None:
    x = body.pick(least=1)
    if x is None:
        return None
    axis = body.draw(st.integers(0, x.rank - 1))
    end = body.draw(st.integers(0, x.shape[axis]))
    shape = (*x.shape[:axis], end, *x.shape[axis + 1 :])
    if body.opset < 10:
        return body.node("Slice", [x.name], shape, axes=[axis], starts=[0], ends=[end])
    names = [body.constant(np.array([one], np.int64)) for one in (0, end, axis)]
    return body.node("Slice", [x.name, *names], shape)


def _concat(body: Body) -> Edge | None:
    x = body.pick(least=1)
    if x is None:
        return None
    axis = body.draw(st.integers(0, x.rank - 1))
    same = [one for one in body.edges if one.shape == x.shape]
    other = (
        body.draw(st.sampled_from(same)).name if body.draw(st.booleans()) else body.weight(x.shape)
    )
    shape = (*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])
    return body.node("Concat", [x.name, other], shape, axis=axis)


def _split(body: Body) -> Edge | None:
    x = body.pick(least=1)
    if x is None or x.shape[-1] % 2 or not x.shape[-1]:
        return None
    half = x.shape[-1] // 2
    outputs = [body.name("part"), body.name("part")]
    inputs, attributes = [x.name], {"axis": x.rank - 1}
    if body.opset < 13:
        attributes["split"] = [half, half]
    else:
        inputs.append(body.constant(np.array([half, half], np.int64)))
    body.nodes.append(helper.make_node("Split", inputs, outputs, **attributes))
    edges = [Edge(name, (*x.shape[:-1], half)) for name in outputs]
    body.keep(edges[0])
    return edges[1]


def _pool(body: Body) -> Edge | None:
    x = body.pick(least=3)
    if x is None or x.rank > 5:
        return None
    operator = body.draw(
        st.sampled_from(("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"))
    )
    spatial = len(x.shape) - 2
    if operator.startswith("Global"):
        return body.node(operator, [x.name], (*x.shape[:2], *([1] * spatial)))
    kernel = [min(2, size) for size in x.shape[2:]]
    shape = (*x.shape[:2], *(s - k + 1 for s, k in zip(x.shape[2:], kernel, strict=True)))
    return body.node(operator, [x.name], shape, kernel_shape=kernel)


def _pad(body: Body) -> Edge | None:
    x = body.pick(least=1)
    if x is None:
        return None
    pads = [0] * (x.rank - 1) + [1] + [0] * (x.rank - 1) + [2]
    shape = (*x.shape[:-1], x.shape[-1] + 3)
    if body.opset < 11:
        return body.node("Pad", [x.name], shape, pads=pads)
    return body.node("Pad", [x.name, body.constant(np.array(pads, np.int64))], shape)


def _reduce(body: Body) -> Edge | None:
    x = body.pick(least=1)
    if x is None:
        return None
    operator = body.draw(st.sampled_from(("ReduceMean", "ReduceMax")))
    axis = body.draw(st.integers(0, x.rank - 1))
    shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    if body.opset < 18:
        return body.node(operator, [x.name], shape, axes=[axis])
    return body.node(operator, [x.name, body.constant(np.array([axis], np.int64))], shape)


def _layer_normalization(body: Body) -> Edge | None:
    x = body.pick(least=1)
    if x is None or body.opset < 17:
        return None
    inputs = [x.name, body.weight(x.shape[-1:]), body.weight(x.shape[-1:])]
    return body.node("LayerNormalization", inputs, x.shape)


def _resize(body: Body) -> Edge | None:
    x = body.pick(rank=4)
    if x is None or body.opset < 11:
        return None
    roi = body.constant(np.zeros(0, np.float32), "roi")
    scales = body.constant(np.array([1, 1, 2, 2], np.float32), "scales")
    mode = body.draw(st.sampled_from(("nearest", "linear")))
    shape = (*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    return body.node("Resize", [x.name, roi, scales], shape, mode=mode)


def _arg_max(body: Body) -> Edge | None:
    """Integers on the way, which choose rows of a table."""
    x = body.pick(least=1)
    if x is None or not x.shape[-1]:
        return None
    index = body.node("ArgMax", [x.name], x.shape[:-1], axis=x.rank - 1, keepdims=0)
    width = body.draw(st.sampled_from(SIZES))
    table = body.weight((x.shape[-1], width))
    return body.node("Gather", [table, index.name], (*x.shape[:-1], width))


def _inner(body: Body, edges: list[Edge]) -> Body:
    return Body(
        body.draw, body.opset, body.type, body.depth + 1, body.names, list(edges), list(body.shared)
    )


def _if(body: Body) -> Edge | None:
    if body.depth > 1:
        return None
    x = body.pick()
    if x is None:
        return None
    branches = []
    for _ in range(2):
        branch = _inner(body, [*body.edges, x])
        grow(branch, body.draw(st.integers(0, 2)))
        last = branch.edges[-1]
        # Both branches have to give the same shape: what was made shifts what is given.
        total = branch.node("ReduceSum", [last.name], (), keepdims=0)
        shifted = branch.node("Mul", [total.name, branch.weight(())], ())
        result = branch.node("Add", [x.name, shifted.name], x.shape)
        branches.append((branch, result))
    condition = body.name("condition")
    body.initializers.append(numpy_helper.from_array(np.array(body.draw(st.booleans())), condition))
    then_branch, else_branch = (
        make_graph(branch, f"branch{index}", [result])
        for index, (branch, result) in enumerate(branches)
    )
    return body.node("If", [condition], x.shape, then_branch=then_branch, else_branch=else_branch)


def _loop(body: Body) -> Edge | None:
    if body.depth > 1:
        return None
    x = body.pick()
    if x is None:
        return None
    carried = Edge(body.name("carried"), x.shape)
    loop = _inner(body, [*body.edges, carried])
    grow(loop, body.draw(st.integers(0, 2)))
    mixed = loop.node("Tanh", [carried.name], x.shape)
    last = loop.edges[-1]
    if last.shape == x.shape:
        mixed = loop.node("Add", [mixed.name, last.name], x.shape)
    iteration, condition, still = (body.name(one) for one in ("iteration", "condition", "still"))
    loop.nodes.append(helper.make_node("Identity", [condition], [still]))
    graph = make_graph(
        loop,
        "loop",
        [mixed],
        before=[
            helper.make_tensor_value_info(iteration, TensorProto.INT64, []),
            helper.make_tensor_value_info(condition, TensorProto.BOOL, []),
            helper.make_tensor_value_info(carried.name, body.type, x.shape),
        ],
        first=[helper.make_tensor_value_info(still, TensorProto.BOOL, [])],
    )
    trips = body.name("trips")
    body.initializers.append(numpy_helper.from_array(np.array(2, np.int64), trips))
    return body.node("Loop", [trips, "", x.name], x.shape, body=graph)


def _scan(body: Body) -> Edge | None:
    if body.depth > 1 or body.opset < 9:
        return None
    x = body.pick(least=2)
    if x is None:
        return None
    row = Edge(body.name("row"), x.shape[1:])
    scan = _inner(body, [*body.edges, row])
    result = _matmul_row(scan, row)
    graph = make_graph(
        scan,
        "scan",
        [result],
        before=[helper.make_tensor_value_info(row.name, body.type, row.shape)],
    )
    return body.node("Scan", [x.name], (x.shape[0], *result.shape), body=graph, num_scan_inputs=1)


def _matmul_row(body: Body, row: Edge) -> Edge:
    columns = body.draw(st.sampled_from(SIZES))
    w = body.weight((row.shape[-1], columns))
    return body.node("MatMul", [row.name, w], (*row.shape[:-1], columns))


LAYERS = (_conv, _matmul, _gemm, _conv_transpose, _recurrent, _gather, _einsum)
MAKERS = (
    *(_matmul_pair, _batch_normalization, _binary, _binary, _unary, _unary, _clip, _transpose),
    *(_reshape, _flatten, _squeeze, _slice, _concat, _split, _pool, _pad, _reduce),
    *(_layer_normalization, _resize, _arg_max, _if, _loop, _scan),
)


def grow(body: Body, count: int) -> None:
    """Add ``count`` nodes or fewer."""
    for _ in range(count):
        makers = body.draw(st.sampled_from((LAYERS, MAKERS)))
        edge = body.draw(st.sampled_from(makers))(body)
        if edge is not None and math.prod(edge.shape) <= MOST_ELEMENTS and edge.rank <= 6:
            body.keep(edge)


def make_graph(
    body: Body,
    name: str,
    outputs: list[Edge],
    before: list[Any] | None = None,
    first: list[Any] | None = None,
) -> onnx.GraphProto:
    """The finished body."""
    return helper.make_graph(
        body.nodes,
        name,
        [*(before or []), *body.inputs],
        [
            *(first or []),
            *(helper.make_tensor_value_info(one.name, body.type, one.shape) for one in outputs),
        ],
        body.initializers,
    )


@st.composite
def models(draw: Callable[[Any], Any]) -> Case:
    """A model and feeds for it; not every one is valid."""
    opset = draw(st.sampled_from((*range(7, NEWEST_OPSET + 1), 13, 17, 17, 21)))
    type_ = draw(
        st.sampled_from(
            (TensorProto.FLOAT,) * 17
            + (TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
        )
    )
    body = Body(draw, opset, type_, 0, [0], [], [])
    for _ in range(draw(st.integers(1, 2))):
        rank = draw(st.sampled_from((0, 1, 2, 2, 3, 3, 4, 4, 4, 5)))
        sizes = (1, 2, 3, 4, 5, 8) if rank > 2 else SIZES
        shape = [draw(st.sampled_from(sizes)) for _ in range(rank)]
        if rank and draw(st.integers(0, 15)) == 0:
            shape[draw(st.integers(0, rank - 1))] = 0
        _add_input(body, tuple(shape))
    grow(body, draw(st.integers(3, 12)))
    made = [one for one in body.edges if one.name not in body.feeds]
    outputs = {one.name: one for one in (*made[-1:], *body.outputs)}
    if made and draw(st.booleans()):
        extra = draw(st.sampled_from(made))
        outputs[extra.name] = extra
    graph = make_graph(body, "main", list(outputs.values()))
    ir_version = next(ir for last, ir in IR_VERSIONS if opset <= last)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version
    )
    if ir_version < 4:
        known = {one.name for one in graph.input}
        model.graph.input.extend(
            helper.make_tensor_value_info(one.name, one.data_type, one.dims)
            for one in graph.initializer
            if one.name not in known
        )
    return Case("fuzz", model, body.feeds)


def _add_input(body: Body, shape: tuple[int, ...]) -> None:
    draw = body.draw
    name = body.name("x")
    rng = np.random.default_rng(draw(st.integers(0, 3)))
    declared = [
        f"N{axis}" if draw(st.integers(0, 7)) == 0 else size for axis, size in enumerate(shape)
    ]
    body.inputs.append(helper.make_tensor_value_info(name, body.type, declared))
    body.feeds[name] = np.asarray(rng.standard_normal(shape)).astype(DTYPES[body.type])
    body.keep(Edge(name, shape))
