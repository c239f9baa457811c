"""MatMul and Gemm in integers, against the same product in float64."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.apply.quantized import (
    ELEMENT_TYPES,
    TARGETS,
    Array,
    Quantized,
    activation_step,
    domains,
    quantize,
)
from tests.models import float_weight, make_model

K, N, M = 96, 48, 5
"""A matrix of K x N elements is over the size from which integer kernels gain."""

ROUNDINGS = 8
"""At most so many operations round one element on its way to the output (scale times scale, times
alpha, times the sum, the narrowing Cast, the bias times beta, the addition), each by half a unit in
the last place of a number that is not larger than the sum of magnitudes."""


@dataclass(frozen=True)
class Product:
    """A MatMul or Gemm of an activation and a constant matrix.

    Attributes:
        node: the node in the textual form; reads x and w, and c where there is a bias.
        x: shape of the activation.
        w: shape of the weight.
        on_left: whether the weight is the left operand.
        flags: attributes of the Gemm.
        c: shape of the bias, None without one.
        fed_bias: whether the bias is an input of the model.
        free_axes: whether the activation is declared with names instead of sizes.
    """

    node: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    on_left: bool = False
    flags: Mapping[str, float] = field(default_factory=dict)
    c: tuple[int, ...] | None = None
    fed_bias: bool = False
    free_axes: bool = False

    def multiply(self, x: Array, w: Array) -> Array:
        """``alpha * x w`` in the order and with the transpositions of the node."""
        if self.on_left:
            left, right = w, x
        else:
            left, right = x, w
        if self.flags.get("transA"):
            left = left.T
        if self.flags.get("transB"):
            right = right.T
        return float(self.flags.get("alpha", 1.0)) * np.matmul(left, right)


def matmul(x: tuple[int, ...], w: tuple[int, ...], **more: Any) -> Product:
    operands = "w, x" if more.get("on_left") else "x, w"
    return Product(f"[mm] y = MatMul({operands})", x, w, **more)


def gemm(
    *,
    on_left: bool = False,
    c: tuple[int, ...] | None = None,
    fed_bias: bool = False,
    **flags: float,
) -> Product:
    transposed_x = flags.get("transB" if on_left else "transA", 0)
    transposed_w = flags.get("transA" if on_left else "transB", 0)
    x, w = ((K, M), (N, K)) if on_left else ((M, K), (K, N))
    operands = ["w", "x"] if on_left else ["x", "w"]
    attributes = ", ".join(f"{name} = {value}" for name, value in flags.items())
    return Product(
        f"[mm] y = Gemm<{attributes}>({', '.join(operands + ['c'] * (c is not None))})"
        if flags
        else f"[mm] y = Gemm({', '.join(operands + ['c'] * (c is not None))})",
        x[::-1] if transposed_x else x,
        w[::-1] if transposed_w else w,
        on_left=on_left,
        flags=flags,
        c=c,
        fed_bias=fed_bias,
    )


MATMULS = {
    "rank2": matmul((M, K), (K, N)),
    "rank3": matmul((2, M, K), (K, N)),
    "rank4": matmul((2, 3, M, K), (K, N)),
    "free-axes": matmul((2, M, K), (K, N), free_axes=True),
    "one-row": matmul((1, K), (K, N)),
    "stack-of-weights": matmul((2, M, K), (2, K, N)),
    "stack-of-weights-broadcast-over-x": matmul((2, 3, M, K), (3, K, N)),
    "stack-of-weights-on-matrix": matmul((M, K), (2, K, N)),
    "stack-of-weights-rank4": matmul((1, 2, M, K), (2, 1, K, N)),
    "left-rank2": matmul((K, M), (N, K), on_left=True),
    "left-rank3": matmul((2, K, M), (N, K), on_left=True),
    "left-rank4": matmul((2, 3, K, M), (N, K), on_left=True),
    "left-free-axes": matmul((2, K, M), (N, K), on_left=True, free_axes=True),
    "odd-sizes": matmul((3, 131), (131, 37)),
}

GEMMS = {
    "plain": gemm(),
    **{
        f"{'left' if on_left else 'right'}{'-transA' * trans_a}{'-transB' * trans_b}": gemm(
            on_left=on_left, transA=trans_a, transB=trans_b, c=(N,) if not on_left else (M,)
        )
        for on_left in (False, True)
        for trans_a in (0, 1)
        for trans_b in (0, 1)
    },
    "alpha": gemm(alpha=0.5),
    "negative-alpha": gemm(alpha=-2.0, c=(N,)),
    "beta": gemm(beta=0.5, c=(N,)),
    "beta-zero": gemm(beta=0.0, c=(N,)),
    "negative-beta-fed-bias": gemm(beta=-1.5, c=(M, N), fed_bias=True),
    "alpha-beta-transB": gemm(alpha=1.5, beta=2.0, transB=1, c=(N,)),
    "bias-scalar": gemm(c=()),
    "bias-one": gemm(c=(1,)),
    "bias-row": gemm(c=(1, N)),
    "bias-column": gemm(c=(M, 1)),
    "bias-matrix": gemm(c=(M, N)),
    "bias-fed": gemm(c=(N,), fed_bias=True),
    "left-bias-column": gemm(on_left=True, c=(N, 1)),
    "left-alpha-beta": gemm(on_left=True, alpha=0.5, beta=3.0, transA=1, c=(M,)),
}

PRODUCTS = {
    **{f"MatMul-{name}": one for name, one in MATMULS.items()},
    **{f"Gemm-{name}": one for name, one in GEMMS.items()},
}

OPTIONS: dict[str, dict[str, Any]] = {
    "int8": {},
    "uint8": {"weights": "uint8"},
    "uint8-symmetric": {"weights": "uint8", "symmetric": True},
    "int8-asymmetric": {"symmetric": False},
    "int8-per-tensor": {"per_channel": False},
    "uint8-per-tensor": {"weights": "uint8", "per_channel": False},
    "int8-reduce-range": {"reduce_range": True},
    "uint8-reduce-range": {"weights": "uint8", "reduce_range": True},
}


@dataclass(frozen=True)
class Run:
    """One product, quantized, with everything that its bound depends on."""

    product: Product
    quantized: Quantized
    feeds: dict[str, Array]
    weight: Array
    bias: Array | None

    def expected(self) -> Array:
        """The product in float64."""
        result = self.product.multiply(self._x, self.weight.astype(np.float64))
        if self.bias is not None:
            result = result + float(self.product.flags.get("beta", 1.0)) * self.bias
        return result

    def bound(self) -> Array:
        """Largest possible difference from :meth:`expected`.

        With x' = x + e, |e| <= s_x / 2 (DynamicQuantizeLinear rounds to nearest) and w' = w + d,
        |d| <= s_w (an element is rounded to one of its two neighbours):
        |x' w' - x w| <= sum over K of (|x| + s_x / 2) s_w + s_x / 2 |w|, and float rounding.
        """
        half_step = activation_step(self._x) / 2
        magnitude = np.abs(self._x) + half_step
        factor = abs(float(self.product.flags.get("alpha", 1.0)))
        weight = np.abs(self.weight.astype(np.float64))
        # The scale in the file has alpha in it already.
        steps = np.broadcast_to(self._weight_steps() / factor, self.weight.shape)
        quantization = self._multiply_magnitudes(magnitude, steps)
        quantization += self._multiply_magnitudes(np.full_like(magnitude, half_step), weight)
        total = self._multiply_magnitudes(magnitude, weight + steps)
        if self.bias is not None:
            total = total + abs(float(self.product.flags.get("beta", 1.0))) * np.abs(self.bias)
        unit = max(np.finfo(self.weight.dtype).eps, np.finfo(np.float32).eps) / 2
        return np.asarray(quantization + ROUNDINGS * unit * total)

    @property
    def _x(self) -> Array:
        return self.feeds["x"].astype(np.float64)

    def _multiply_magnitudes(self, x: Array, w: Array) -> Array:
        return np.abs(self.product.multiply(x, w))

    def _weight_steps(self) -> Array:
        """The scales of the file, in a shape that broadcasts to the weight."""
        scale = np.abs(self.quantized.initializer("w_scale").astype(np.float64))
        if scale.ndim != 1:
            return scale
        flag = self.product.flags.get("transA" if self.product.on_left else "transB", 0)
        return scale[:, None] if bool(flag) != self.product.on_left else scale


def prepare(product: Product, kind: str, folder: Path, *, fan_out: int = 1, **options: Any) -> Run:
    rng = np.random.default_rng(sum(product.x) + 7 * sum(product.w))
    dtype = ELEMENT_TYPES[kind]
    weight = float_weight(rng, product.w).astype(dtype)
    # A mean that is not zero, so that an error in a zero point cannot cancel.
    x = (rng.standard_normal(product.x) + 0.5).astype(dtype)
    bias = None if product.c is None else rng.standard_normal(product.c).astype(dtype)
    sizes = [f"d{axis}" for axis in range(len(product.x))] if product.free_axes else product.x
    inputs = f"{kind}[{', '.join(map(str, sizes))}] x"
    initializers, feeds = {"w": weight}, {"x": x}
    if bias is not None and product.fed_bias:
        inputs += f", {kind}[{', '.join(map(str, bias.shape))}] c"
        feeds["c"] = bias
    elif bias is not None:
        initializers["c"] = bias
    rank = product.multiply(np.ones(product.x), np.ones(product.w)).ndim
    output = f"{kind}[{', '.join(f'o{axis}' for axis in range(rank))}] y"
    model = make_model(product.node, inputs, output, initializers)
    return Run(product, quantize(model, folder, **options), feeds, weight, bias)


def assert_within_bound(actual: Array, run: Run) -> None:
    expected, bound = run.expected(), run.bound()
    assert actual.dtype == run.weight.dtype
    assert actual.shape == expected.shape
    error = np.abs(actual.astype(np.float64) - expected)
    assert np.all(error <= bound), f"{(error / bound).max():.2f} of the bound"
    # A bound that does not resolve the product would prove nothing.
    (plan,) = (one for one in run.quantized.result.plan.tensors if one.name == "w")
    assert plan.scheme is not None
    # Of 7 bits the steps are twice as long, and one scale for all makes them most of the bound.
    is_coarse = plan.scheme.reduce_range and not plan.scheme.axes
    assert np.mean(bound) < np.std(expected) * (2 / 3 if is_coarse else 1 / 2)


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
def test_product_is_within_the_bound_of_its_scales(product: Product, tmp_path: Path) -> None:
    run = prepare(product, "float", tmp_path)
    assert run.quantized.operators()["MatMulInteger"] == 1
    assert_within_bound(run.quantized.run(run.feeds)[0], run)


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
def test_standard_target_runs_in_the_reference_implementation(
    product: Product, tmp_path: Path
) -> None:
    run = prepare(product, "float", tmp_path, target="onnx")
    assert run.quantized.operators()["MatMulInteger"] == 1
    assert domains(run.quantized.model) == {"ai.onnx"}
    assert_within_bound(run.quantized.run_reference(run.feeds)[0], run)


@pytest.mark.parametrize("kind", ["float16", "double"])
@pytest.mark.parametrize(
    "name",
    [
        "MatMul-rank3",
        "MatMul-stack-of-weights",
        "MatMul-left-rank2",
        "Gemm-alpha-beta-transB",
        "Gemm-right-transA-transB",
        "Gemm-left-alpha-beta",
        "Gemm-negative-beta-fed-bias",
    ],
)
@pytest.mark.parametrize("target", TARGETS)
def test_other_float_types_are_within_the_bound(
    name: str, kind: str, target: str, tmp_path: Path
) -> None:
    run = prepare(PRODUCTS[name], kind, tmp_path, target=target)
    assert run.quantized.operators()["MatMulInteger"] == 1
    assert_within_bound(run.quantized.run(run.feeds)[0], run)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize(
    "name", ["MatMul-rank3", "MatMul-stack-of-weights", "MatMul-left-rank2", "Gemm-right-transB"]
)
def test_every_scheme_is_within_the_bound(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    run = prepare(PRODUCTS[name], "float", tmp_path, **options)
    assert run.quantized.operators()["MatMulInteger"] == 1
    assert_within_bound(run.quantized.run(run.feeds)[0], run)


def test_bfloat16_runs_although_onnxruntime_has_no_float_kernel_for_it(tmp_path: Path) -> None:
    import ml_dtypes

    rng = np.random.default_rng(3)
    weight = float_weight(rng, (K, N)).astype(ml_dtypes.bfloat16)
    x = (rng.standard_normal((M, K)) + 0.5).astype(ml_dtypes.bfloat16).astype(np.float32)
    model = make_model(
        "h = Cast<to = 16>(x) [mm] p = MatMul(h, w) y = Cast<to = 1>(p)",
        f"float[{M}, {K}] x",
        f"float[{M}, {N}] y",
        {"w": weight},
    )
    quantized = quantize(model, tmp_path)
    wide = weight.astype(np.float32)
    run = Run(matmul((M, K), (K, N)), quantized, {"x": x}, wide, None)
    # The product is narrowed to 8 significant bits: half a unit in the last place of them.
    narrowing = np.abs(run.expected()) * float(ml_dtypes.finfo(ml_dtypes.bfloat16).eps) / 2
    error = np.abs(quantized.run({"x": x})[0] - run.expected())
    assert np.all(error <= 1.01 * run.bound() + narrowing)


@pytest.mark.parametrize("weights", ["int8", "uint8"])
@pytest.mark.parametrize("name", ["MatMul-rank2", "Gemm-right-transB", "MatMul-left-rank2"])
def test_elements_are_neighbours_of_the_float_weight_and_keep_its_sums(
    name: str, weights: str, tmp_path: Path
) -> None:
    product = PRODUCTS[name]
    run = prepare(product, "float", tmp_path, weights=weights)
    stored = run.quantized.initializer(f"w_{weights}").astype(np.float64)
    if stored.shape != product.w or product.on_left:
        stored = stored.T
    steps = run._weight_steps()
    zero_point = 0.0
    if weights == "uint8":
        zero_point = run.quantized.initializer("w_zero_point").astype(np.float64)
        zero_point = zero_point.reshape(steps.shape)
    error = (stored - zero_point) * steps - run.weight
    assert np.all(np.abs(error) < steps)
    sums = np.abs(error.sum(axis=1 if steps.ndim == 2 else 0))
    # Flipping stops within half a step of the sum; each of its K float32 terms is up to 255 steps.
    assert np.all(sums <= (0.5 + K * 255 * np.finfo(np.float32).eps) * np.ravel(steps))


@pytest.mark.parametrize("weights", ["int8", "uint8"])
@pytest.mark.parametrize("per_channel", [True, False], ids=["per-channel", "per-tensor"])
def test_reduced_range_leaves_one_bit_free(weights: str, per_channel: bool, tmp_path: Path) -> None:
    run = prepare(
        PRODUCTS["MatMul-rank2"],
        "float",
        tmp_path,
        weights=weights,
        per_channel=per_channel,
        reduce_range=True,
    )
    stored = run.quantized.initializer(f"w_{weights}").astype(np.int32)
    low, high = {"int8": (-63, 63), "uint8": (0, 127)}[weights]
    assert stored.min() >= low
    assert stored.max() <= high
    assert stored.max() - stored.min() > 100


@pytest.mark.parametrize("per_channel", [True, False], ids=["per-channel", "per-tensor"])
def test_scale_is_the_largest_magnitude_in_127_steps(per_channel: bool, tmp_path: Path) -> None:
    options = {"per_channel": per_channel, "reduce_range": False}
    run = prepare(PRODUCTS["MatMul-rank2"], "float", tmp_path, **options)
    largest = np.abs(run.weight).max(axis=0 if per_channel else None)
    scale = run.quantized.initializer("w_scale")
    assert scale.shape == ((N,) if per_channel else ())
    np.testing.assert_array_equal(scale, (largest.astype(np.float64) / 127).astype(np.float32))


def test_readers_of_one_activation_share_its_quantization(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = {name: float_weight(rng, (K, N)) for name in ("wq", "wk", "wv")}
    model = make_model(
        "q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)",
        f"float[B, S, {K}] x",
        f"float[B, S, {N}] q, float[B, S, {N}] k, float[B, S, {N}] v",
        weights,
    )
    quantized = quantize(model, tmp_path)
    assert quantized.operators()["DynamicQuantizeLinear"] == 1
    assert quantized.operators()["MatMulInteger"] == 3


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        pytest.param("a = MatMul(x, w) b = MatMul(x, w)", ("w",), id="same-layout"),
        pytest.param("t = Transpose(w) a = MatMul(x, t) b = MatMul(x, w)", ("w",), id="transposed"),
        pytest.param("a = Gemm<transB = 1>(x, w) b = MatMul(x, w)", ("w",), id="transB"),
        pytest.param("a = MatMul(x, w) b = MatMul(w, x)", ("w",), id="left-and-right"),
    ],
)
def test_tied_weight_is_stored_once(text: str, weights: tuple[str, ...], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    model = make_model(
        text,
        f"float[{K}, {K}] x",
        f"float[{K}, {K}] a, float[{K}, {K}] b",
        {name: float_weight(rng, (K, K)) for name in weights},
    )
    quantized = quantize(model, tmp_path)
    stored = [
        tensor.name for tensor in quantized.model.graph.initializer if np.prod(tensor.dims) == K * K
    ]
    assert stored == ["w_int8"]
    feeds = {"x": rng.standard_normal((K, K)).astype(np.float32)}
    for actual, expected in zip(quantized.run(feeds), quantized.run_float(feeds), strict=True):
        # 40 dB is what 8 bits leave of a Gaussian that fills them to 4 standard deviations.
        noise = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
        assert noise < 10 ** (-35 / 20)


@pytest.mark.parametrize(
    ("product", "reason"),
    [
        pytest.param(matmul((M, 64), (64, 64)), "no gain: only 4096 elements", id="small"),
        pytest.param(matmul((M, 512), (512, 10)), "no gain: only 10 output columns", id="narrow"),
        pytest.param(
            matmul((2, K, M), (2, N, K), on_left=True),
            "constant on the left with batch axes",
            id="left-stack",
        ),
        pytest.param(matmul((K,), (K, N)), "the other operand is a vector", id="vector"),
    ],
)
def test_matrix_without_gain_is_stored_and_read_as_float(
    product: Product, reason: str, tmp_path: Path
) -> None:
    run = prepare(product, "float", tmp_path)
    (plan,) = run.quantized.result.plan.tensors
    assert reason in plan.explanation
    assert "MatMulInteger" not in run.quantized.operators()
    np.testing.assert_array_equal(
        run.quantized.run(run.feeds)[0], run.quantized.run_twin(run.feeds)[0]
    )


def test_the_library_says_nothing_while_it_works(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        prepare(PRODUCTS["MatMul-left-rank2"], "float", tmp_path)
    assert caplog.messages == []
