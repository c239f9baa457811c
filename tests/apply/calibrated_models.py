"""Models with calibrated layers, and how far their quantized form may be from float."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

import onnxq
from tests.apply.microsoft_operators import dequantize
from tests.apply.quantized import Feeds, Quantized, run
from tests.models import float_weight, make_model, save

Array = npt.NDArray[Any]

CHANNELS = 24
"""Enough for integers to gain speed in any convolution (docs/targets.md)."""

SIZE = 8
IMAGE = f"float[N, {CHANNELS}, {SIZE}, {SIZE}]"

INTEGER_COMPUTE = frozenset(
    {"QLinearConv", "QLinearMatMul", "MatMulIntegerToFloat", "QGemm", "QLinearAdd", "QLinearMul"}
    | {"QLinearConcat", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearGlobalAveragePool"}
    | {"DynamicQuantizeMatMul", "MatMulInteger"}
)


def weights(**shapes: Sequence[int]) -> dict[str, Array]:
    """Weights of these shapes; each depends on its name only."""
    return {
        name: float_weight(np.random.default_rng([ord(letter) for letter in name]), shape)
        for name, shape in shapes.items()
    }


def images(count: int = 6, *, size: int = SIZE) -> list[dict[str, Array]]:
    """Samples of Gaussian noise."""
    rng = np.random.default_rng(7)
    shape = (1, CHANNELS, size, size)
    return [{"x": rng.standard_normal(shape).astype(np.float32)} for _ in range(count)]


def save_samples(samples: Sequence[Feeds], folder: Path) -> Path:
    """Write samples as .npz files; returns ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, feeds in enumerate(samples):
        np.savez(folder / f"sample_{index:03d}.npz", **dict(feeds))
    return folder


def quantize_static(
    model: onnx.ModelProto,
    folder: Path,
    samples: Sequence[Feeds] | None = None,
    *,
    method: str = "minmax",
    accuracy: str | None = "fast",
    **options: Any,
) -> Quantized:
    """Save ``model`` and ``samples`` in ``folder`` and quantize through the public interface."""
    source = save(model, folder / "model.onnx")
    data = save_samples(images() if samples is None else samples, folder / "samples")
    output = folder / "quantized.onnx"
    result = onnxq.quantize_static(
        source, data, output, method=method, accuracy=accuracy, **options
    )
    return Quantized(model, result.output, result)


def calibrated_operators(quantized: Quantized) -> list[str]:
    """Operators of the nodes that the plan has in integers, in order."""
    calibration = quantized.result.plan.calibration
    return [] if calibration is None else [node.operator for node in calibration.nodes]


def reasons(quantized: Quantized) -> dict[str, str]:
    """Why nodes stay float, by the name of the node."""
    calibration = quantized.result.plan.calibration
    return {} if calibration is None else {one.node: one.reason for one in calibration.skipped}


def parameters(quantized: Quantized, value: str) -> tuple[Array, Array]:
    """Scale and zero point of the pair behind, or in front of, the tensor ``value``."""
    (node,) = (
        one
        for one in quantized.model.graph.node
        if one.op_type == "QuantizeLinear" and one.input[0] == value
    )
    return quantized.read_constant(node.input[1]), quantized.read_constant(node.input[2])


def weight_of(quantized: Quantized, layer: str, index: int = 1) -> tuple[Array, Array, Array]:
    """Integers, scale and zero point of the weight (or, with 2, the bias) of a named layer."""
    (node,) = (one for one in quantized.model.graph.node if one.name == layer)
    none = np.zeros((), np.int32)
    if node.op_type in _PRODUCTS:
        constants = {
            which: quantized.read_constant(node.input[place])
            for which, place in _PRODUCTS[node.op_type].items()
            if place < len(node.input) and node.input[place]
        }
        if index == 2:
            # Not in the file: the operator is defined so.
            return constants["bias"], constants["a_scale"] * constants["scale"], none
        return constants["weight"], constants["scale"], constants["zero_point"]
    (reader,) = (one for one in quantized.model.graph.node if node.input[index] in one.output)
    assert reader.op_type == "DequantizeLinear"
    integers, *numbers = (quantized.read_constant(name) for name in reader.input)
    return (integers, *numbers, none)[:3]


_PRODUCTS: Mapping[str, Mapping[str, int]] = {
    "MatMulIntegerToFloat": {"weight": 1, "a_scale": 2, "scale": 3, "zero_point": 5},
    "QGemm": {"a_scale": 1, "weight": 3, "scale": 4, "zero_point": 5, "bias": 6},
}
"""Which input of an integer product is what."""


def stored_weight(quantized: Quantized, layer: str) -> Array:
    """The numbers that the integers of the weight of a named layer stand for."""
    (node,) = (one for one in quantized.model.graph.node if one.name == layer)
    if node.op_type not in _PRODUCTS:
        return quantized.read_constant(node.input[1])
    return _by_channel(node, *weight_of(quantized, layer))


def _by_channel(node: onnx.NodeProto, values: Array, scale: Array, zero_point: Array) -> Array:
    """A weight with scales of its channels, which are columns, or rows if it is transposed."""
    if _is_transposed(node):
        return dequantize(values.T, scale, zero_point).T
    return dequantize(values, scale, zero_point)


def _is_transposed(node: onnx.NodeProto) -> bool:
    return any(one.name == "transB" and one.i for one in node.attribute)


@dataclass(frozen=True)
class Model:
    """One model in which an operator is calibrated.

    Attributes:
        nodes: between the convolution that gives ``a`` and the one that reads ``c``.
        constants: that they read.
        kernels: integer nodes that the runtime must make of the whole model.
        operators: which of ``CALIBRATED_RULES`` this is a model of.
        left: QuantizeLinear and DequantizeLinear nodes that stay.
        tail: what reads ``c``.
        output: type of the output.
        since: smallest operator set in which the text is valid.
    """

    nodes: str
    constants: Mapping[str, Array]
    kernels: Mapping[str, int]
    operators: tuple[str, ...]
    left: tuple[int, int] = (1, 1)
    tail: str = "[last] d = Conv(c, w4, b4) y = Neg(d)"
    output: str = "float[N, C, H, W] y"

    def build(self, *, opset: int = 21) -> onnx.ModelProto:
        """The model; ``{split}`` becomes what the operator set wants."""
        split = ", num_outputs = 2" if opset >= 18 else ""
        text = f"[first] a = Conv(x, w1, b1) {self.nodes} {self.tail}".replace("{split}", split)
        every = weights(w1=(24, 24, 1, 1), b1=(24,), w4=(24, 24, 1, 1), b4=(24,))
        every |= dict(self.constants)
        words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
        used = {name: array for name, array in every.items() if name in words}
        return make_model(text, f"{IMAGE} x", self.output, used, opset=opset)


def _ints(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


_SECOND = weights(w2=(24, 24, 1, 1), b2=(24,))
_THREE = weights(w3=(24, 24, 3, 3), b3=(24,))
_CONV3 = "[mid] c = Conv<pads = [1, 1, 1, 1]>(a, w3, b3)"

MODELS: dict[str, Model] = {
    "Conv": Model(_CONV3, _THREE, {"QLinearConv": 3}, ("Conv",)),
    "Conv-no-bias": Model("[mid] c = Conv(a, w2)", _SECOND, {"QLinearConv": 3}, ("Conv",)),
    "Conv-Relu": Model(
        "[mid] m = Conv(a, w2, b2) c = Relu(m)", _SECOND, {"QLinearConv": 3}, ("Conv",)
    ),
    "Conv-Clip": Model(
        "[mid] m = Conv(a, w2, b2) c = Clip(m, low, high)",
        {**_SECOND, "low": np.float32(-1), "high": np.float32(1)},
        {"QLinearConv": 3},
        ("Conv",),
    ),
    "Conv-depthwise": Model(
        "[mid] c = Conv<pads = [1, 1, 1, 1], group = 24>(a, wd, b3)",
        weights(wd=(24, 1, 3, 3), b3=(24,)),
        {"QLinearConv": 3},
        ("Conv",),
    ),
    "MatMul": Model(
        "f = Flatten(a) [mm] c = MatMul(f, wm)",
        weights(wm=(1536, 40), wg=(40, 120)),
        {"QLinearConv": 1, "QLinearMatMul": 1, "QGemm": 1},
        ("MatMul", "Flatten", "Gemm"),
        left=(1, 0),
        tail="[gemm] d = Gemm(c, wg) y = Neg(d)",
        output="float[N, K] y",
    ),
    "MatMul-to-float": Model(
        "f = Flatten(a) [mm] c = MatMul(f, wm)",
        weights(wm=(1536, 40)),
        {"QLinearConv": 1, "MatMulIntegerToFloat": 1},
        ("MatMul",),
        left=(1, 0),
        tail="y = Softmax(c)",
        output="float[N, K] y",
    ),
    "Gemm": Model(
        "f = Flatten(a) [mm] c = Gemm(f, wm, bm)",
        weights(wm=(1536, 40), bm=(40,)),
        {"QLinearConv": 1, "QGemm": 1},
        ("Gemm",),
        left=(1, 0),
        tail="y = Softmax(c)",
        output="float[N, K] y",
    ),
    "Gemm-transposed": Model(
        "f = Flatten(a) [mm] c = Gemm<transB = 1>(f, wt, bm)",
        {"wt": np.ascontiguousarray(weights(wm=(1536, 40))["wm"].T), **weights(bm=(40,))},
        {"QLinearConv": 1, "QGemm": 1},
        ("Gemm",),
        left=(1, 0),
        tail="y = Softmax(c)",
        output="float[N, K] y",
    ),
    "Add": Model(
        "[side] e = Conv(x, w2, b2) [sum] c = Add(a, e)",
        _SECOND,
        {"QLinearConv": 3, "QLinearAdd": 1},
        ("Add",),
    ),
    "Add-Relu": Model(
        "[side] e = Conv(x, w2, b2) [sum] m = Add(a, e) c = Relu(m)",
        _SECOND,
        {"QLinearConv": 3, "QLinearAdd": 1},
        ("Add",),
    ),
    "Mul": Model(
        "[side] e = Conv(x, w2, b2) [product] c = Mul(a, e)",
        _SECOND,
        {"QLinearConv": 3, "QLinearMul": 1},
        ("Mul",),
    ),
    "Sigmoid": Model("c = Sigmoid(a)", {}, {"QLinearConv": 2, "QLinearSigmoid": 1}, ("Sigmoid",)),
    "SiLU": Model(
        "e = Sigmoid(a) c = Mul(a, e)",
        {},
        {"QLinearConv": 2, "QLinearSigmoid": 1, "QLinearMul": 1},
        ("Sigmoid", "Mul"),
    ),
    "LeakyRelu": Model(
        "c = LeakyRelu<alpha = 0.1>(a)",
        {},
        {"QLinearConv": 2, "QLinearLeakyRelu": 1},
        ("LeakyRelu",),
    ),
    "Concat": Model(
        "[side] e = Conv(x, w2, b2) c = Concat<axis = 1>(a, e)",
        {**_SECOND, **weights(w4=(24, 48, 1, 1))},
        {"QLinearConv": 3, "QLinearConcat": 1},
        ("Concat",),
    ),
    "GlobalAveragePool": Model(
        "c = GlobalAveragePool(a)",
        {},
        {"QLinearConv": 2, "QLinearGlobalAveragePool": 1},
        ("GlobalAveragePool",),
    ),
    "MaxPool": Model(
        "c = MaxPool<kernel_shape = [3, 3], strides = [2, 2]>(a)",
        {},
        {"QLinearConv": 2},
        ("MaxPool",),
    ),
    "Resize": Model(
        'c = Resize<mode = "nearest">(a, , sizes)',
        {"sizes": np.array([1, 1, 2, 2], np.float32)},
        {"QLinearConv": 2},
        ("Resize",),
    ),
    "Resize-linear": Model(
        '[linear] c = Resize<mode = "linear">(a, , sizes)',
        {"sizes": np.array([1, 1, 2, 2], np.float32)},
        {"QLinearConv": 2},
        ("Conv",),
        # It mixes neighbours in float, so its result is quantized again.
        left=(2, 2),
    ),
    "Reshape": Model(
        "c = Reshape(a, s)", {"s": _ints(-1, 24, 4, 16)}, {"QLinearConv": 2}, ("Reshape",)
    ),
    "Transpose": Model(
        "c = Transpose<perm = [0, 1, 3, 2]>(a)", {}, {"QLinearConv": 2}, ("Transpose",)
    ),
    "Squeeze": Model(
        "e = Unsqueeze(a, axis) c = Squeeze(e, axis)",
        {"axis": _ints(2)},
        {"QLinearConv": 2},
        ("Unsqueeze", "Squeeze"),
    ),
    "Slice": Model(
        "c = Slice(a, start, end, axis)",
        {"start": _ints(1), "end": _ints(6), "axis": _ints(2)},
        {"QLinearConv": 2},
        ("Slice",),
    ),
    "Gather": Model(
        "c = Gather<axis = 2>(a, ix)", {"ix": _ints(1, 3, 5)}, {"QLinearConv": 2}, ("Gather",)
    ),
    "Split": Model(
        "e, f = Split<axis = 2{split}>(a) c = Add(e, f)",
        {},
        {"QLinearConv": 2, "QLinearAdd": 1},
        ("Split", "Add"),
    ),
}


def largest_error(quantized: Quantized, feeds: Feeds, *, against_float: bool = True) -> float:
    """How far the output of the quantized model can be from the float one, for these feeds.

    Every step is a bound on the largest error of any element, of a model whose ranges contain the
    values that ``feeds`` give:

    - QuantizeLinear adds half a step for rounding, and half a step because a rounded zero point
      moves the range by so much. Where it clips, it clips towards the true value.
    - A layer with weights v in place of w multiplies the error by sum|v|, and adds sum|v - w| times
      the largest activation, and the error of the bias.
    - Sigmoid has a slope of at most 1/4; Softmax of at most 1/2; products follow the product rule.
    - Float arithmetic itself errs by far less than a thousandth of a step.

    Args:
        quantized: only named layers may have weights.
        feeds: one sample.
        against_float: whether errors of weights count; without, the bound is for two
            implementations of the same quantized model that round in different ways.
    """
    values = _run_all(quantized.float_model, feeds)
    layers = {node.name: node for node in quantized.float_model.graph.node if node.name}
    floats = {
        one.name: numpy_helper.to_array(one) for one in quantized.float_model.graph.initializer
    }
    error: dict[str, float] = dict.fromkeys(feeds, 0.0)
    largest = {name: float(np.abs(array).max()) for name, array in values.items()}
    largest |= {name: float(np.abs(array).max()) for name, array in feeds.items()}
    for node in quantized.model.graph.node:
        if all(name not in error for name in node.input):
            continue
        kind = node.op_type
        first = error.get(node.input[0], 0.0)
        peak = largest.get(node.input[0], 0.0)
        inputs = [name for name in node.input if name in error]
        if kind == "QuantizeLinear":
            found = first + 1.001 * float(quantized.read_constant(node.input[1]).max())
        elif kind in ("Conv", "MatMul", "Gemm", *_PRODUCTS):
            found = _layer_error(
                quantized, node, layers[node.name], floats, first, peak, against_float
            )
        elif kind == "Add":
            found = sum(error[name] for name in inputs)
        elif kind == "Mul":
            one, other = node.input
            found = error[one] * largest[other] + error[other] * largest[one]
            found += error[one] * error[other]
        else:
            slope = {"Sigmoid": 0.25, "Softmax": 0.5}.get(kind, 1.0)
            found = slope * max(error[name] for name in inputs)
        for name in node.output:
            error[name] = found
            if kind in ("QuantizeLinear", "DequantizeLinear"):
                largest[name] = peak
    return max(error[one.name] for one in quantized.model.graph.output)


def _layer_error(
    quantized: Quantized,
    node: onnx.NodeProto,
    original: onnx.NodeProto,
    floats: Mapping[str, Array],
    error: float,
    peak: float,
    against_float: bool,
) -> float:
    stored = stored_weight(quantized, node.name)
    off = np.abs(stored - floats[original.input[1]]) if against_float else np.zeros_like(stored)
    outputs = 0 if node.op_type == "Conv" or _is_transposed(node) else stored.ndim - 1
    axes = tuple(axis for axis in range(stored.ndim) if axis != outputs)
    bound = np.abs(stored).sum(axes) * error + off.sum(axes) * peak
    if len(original.input) > 2 and against_float:
        integers, scale, _ = weight_of(quantized, node.name, 2)
        bound = bound + np.abs(integers * np.float64(scale) - floats[original.input[2]])
    return float(bound.max())


def _run_all(model: onnx.ModelProto, feeds: Feeds) -> dict[str, Array]:
    """Every value of the main graph."""
    full = onnx.ModelProto()
    full.CopyFrom(model)
    del full.graph.output[:]
    names = [name for node in full.graph.node for name in node.output if name]
    full.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return dict(zip(names, run(full, feeds), strict=True))
