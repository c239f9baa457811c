"""com.microsoft Attention as QAttention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from tests.apply.quantized import (
    Array,
    Quantized,
    quantize,
    quantize_like_dynamic_quantize_linear,
    run,
)
from tests.models import float_weight, make_model

WIDTH, HEADS, LENGTH = 48, 4, 6


def attention(
    *, bias: bool = True, mask: str = "", past: bool = False, attributes: str = ""
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    rng = np.random.default_rng(0)
    weights = {"w": float_weight(rng, (WIDTH, 3 * WIDTH))}
    feeds = {"x": rng.standard_normal((2, LENGTH, WIDTH)).astype(np.float32)}
    inputs = [f"float[2, {LENGTH}, {WIDTH}] x"]
    outputs = [f"float[2, {LENGTH}, {WIDTH}] y"]
    if bias:
        weights["b"] = rng.standard_normal(3 * WIDTH).astype(np.float32)
    if mask == "lengths":
        feeds["m"] = np.array([LENGTH, LENGTH - 2], np.int32)
        inputs.append("int32[2] m")
    elif mask == "matrix":
        feeds["m"] = np.array([[1] * LENGTH, [1] * (LENGTH - 1) + [0]], np.int32)
        inputs.append(f"int32[2, {LENGTH}] m")
    if past:
        shape = (2, 2, HEADS, 3, WIDTH // HEADS)
        feeds["p"] = rng.standard_normal(shape).astype(np.float32)
        inputs.append(f"float[{', '.join(map(str, shape))}] p")
        outputs.append(f"float[2, 2, {HEADS}, {LENGTH + 3}, {WIDTH // HEADS}] present")
    model = make_model(
        f"{'y, present' if past else 'y'} = com.microsoft.Attention"
        f"<num_heads = {HEADS}{attributes}>(x, w)",
        ", ".join(inputs),
        ", ".join(outputs),
        weights,
        contrib=True,
    )
    (node,) = model.graph.node
    node.name = "attention"
    node.input.extend(["b" if bias else "", "m" if mask else "", "p" if past else ""])
    while not node.input[-1]:
        node.input.pop()
    return model, feeds


def run_float_on_stored(quantized: Quantized, feeds: dict[str, Array]) -> list[Array]:
    """The float Attention on the stored weight and on what 8 bits leave of x."""
    (node,) = (one for one in quantized.model.graph.node if one.op_type == "QAttention")
    integers, scale, zero_point = (quantized.initializer(node.input[at]) for at in (1, 4, 7))
    stored = (integers.astype(np.float32) - zero_point.astype(np.float32)) * scale
    twin = onnx.ModelProto()
    twin.CopyFrom(quantized.float_model)
    for tensor in twin.graph.initializer:
        if tensor.name == "w":
            exact = numpy_helper.to_array(tensor)
            assert np.all(np.abs(stored - exact) <= scale * (1 + 1e-5))
            tensor.CopyFrom(numpy_helper.from_array(stored, "w"))
    return run(twin, {**feeds, "x": quantize_like_dynamic_quantize_linear(feeds["x"])})


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"mask": "lengths"},
        {"mask": "matrix"},
        {"past": True},
        {"attributes": ", unidirectional = 1"},
        {"past": True, "mask": "", "attributes": ", unidirectional = 1"},
    ],
    ids=["plain", "mask-of-lengths", "mask-matrix", "past", "causal", "causal-past"],
)
def test_equals_float_on_the_stored_weight(variant: dict[str, Any], tmp_path: Path) -> None:
    model, feeds = attention(**variant)
    quantized = quantize(model, tmp_path)
    assert quantized.operators() == {"DynamicQuantizeLinear": 1, "QAttention": 1}
    for actual, expected in zip(
        quantized.run(feeds), run_float_on_stored(quantized, feeds), strict=True
    ):
        # float32 sums of 48 products of numbers of a few units; softmax and averages shrink them.
        np.testing.assert_allclose(actual, expected, rtol=0, atol=WIDTH * 6e-8 * 16)


@pytest.mark.parametrize(
    "options",
    [{"weights": "uint8"}, {"per_channel": False}, {"symmetric": False}, {"reduce_range": True}],
    ids=str,
)
def test_every_scheme_equals_float_on_the_stored_weight(
    options: dict[str, Any], tmp_path: Path
) -> None:
    model, feeds = attention(mask="lengths")
    quantized = quantize(model, tmp_path, **options)
    (expected,) = run_float_on_stored(quantized, feeds)
    np.testing.assert_allclose(quantized.run(feeds)[0], expected, rtol=0, atol=WIDTH * 6e-8 * 16)


@pytest.mark.parametrize(
    ("variant", "target", "reason"),
    [
        ({}, "onnx", "has no integer attention"),
        ({"attributes": ", scale = 0.5"}, "ort-cpu", "has no attribute 'scale'"),
    ],
    ids=["target", "attribute"],
)
def test_attention_that_the_kernel_cannot_take_is_stored(
    variant: dict[str, Any], target: str, reason: str, tmp_path: Path
) -> None:
    model, feeds = attention(**variant)
    quantized = quantize(model, tmp_path, target=target)
    plan = next(one for one in quantized.result.plan.tensors if one.name == "w")
    assert reason in plan.explanation
    np.testing.assert_array_equal(quantized.run(feeds)[0], quantized.run_twin(feeds)[0])


@pytest.mark.skipif(
    tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 24),
    reason="onnxruntime before 1.24 crashes on the float model: Attention without a bias",
)
def test_attention_without_bias_stays_valid(tmp_path: Path) -> None:
    model, feeds = attention(bias=False)
    quantized = quantize(model, tmp_path)
    (expected,) = run_float_on_stored(quantized, feeds)
    np.testing.assert_allclose(quantized.run(feeds)[0], expected, rtol=0, atol=WIDTH * 6e-8 * 16)
