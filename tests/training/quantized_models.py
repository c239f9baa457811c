"""A small quantized network, made by static mode, with everything that is trained in it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnx_ir as ir

import onnxq
from tests.apply.calibrated_models import Array, save_samples, weights
from tests.models import make_model, save

CHANNELS = 24
SAMPLES = 10


def network() -> onnx.ModelProto:
    """Two convolutions, one of them with a Clip behind it, a pooling that moves, and a Gemm."""
    return make_model(
        """[first] a0 = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)
           a = Clip(a0, zero, six)
           [pool] p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(a)
           [second] c0 = Conv(p, w2, b2)
           c = Relu(c0)
           g = GlobalAveragePool(c)
           f = Flatten(g)
           [last] y = Gemm<transB = 1>(f, w3, b3)""",
        f"float[N, {CHANNELS}, 8, 8] x",
        "float[N, 12] y",
        {
            **weights(
                w1=(32, CHANNELS, 3, 3),
                b1=(32,),
                w2=(32, 32, 1, 1),
                b2=(32,),
                w3=(12, 32),
                b3=(12,),
            ),
            "zero": np.float32(0.0),
            "six": np.float32(1.5),
        },
    )


def samples(count: int = SAMPLES) -> list[dict[str, Array]]:
    """Images with structure, so that there is something to learn: few directions, some noise."""
    rng = np.random.default_rng(3)
    basis = rng.standard_normal((4, CHANNELS, 8, 8))
    weight = rng.standard_normal((count, 4))
    noise = rng.standard_normal((count, CHANNELS, 8, 8))
    mixed = np.einsum("nk,kchw->nchw", weight, basis) + 0.1 * noise
    return [{"x": one[None].astype(np.float32)} for one in mixed]


@cache
def quantize(bits_activations: int = 8) -> tuple[bytes, bytes]:
    """The float network, and what static mode makes of it with weights of 4 bits."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        source = save(network(), folder / "net.onnx")
        data = save_samples(samples(), folder / "samples")
        output = folder / "net.static.onnx"
        onnxq.quantize_static(
            source,
            data,
            output,
            weights="int4",
            activations="uint4" if bits_activations == 4 else "uint8",
            accuracy="fast",
            method="minmax",
        )
        return source.read_bytes(), output.read_bytes()


def load(bits_activations: int = 8) -> ir.Model:
    """The quantized network."""
    return ir.from_proto(onnx.load_from_string(quantize(bits_activations)[1]))
