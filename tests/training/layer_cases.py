"""Layers: convolutions, products, normalizations, poolings, resizing, recurrence, integers."""

from __future__ import annotations

import numpy as np

from tests.training.operator_cases import Case, fixed, positive, real, whole

IMAGE = {"x": real(2, 4, 7, 9)}

CONVOLUTIONS = (
    Case(
        "Conv",
        "y = Conv<pads = [1, 0, 2, 1], strides = [2, 1]>(x, w, b)",
        IMAGE,
        {"w": real(6, 4, 3, 3), "b": real(6)},
    ),
    Case(
        "Conv depthwise",
        "y = Conv<group = 4, dilations = [2, 1]>(x, w)",
        IMAGE,
        {"w": real(8, 1, 2, 3)},
    ),
    Case(
        "Conv of one axis",
        'y = Conv<auto_pad = "SAME_UPPER", strides = [3]>(x, w)',
        {"x": real(2, 4, 11)},
        {"w": real(5, 4, 4)},
    ),
    Case(
        "Conv padded more before",
        'y = Conv<auto_pad = "SAME_LOWER", strides = [2, 2]>(x, w)',
        IMAGE,
        {"w": real(5, 4, 3, 2)},
    ),
    Case(
        "Conv of three axes",
        "y = Conv(x, w)",
        {"x": real(1, 2, 4, 5, 6)},
        {"w": real(3, 2, 2, 2, 2)},
    ),
    Case("Conv valid", 'y = Conv<auto_pad = "VALID">(x, w)', IMAGE, {"w": real(3, 4, 3, 3)}),
    Case(
        "ConvTranspose",
        "y = ConvTranspose<strides = [2, 3], pads = [1, 0, 0, 2], output_padding = [1, 0]>"
        "(x, w, b)",
        IMAGE,
        {"w": real(4, 3, 3, 4), "b": real(3)},
    ),
    Case(
        "ConvTranspose in groups",
        "y = ConvTranspose<group = 2, dilations = [1, 2]>(x, w)",
        IMAGE,
        {"w": real(4, 3, 2, 2)},
    ),
    Case(
        "ConvTranspose of a size",
        "y = ConvTranspose<output_shape = [13, 18], strides = [2, 2]>(x, w)",
        IMAGE,
        {"w": real(4, 3, 3, 3)},
    ),
)

PRODUCTS = (
    Case(
        "Gemm",
        "y = Gemm<transA = 1, transB = 1, alpha = 0.5, beta = 2.0>(x, w, b)",
        {"x": real(4, 3)},
        {"w": real(5, 4), "b": real(5)},
    ),
    Case("Gemm without bias", "y = Gemm<alpha = 0.5>(x, w)", {"x": real(3, 4)}, {"w": real(4, 5)}),
)

NORMALIZATIONS = (
    Case(
        "BatchNormalization",
        "y = BatchNormalization<epsilon = 0.01>(x, s, b, m, v)",
        IMAGE,
        {"s": real(4), "b": real(4), "m": real(4), "v": positive(4)},
    ),
    Case(
        "LayerNormalization",
        "y = LayerNormalization(x, s, b)",
        {"x": real(2, 3, 8)},
        {"s": real(8), "b": real(8)},
    ),
    Case(
        "LayerNormalization with statistics",
        "y, m, i = LayerNormalization<axis = 1>(x, s)",
        {"x": real(2, 3, 8)},
        {"s": real(3, 8)},
        ("y", "m", "i"),
    ),
    Case(
        "InstanceNormalization",
        "y = InstanceNormalization(x, s, b)",
        IMAGE,
        {"s": real(4), "b": real(4)},
    ),
    Case(
        "GroupNormalization",
        "y = GroupNormalization<num_groups = 2>(x, s, b)",
        IMAGE,
        {"s": real(4), "b": real(4)},
        opset=21,
    ),
    Case(
        "RMSNormalization",
        "y = RMSNormalization(x, s)",
        {"x": real(2, 3, 8)},
        {"s": real(8)},
        opset=23,
    ),
    Case(
        "SimplifiedLayerNormalization",
        "y = SimplifiedLayerNormalization(x, s)",
        {"x": real(2, 3, 8)},
        {"s": real(8)},
    ),
)

POOLINGS = (
    Case(
        "MaxPool",
        "y = MaxPool<kernel_shape = [3, 2], strides = [2, 2], pads = [1, 0, 1, 1]>(x)",
        IMAGE,
    ),
    Case(
        "MaxPool rounded up",
        "y = MaxPool<kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1>(x)",
        IMAGE,
    ),
    Case("MaxPool dilated", "y = MaxPool<kernel_shape = [2, 2], dilations = [2, 3]>(x)", IMAGE),
    Case("MaxPool of one axis", "y = MaxPool<kernel_shape = [3]>(x)", {"x": real(2, 3, 8)}),
    Case("AveragePool", "y = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 0, 1]>(x)", IMAGE),
    Case(
        "AveragePool with padding",
        "y = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1>(x)",
        IMAGE,
    ),
    Case(
        "AveragePool rounded up",
        "y = AveragePool<kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1>(x)",
        IMAGE,
    ),
)

RESIZES = (
    *tuple(
        Case(
            f"Resize {mode} {coordinates}",
            f'y = Resize<mode = "{mode}", coordinate_transformation_mode = "{coordinates}">'
            "(x, none, s)",
            {"x": real(1, 2, 5, 6)},
            {"none": fixed([]), "s": fixed([1.0, 1.0, 2.0, 1.5])},
        )
        for mode in ("nearest", "linear", "cubic")
        for coordinates in (*("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"),)
    ),
    Case(
        "Resize to a size",
        'y = Resize<mode = "linear">(x, none, none, s)',
        {"x": real(1, 2, 5, 6)},
        {"none": fixed([]), "s": fixed([1, 2, 3, 9], np.int64)},
    ),
    *(
        Case(
            f"Resize nearest {how}",
            f'y = Resize<nearest_mode = "{how}">(x, none, s)',
            {"x": real(1, 1, 5, 6)},
            {"none": fixed([]), "s": fixed([1.0, 1.0, 1.7, 0.6])},
        )
        for how in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
    ),
    Case(
        "Resize cubic inside",
        'y = Resize<mode = "cubic", exclude_outside = 1>(x, none, s)',
        {"x": real(1, 1, 5, 6)},
        {"none": fixed([]), "s": fixed([1.0, 1.0, 2.0, 2.0])},
    ),
    Case(
        "Upsample",
        "y = Upsample(x, s)",
        {"x": real(1, 1, 3, 4)},
        {"s": fixed([1.0, 1.0, 2.0, 3.0])},
        opset=9,
    ),
)

HIDDEN, WIDTH = 5, 4


def recurrent(
    operator: str, gates: int, attributes: str = "", *, directions: int = 1, more: str = ""
) -> Case:
    """A recurrent layer; ``more`` is what comes after its bias."""
    outputs = ("y", "h", "c") if operator == "LSTM" else ("y", "h")
    name = f"{operator} {attributes} {more}".strip()
    known = {
        "w": real(directions, gates * HIDDEN, WIDTH),
        "r": real(directions, gates * HIDDEN, HIDDEN),
        "b": real(directions, 2 * gates * HIDDEN),
        "lengths": fixed([6, 2, 4], np.int32),
        "h0": real(directions, 3, HIDDEN),
        "c0": real(directions, 3, HIDDEN),
        "p": real(directions, 3 * HIDDEN),
    }
    used = [one.strip() for one in ("w,r,b," + more).split(",") if one.strip()]
    nodes = (
        f"{', '.join(outputs)} = {operator}<hidden_size = {HIDDEN}{attributes}>"
        f"(x, w, r, b{', ' + more if more else ''})"
    )
    constants = {one: known[one] for one in used if one in known}
    return Case(name, nodes, {"x": real(6, 3, WIDTH)}, constants, outputs)


BOTH = ', direction = "bidirectional"'

RECURRENCES = (
    recurrent("LSTM", 4),
    recurrent("LSTM", 4, BOTH, directions=2, more="lengths, h0, c0, p"),
    recurrent("LSTM", 4, ', direction = "reverse", clip = 0.5, input_forget = 1'),
    recurrent("GRU", 3),
    recurrent("GRU", 3, ", linear_before_reset = 1" + BOTH, directions=2, more="lengths, h0"),
    recurrent("RNN", 1, BOTH + ', activations = ["Relu", "Tanh"]', directions=2),
)

INTEGERS = (
    Case(
        "QuantizeLinear",
        "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)",
        IMAGE,
        {"s": fixed(0.02), "z": fixed(100, np.uint8)},
    ),
    Case(
        "QuantizeLinear without pair",
        "q = QuantizeLinear(x, s, z) y = Cast<to = 1>(q)",
        IMAGE,
        {"s": fixed(0.02), "z": fixed(3, np.int8)},
    ),
    Case(
        "QuantizeLinear by channel",
        "q = QuantizeLinear<axis = 1>(x, s, z) y = DequantizeLinear<axis = 1>(q, s, z)",
        IMAGE,
        {"s": fixed([0.02, 0.1, 0.01, 0.5]), "z": fixed([0, 9, -9, 127], np.int8)},
    ),
    Case(
        "QuantizeLinear to sixteen levels",
        "q = QuantizeLinear(x, s, z) l = Clip(q, low, high) y = DequantizeLinear(l, s, z)",
        IMAGE,
        {
            "s": fixed(0.2),
            "z": fixed(3, np.uint8),
            "low": fixed(0, np.uint8),
            "high": fixed(15, np.uint8),
        },
    ),
    Case(
        "DequantizeLinear in blocks",
        "y = DequantizeLinear<axis = 0, block_size = 2>(q, s)",
        {"q": whole(-8, 8, 6, 3, dtype=np.int8)},
        {"s": positive(3, 3)},
        opset=21,
    ),
    Case(
        "MatMulInteger",
        "q, s, z = DynamicQuantizeLinear(x) p = MatMulInteger(q, w, z) y = Cast<to = 1>(p)",
        {"x": real(3, 8)},
        {"w": whole(-63, 64, 8, 5, dtype=np.int8)},
    ),
    Case(
        "MatMulInteger with zero points of columns",
        "p = MatMulInteger(x, w, z, v) y = Cast<to = 1>(p)",
        {"x": whole(0, 64, 3, 8, dtype=np.uint8)},
        {
            "w": whole(0, 64, 8, 5, dtype=np.uint8),
            "z": fixed(7, np.uint8),
            "v": whole(0, 9, 5, dtype=np.uint8),
        },
    ),
)

SCALES = {"sa": fixed(0.02), "za": fixed(90, np.uint8), "sb": positive(5)}

MICROSOFT = (
    Case("com.microsoft.Gelu", "y = com.microsoft.Gelu(x)", IMAGE),
    Case("com.microsoft.FastGelu", "y = com.microsoft.FastGelu(x, b)", IMAGE, {"b": real(9)}),
    Case("com.microsoft.QuickGelu", "y = com.microsoft.QuickGelu(x)", IMAGE),
    Case("com.microsoft.BiasGelu", "y = com.microsoft.BiasGelu(x, b)", IMAGE, {"b": real(9)}),
    Case(
        "com.microsoft.SkipLayerNormalization",
        "y = com.microsoft.SkipLayerNormalization<epsilon = 0.001>(x, k, s, b)",
        {"x": real(2, 3, 8), "k": real(2, 3, 8)},
        {"s": real(8), "b": real(8)},
    ),
    Case(
        "com.microsoft.MatMulIntegerToFloat",
        "y = com.microsoft.MatMulIntegerToFloat(x, w, sa, sb, za, none, b)",
        {"x": whole(0, 256, 3, 8, dtype=np.uint8)},
        {
            **SCALES,
            "w": whole(-63, 64, 8, 5, dtype=np.int8),
            "b": real(5),
            "none": fixed([0] * 5, np.int8),
        },
    ),
    Case(
        "com.microsoft.DynamicQuantizeMatMul",
        "y = com.microsoft.DynamicQuantizeMatMul(x, w, sb, none, b)",
        {"x": real(3, 8)},
        {
            "w": whole(-63, 64, 8, 5, dtype=np.int8),
            "sb": positive(5),
            "b": real(5),
            "none": fixed([0] * 5, np.int8),
        },
    ),
    Case(
        "com.microsoft.QGemm",
        "y = com.microsoft.QGemm<transB = 1>(x, sa, za, w, sb, zb, b)",
        {"x": whole(0, 256, 3, 8, dtype=np.uint8)},
        {
            **SCALES,
            "w": whole(-63, 64, 5, 8, dtype=np.int8),
            "zb": fixed([0] * 5, np.int8),
            "b": whole(-99, 99, 5, dtype=np.int32),
        },
    ),
)
