"""One node or a few of every operator of the engine, with the inputs to run them on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Draw = Callable[[np.random.Generator], Array]


def real(*shape: int) -> Draw:
    """Gaussian floats."""
    return lambda rng: rng.standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> Draw:
    """Floats from 0.5 to 1.5."""
    return lambda rng: rng.uniform(0.5, 1.5, shape).astype(np.float32)


def share(*shape: int) -> Draw:
    """Floats from -0.9 to 0.9."""
    return lambda rng: rng.uniform(-0.9, 0.9, shape).astype(np.float32)


def whole(low: int, high: int, *shape: int, dtype: Any = np.int64) -> Draw:
    """Integers from low to high - 1."""
    return lambda rng: rng.integers(low, high, shape).astype(dtype)


def coin(*shape: int) -> Draw:
    """Booleans."""
    return lambda rng: rng.integers(0, 2, shape).astype(np.bool_)


def fixed(values: Any, dtype: Any = np.float32) -> Draw:
    """The same every time."""
    return lambda _rng: np.asarray(values, dtype)


@dataclass(frozen=True)
class Case:
    """A graph.

    Attributes:
        name: for the test.
        nodes: in the textual form; they read ``inputs`` and ``constants``, and give ``outputs``.
        inputs: by name.
        constants: initializers by name.
        outputs: names; the types are those that onnxruntime finds.
        opset: of ai.onnx.
    """

    name: str
    nodes: str
    inputs: Mapping[str, Draw]
    constants: Mapping[str, Draw] = field(default_factory=dict)
    outputs: tuple[str, ...] = ("y",)
    opset: int = 18


def unary(operator: str, draw: Draw | None = None, attributes: str = "", opset: int = 18) -> Case:
    """One input, one output."""
    name = f"{operator}{attributes}".replace(" ", "")
    nodes = f"y = {operator}{attributes}(x)"
    return Case(name, nodes, {"x": draw or real(2, 3, 4, 5)}, opset=opset)


def binary(operator: str, a: Draw, b: Draw, attributes: str = "") -> Case:
    """Two inputs, one output."""
    return Case(operator + attributes, f"y = {operator}{attributes}(a, b)", {"a": a, "b": b})


FLAT = {"x": real(2, 3, 4, 5)}

UNARY = (
    *(unary(name) for name in ("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Erf", "Mish")),
    *(unary(name) for name in ("Neg", "Abs", "Exp", "Floor", "Ceil", "Sign", "Sin", "Cos", "Tan")),
    *(unary(name) for name in ("Sinh", "Cosh", "Atan", "HardSwish", "Identity", "Dropout")),
    *(unary(name, positive(3, 4)) for name in ("Sqrt", "Log", "Reciprocal")),
    *(unary(name, share(3, 4)) for name in ("Asin", "Acos")),
    unary("Round", fixed([0.5, 1.5, -0.5, 2.4])),
    unary("Elu", attributes="<alpha = 0.7>"),
    unary("Celu", attributes="<alpha = 0.7>"),
    unary("Selu"),
    unary("LeakyRelu", attributes="<alpha = 0.2>"),
    unary("ThresholdedRelu", attributes="<alpha = 0.3>"),
    unary("HardSigmoid", attributes="<alpha = 0.3, beta = 0.4>"),
    unary("Gelu", opset=20),
    unary("Gelu", attributes='<approximate = "tanh">', opset=20),
    *(unary(name, attributes="<axis = 1>") for name in ("Softmax", "LogSoftmax")),
    *(unary(name, attributes="<axis = 1>", opset=11) for name in ("Softmax", "LogSoftmax")),
    unary("IsNaN", fixed([0.0, np.nan, np.inf])),
    unary("IsInf", fixed([0.0, np.nan, np.inf, -np.inf]), "<detect_negative = 0>"),
    unary("Not", coin(3, 4)),
    unary("Shape"),
    unary("Shape", attributes="<start = 1, end = -1>"),
    unary("Size"),
    unary("NonZero", coin(3, 4)),
    unary("EyeLike", real(3, 4), "<k = 1>"),
    unary("Flatten", attributes="<axis = 2>"),
    unary("Transpose", attributes="<perm = [2, 0, 3, 1]>"),
    unary("Transpose"),
    unary("GlobalAveragePool"),
    unary("GlobalMaxPool"),
    unary("LpNormalization", attributes="<axis = 1, p = 2>"),
    unary("LRN", real(1, 6, 4, 4), "<size = 3, alpha = 0.1>"),
    unary("DepthToSpace", real(1, 8, 2, 3), "<blocksize = 2>"),
    unary("DepthToSpace", real(1, 8, 2, 3), '<blocksize = 2, mode = "CRD">'),
    unary("SpaceToDepth", real(1, 2, 4, 6), "<blocksize = 2>"),
    unary("Cast", attributes="<to = 7>"),
    unary("Cast", whole(-3, 3, 4), "<to = 1>"),
    unary("ArgMax", attributes="<axis = 2, keepdims = 0>"),
    unary("ArgMin", attributes="<axis = -1, select_last_index = 1>"),
    Case(
        "DynamicQuantizeLinear",
        "q, s, z = DynamicQuantizeLinear(x) y = Cast<to = 1>(q)",
        {"x": real(2, 3, 4)},
        {},
        ("y", "s"),
    ),
)

BINARY = (
    *(binary(name, real(2, 3, 4), real(3, 1)) for name in ("Add", "Sub", "Mul", "Max", "Min")),
    *(binary(name, real(2, 3, 4), real(3, 1)) for name in ("Sum", "Mean")),
    binary("Div", real(2, 3), positive(3)),
    binary("Div", whole(-9, 9, 6), whole(1, 4, 6)),
    binary("Pow", positive(2, 3), real(3)),
    Case("Pow by a number", "y = Pow(x, two)", {"x": real(3, 4)}, {"two": fixed(2.0)}),
    binary("Mod", whole(-9, 9, 8), fixed([3, -3, 4, 2, 5, -2, 7, 1], np.int64)),
    binary("Mod", real(5), positive(5), "<fmod = 1>"),
    *(binary(name, coin(3, 4), coin(4)) for name in ("And", "Or", "Xor")),
    *(
        binary(name, whole(0, 3, 3, 4), whole(0, 3, 4))
        for name in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
    ),
    binary("PRelu", real(2, 3, 4), positive(3, 1)),
    binary("MatMul", real(2, 3, 4), real(4, 5)),
    binary("MatMul", real(4), real(2, 4, 3)),
    binary("CastLike", real(3), whole(0, 2, 1, dtype=np.int32)),
    binary("Einsum", real(2, 3, 4), real(2, 4, 5), '<equation = "bij,bjk->bik">'),
    binary("Gather", real(5, 3, 2), whole(-3, 3, 2, 2), "<axis = 1>"),
    binary("GatherElements", real(3, 4), whole(-4, 4, 3, 2), "<axis = 1>"),
    binary("GatherND", real(2, 3, 4), whole(0, 2, 2, 2)),
    binary("GatherND", real(2, 3, 4), whole(0, 3, 2, 5, 1), "<batch_dims = 1>"),
    binary("Concat", real(2, 3), real(2, 4), "<axis = -1>"),
)

MOVEMENT = (
    Case("Clip", "y = Clip(x, low, high)", FLAT, {"low": fixed(-0.3), "high": fixed(0.6)}),
    Case("Clip below", "y = Clip(x, low)", FLAT, {"low": fixed(-0.3)}),
    Case("Clip before opset 11", "y = Clip<max = 0.5>(x)", FLAT, opset=10),
    Case("Where", "y = Where(c, a, b)", {"c": coin(3, 1), "a": real(3, 4), "b": real(4)}),
    Case("Reshape", "y = Reshape(x, s)", FLAT, {"s": fixed([0, -1, 5], np.int64)}),
    Case("Squeeze", "y = Squeeze(x, a)", {"x": real(2, 1, 3, 1)}, {"a": fixed([1], np.int64)}),
    Case("Squeeze all", "y = Squeeze(x)", {"x": real(2, 1, 3, 1)}),
    Case("Unsqueeze", "y = Unsqueeze(x, a)", {"x": real(2, 3)}, {"a": fixed([-1, 0], np.int64)}),
    Case("Expand", "y = Expand(x, s)", {"x": real(3, 1)}, {"s": fixed([2, 1, 4], np.int64)}),
    Case("Tile", "y = Tile(x, s)", {"x": real(2, 3)}, {"s": fixed([2, 1], np.int64)}),
    Case(
        "Slice",
        "y = Slice(x, s, e, a, t)",
        FLAT,
        {
            "s": fixed([-1, 0], np.int64),
            "e": fixed([-(2**63), 100], np.int64),
            "a": fixed([2, 3], np.int64),
            "t": fixed([-2, 2], np.int64),
        },
    ),
    Case(
        "Slice to the end",
        "y = Slice(x, s, e)",
        FLAT,
        {"s": fixed([0, 1], np.int64), "e": fixed([1, 2**31 - 1], np.int64)},
    ),
    Case(
        "Slice before opset 10", "y = Slice<axes = [1], starts = [1], ends = [9]>(x)", FLAT, opset=9
    ),
    Case("Split", "y, z = Split<axis = 1>(x, s)", FLAT, {"s": fixed([1, 2], np.int64)}, ("y", "z")),
    Case("Split evenly", "y, z = Split<axis = 3, num_outputs = 2>(x)", FLAT, {}, ("y", "z")),
    Case(
        "ScatterElements",
        "y = ScatterElements<axis = 1>(x, i, u)",
        {"x": real(3, 5), "u": real(3, 2)},
        {"i": fixed([[0, -1], [2, 1], [3, 0]], np.int64)},
    ),
    Case(
        "ScatterElements add",
        'y = ScatterElements<reduction = "add">(x, i, u)',
        {"x": real(3, 2), "u": real(2, 2)},
        {"i": fixed([[0, 1], [0, 2]], np.int64)},
    ),
    Case(
        "ScatterND",
        "y = ScatterND(x, i, u)",
        {"x": real(4, 3), "u": real(2, 3)},
        {"i": fixed([[1], [3]], np.int64)},
    ),
    *(
        Case(
            f"Pad {mode}",
            f'y = Pad<mode = "{mode}">(x, p{", v" if mode == "constant" else ""})',
            {"x": real(1, 2, 4, 5)},
            {"p": fixed([0, 0, 1, 2, 0, 0, 3, 1], np.int64), "v": fixed(0.7)}
            if mode == "constant"
            else {"p": fixed([0, 0, 1, 2, 0, 0, 3, 1], np.int64)},
        )
        for mode in ("constant", "edge", "reflect")
    ),
    Case(
        "Pad wrap",
        'y = Pad<mode = "wrap">(x, p)',
        {"x": real(3, 4)},
        {"p": fixed([1, 2, 2, 1], np.int64)},
        opset=19,
    ),
    Case("ConstantOfShape", "s = Shape(x) y = ConstantOfShape<value = float[1] {2}>(s)", FLAT),
    Case("Constant", "c = Constant<value_floats = [1.0, 2.0]>() y = Add(x, c)", {"x": real(3, 2)}),
    Case("Constant of integers", "c = Constant<value_ints = [2, -1]>() y = Reshape(x, c)", FLAT),
    Case(
        "Range",
        "n = Size(x) y = Range(z, n, o)",
        {"x": real(6)},
        {"z": fixed(0, np.int64), "o": fixed(2, np.int64)},
    ),
    Case(
        "OneHot",
        "y = OneHot(i, d, v)",
        {"i": whole(-3, 3, 2, 4)},
        {"d": fixed(3, np.int64), "v": fixed([0.5, 2.0])},
    ),
    Case("Trilu", "y = Trilu(x)", {"x": real(2, 3, 4)}),
    Case("Trilu lower", "y = Trilu<upper = 0>(x, k)", {"x": real(3, 4)}, {"k": fixed(1, np.int64)}),
    Case("CumSum", "y = CumSum(x, a)", {"x": real(3, 4)}, {"a": fixed(1, np.int64)}),
    Case(
        "CumSum reversed",
        "y = CumSum<reverse = 1, exclusive = 1>(x, a)",
        {"x": real(3, 4)},
        {"a": fixed(0, np.int64)},
    ),
    Case("TopK", "y, i = TopK(x, k)", {"x": real(3, 7)}, {"k": fixed([3], np.int64)}, ("y", "i")),
    Case(
        "If",
        """c = ReduceSum<keepdims = 0>(x)
           t = Greater(c, zero)
           y = If(t) <then_branch = a () => (p) { p = Add(x, x) },
                      else_branch = b () => (q) { q = Neg(x) }>""",
        {"x": real(3)},
        {"zero": fixed(0.0)},
    ),
)

REDUCTIONS = (
    *tuple(
        Case(
            f"{name}{opset}",
            f"y = {name}<keepdims = 0>(x, a)" if opset == 18 else f"y = {name}<axes = [1, -1]>(x)",
            {"x": positive(2, 3, 4)},
            {"a": fixed([1, -1], np.int64)} if opset == 18 else {},
            opset=opset,
        )
        for name in (
            *("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"),
            *("ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"),
        )
        for opset in (18, 12)
    ),
    Case("ReduceSum", "y = ReduceSum(x, a)", FLAT, {"a": fixed([0, 2], np.int64)}),
    Case("ReduceSum of all", "y = ReduceSum<keepdims = 0>(x)", FLAT),
)
