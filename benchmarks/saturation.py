"""Which integer kernels of onnxruntime add products inexactly on this processor.

Without VNNI, x86 kernels add the products of two neighbours in 16 bits, and what does not fit is
cut off. Each case feeds the largest activations and weights, where all products have one sign, so
that the cut shows at its largest: the sum comes out at about half.

Run: ``python benchmarks/saturation.py``. The table is in ``docs/targets.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

MICROSOFT = "com.microsoft"
REDUCTION = 64
COLUMNS = 64
LARGEST_U8, LARGEST_S8 = 255, 127
REDUCED_S8 = 63
INEXACT = 0.02

Arrays = Mapping[str, np.ndarray]


def run(node: onnx.NodeProto, feeds: Arrays, constants: Arrays, output: int) -> np.ndarray:
    """The first output of one node, its weights constant as in a model."""
    graph = helper.make_graph(
        [node],
        "one node",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(one.dtype), one.shape
            )
            for name, one in feeds.items()
        ],
        [helper.make_tensor_value_info(node.output[0], output, None)],
        [numpy_helper.from_array(np.asarray(one), name) for name, one in constants.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, dict(feeds))[0]


def _full(dtype: type, value: int, *shape: int) -> np.ndarray:
    return np.full(shape, value, dtype)


def _one(value: float, dtype: type = np.float32) -> np.ndarray:
    return np.asarray(value, dtype)


def matrix(rows: int, weight: np.ndarray, *, constant: bool = True) -> float:
    """MatMulInteger, whose sums are integers."""
    left = _full(np.uint8, LARGEST_U8, rows, REDUCTION)
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    feeds, constants = {"x": left}, {"w": weight}
    if not constant:
        feeds, constants = {**feeds, **constants}, {}
    found = run(node, feeds, constants, TensorProto.INT32)
    return _error(found, left.astype(np.int64) @ weight.astype(np.int64))


def matrix_to_float(rows: int, weight: np.ndarray) -> float:
    """MatMulIntegerToFloat."""
    left = _full(np.uint8, LARGEST_U8, rows, REDUCTION)
    node = helper.make_node("MatMulIntegerToFloat", ["x", "w", "xs", "ws"], ["y"], domain=MICROSOFT)
    constants = {"w": weight, "xs": _one(1.0), "ws": _one(1.0)}
    found = run(node, {"x": left}, constants, TensorProto.FLOAT)
    return _error(found, left.astype(np.int64) @ weight.astype(np.int64))


def linear_matrix(rows: int, weight: np.ndarray) -> float:
    """QLinearMatMul, its result scaled to half of 255 or so."""
    left = _full(np.uint8, LARGEST_U8, rows, REDUCTION)
    sums = left.astype(np.int64) @ weight.astype(np.int64)
    scale = float(sums.max()) / 200
    inputs = ["x", "one", "zx", "w", "one", "zw", "ys", "zy"]
    node = helper.make_node("QLinearMatMul", inputs, ["y"])
    constants = _linear_constants(weight, scale)
    return _error(run(node, {"x": left}, constants, TensorProto.UINT8) * scale, sums)


def linear_gemm(rows: int, weight: np.ndarray) -> float:
    """QGemm."""
    left = _full(np.uint8, LARGEST_U8, rows, REDUCTION)
    sums = left.astype(np.int64) @ weight.astype(np.int64)
    scale = float(sums.max()) / 200
    inputs = ["x", "one", "zx", "w", "one", "zw", "", "ys", "zy"]
    node = helper.make_node("QGemm", inputs, ["y"], domain=MICROSOFT)
    constants = _linear_constants(weight, scale)
    return _error(run(node, {"x": left}, constants, TensorProto.UINT8) * scale, sums)


def convolution(
    channels: int,
    kernel: tuple[int, ...],
    group: int,
    weight: int,
    *,
    activation: type = np.uint8,
    dtype: type = np.int8,
) -> float:
    """QLinearConv with as many outputs as inputs."""
    reduction = channels // group * int(np.prod(kernel))
    inputs = LARGEST_U8 if activation is np.uint8 else LARGEST_S8
    image = _full(activation, inputs, 1, channels, *(one + 7 for one in kernel))
    sums = reduction * inputs * weight
    scale = sums / (200 if activation is np.uint8 else 100)
    names = ["x", "one", "zx", "w", "one", "zw", "ys", "zy"]
    node = helper.make_node("QLinearConv", names, ["y"], group=group)
    constants = _linear_constants(
        _full(dtype, weight, channels, channels // group, *kernel), scale, activation
    )
    found = run(node, {"x": image}, constants, helper.np_dtype_to_tensor_dtype(image.dtype))
    return _error(found * scale, np.asarray(sums))


def _linear_constants(weight: np.ndarray, scale: float, activation: type = np.uint8) -> Arrays:
    return {
        **{"w": weight, "one": _one(1.0), "ys": _one(scale)},
        **{"zx": _one(0, activation), "zy": _one(0, activation), "zw": _one(0, weight.dtype.type)},
    }


def lstm(weight: int) -> float:
    """DynamicQuantizeLSTM, one step, against its formula."""
    hidden = REDUCTION
    scale = 1.0 / (REDUCTION * weight)
    names = ["x", "w", "r", "", "", "", "", "", "ws", "wz", "rs", "rz"]
    node = helper.make_node(
        "DynamicQuantizeLSTM", names, ["y"], domain=MICROSOFT, hidden_size=hidden
    )
    matrices = {name: _full(np.int8, weight, 1, REDUCTION, 4 * hidden) for name in "wr"}
    scales = {name: _full(np.float32, 1, 1) * np.float32(scale) for name in ("ws", "rs")}
    zeros = {name: _full(np.int8, 0, 1) for name in ("wz", "rz")}
    feeds = {"x": _full(np.float32, 1, 1, 1, REDUCTION)}
    found = run(node, feeds, {**matrices, **scales, **zeros}, TensorProto.FLOAT)
    gate = 1 / (1 + np.exp(-1.0))
    return _error(found, np.asarray(gate * np.tanh(gate * np.tanh(1.0))))


def attention(weight: int) -> float:
    """QAttention of one position: its result is the value projection."""
    names = ["x", "w", "b", "xs", "ws", "", "xz", "wz"]
    node = helper.make_node("QAttention", names, ["y"], domain=MICROSOFT, num_heads=1)
    constants = {
        "w": _full(np.int8, weight, REDUCTION, 3 * REDUCTION),
        "b": _full(np.float32, 0, 3 * REDUCTION),
        **{"xs": _one(1 / LARGEST_U8), "ws": _one(1 / (weight * REDUCTION))},
        **{"xz": _one(0, np.uint8), "wz": _one(0, np.int8)},
    }
    feeds = {"x": _full(np.uint8, LARGEST_U8, 1, 1, REDUCTION)}
    return _error(run(node, feeds, constants, TensorProto.FLOAT), np.asarray(1.0))


def blocks(bits: int, rows: int) -> float:
    """MatMulNBits with activations quantized at run time; its integers have no sign."""
    block = 32
    stored = 2**bits - 1
    packed = _full(np.uint8, 255, COLUMNS, REDUCTION // block, block * bits // 8)
    node = helper.make_node(
        "MatMulNBits",
        ["x", "w", "s"],
        ["y"],
        **{"domain": MICROSOFT, "K": REDUCTION, "N": COLUMNS, "bits": bits, "block_size": block},
        accuracy_level=4,
    )
    constants = {"w": packed, "s": _full(np.float32, 1, COLUMNS * REDUCTION // block)}
    feeds = {"x": _full(np.float32, 1, rows, REDUCTION)}
    expected = REDUCTION * (stored - 2 ** (bits - 1))
    return _error(run(node, feeds, constants, TensorProto.FLOAT), np.asarray(float(expected)))


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest error, relative to the largest result."""
    return float(np.max(np.abs(found - expected)) / np.max(np.abs(expected)))


def make_cases() -> Mapping[str, Callable[[], float]]:
    """Each kernel with the largest integers of its types."""
    s8 = _full(np.int8, LARGEST_S8, REDUCTION, COLUMNS)
    u8 = _full(np.uint8, LARGEST_U8, REDUCTION, COLUMNS)
    s7 = _full(np.int8, REDUCED_S8, REDUCTION, COLUMNS)
    return {
        "MatMulInteger, 1 row": lambda: matrix(1, s8),
        "MatMulInteger, 8 rows": lambda: matrix(8, s8),
        "MatMulInteger, 8 rows, weight not constant": lambda: matrix(8, s8, constant=False),
        "MatMulInteger, 8 rows, uint8 weights": lambda: matrix(8, u8),
        "MatMulInteger, 8 rows, 7-bit weights": lambda: matrix(8, s7),
        "MatMulIntegerToFloat, 1 row": lambda: matrix_to_float(1, s8),
        "MatMulIntegerToFloat, 8 rows": lambda: matrix_to_float(8, s8),
        "QLinearMatMul, 1 row": lambda: linear_matrix(1, s8),
        "QLinearMatMul, 8 rows": lambda: linear_matrix(8, s8),
        "QGemm, 1 row": lambda: linear_gemm(1, s8),
        "QGemm, 8 rows": lambda: linear_gemm(8, s8),
        "QGemm, 8 rows, uint8 weights": lambda: linear_gemm(8, u8),
        "QLinearConv 3x3": lambda: convolution(64, (3, 3), 1, LARGEST_S8),
        "QLinearConv 1x1": lambda: convolution(64, (1, 1), 1, LARGEST_S8),
        "QLinearConv 3x3 of 1 channel": lambda: convolution(1, (3, 3), 1, LARGEST_S8),
        "QLinearConv, one axis": lambda: convolution(64, (3,), 1, LARGEST_S8),
        "QLinearConv, three axes": lambda: convolution(16, (3, 3, 3), 1, LARGEST_S8),
        "QLinearConv 3x3, 16 groups of 4": lambda: convolution(64, (3, 3), 16, LARGEST_S8),
        "QLinearConv 3x3, 32 groups of 2": lambda: convolution(64, (3, 3), 32, LARGEST_S8),
        "QLinearConv 3x3, depthwise": lambda: convolution(64, (3, 3), 64, LARGEST_S8),
        "QLinearConv 5x5, depthwise": lambda: convolution(67, (5, 5), 67, LARGEST_S8),
        "QLinearConv, one axis, depthwise": lambda: convolution(64, (9,), 64, LARGEST_S8),
        "QLinearConv, three axes, depthwise": lambda: convolution(16, (3, 3, 3), 16, LARGEST_S8),
        "QLinearConv 3x3, depthwise, 2 channels": lambda: convolution(2, (3, 3), 2, LARGEST_S8),
        "QLinearConv 3x3, int8 activations": lambda: convolution(
            64, (3, 3), 1, LARGEST_S8, activation=np.int8
        ),
        "QLinearConv 3x3, depthwise, int8 activations": lambda: convolution(
            64, (3, 3), 64, LARGEST_S8, activation=np.int8
        ),
        "QLinearConv 3x3, uint8 weights": lambda: convolution(
            64, (3, 3), 1, LARGEST_U8, dtype=np.uint8
        ),
        "QLinearConv 3x3, 7-bit weights": lambda: convolution(64, (3, 3), 1, REDUCED_S8),
        "DynamicQuantizeLSTM": lambda: lstm(LARGEST_S8),
        "DynamicQuantizeLSTM, 7-bit weights": lambda: lstm(REDUCED_S8),
        "QAttention": lambda: attention(LARGEST_S8),
        "QAttention, 7-bit weights": lambda: attention(REDUCED_S8),
        "MatMulNBits, 8 bits, 1 row": lambda: blocks(8, 1),
        "MatMulNBits, 8 bits, 8 rows": lambda: blocks(8, 8),
        "MatMulNBits, 4 bits, 1 row": lambda: blocks(4, 1),
        "MatMulNBits, 4 bits, 8 rows": lambda: blocks(4, 8),
    }


def main() -> None:
    """Print a row for each kernel."""
    print("| Kernel | relative error | |\n|---|---|---|")
    for name, measure in make_cases().items():
        error = measure()
        print(f"| {name} | {error:.3f} | {'inexact' if error > INEXACT else 'exact'} |")


if __name__ == "__main__":
    main()
