"""Sums and products of two activations against onnxruntime at full optimisation: bit by bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from tests.models import make_model
from tests.training.kernels import Arrays, X, Y, byte_values, check_exact, on_x86


def two_terms(seed: int, operator: str, *, near_ties: bool) -> Arrays:
    """Scales and zero points of two activations and of their sum or product.

    With near ties the scales of terms are multiples of a 32nd of that of the result, or that of a
    product is an even number of those of its factors.
    """
    rng = np.random.default_rng(seed)
    end = np.float32(rng.uniform(0.02, 0.1))
    first, second = rng.uniform(0.01, 0.1, 2).astype(np.float32)
    if operator == "Mul":
        end = np.float32(first * second * rng.choice([30, 50, 96] if near_ties else [37.7]))
    elif near_ties:
        first, second = (end * np.float32(one / 32) for one in rng.integers(8, 64, 2))
    zero_points = dict(
        zip(("zx", "zu", "zy"), rng.integers(0, 256, 3).astype(np.uint8), strict=True)
    )
    return {"sx": first, "su": second, "sy": end, **zero_points}


@on_x86
@pytest.mark.parametrize("operator", ["Add", "Mul"])
@pytest.mark.parametrize("relu", [False, True], ids=["alone", "before a relu"])
def test_two_activations(operator: str, relu: bool, tmp_path: Path) -> None:
    every = np.arange(256, dtype=np.uint8)
    feeds: Arrays = {"q": np.repeat(every, 256), "p": np.tile(every, 256)}
    middle = f"s = {operator}(x, u) y = Relu(s)" if relu else f"y = {operator}(x, u)"
    others = 0
    for seed in range(24):
        constants = two_terms(seed, operator, near_ties=seed % 2 == 0)
        model = make_model(
            f"{X} u = DequantizeLinear(p, su, zu) {middle} {Y}",
            "uint8[N] q, uint8[N] p",
            "float[N] o",
            {**constants, **({"zy": np.uint8(0)} if relu else {})},
        )
        others += check_exact(model, feeds, f"QLinear{operator}", tmp_path)
    assert others


@on_x86
@pytest.mark.parametrize("operator", ["Add", "Mul"])
@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 16, 9, 9), (2, 16, 1, 1)),
        ((2, 16, 1, 1), (2, 16, 9, 9)),
        ((2, 16, 9, 9), (9,)),
        ((16, 1, 1), (2, 16, 9, 9)),
        ((2, 16, 9, 1), (2, 16, 1, 9)),
    ],
    ids=str,
)
def test_activations_of_two_shapes(
    operator: str, shapes: tuple[tuple[int, ...], tuple[int, ...]], tmp_path: Path
) -> None:
    first, second = (", ".join(str(size) for size in shape) for shape in shapes)
    result = ", ".join(str(size) for size in np.broadcast_shapes(*shapes))
    others = 0
    for seed in range(24):
        model = make_model(
            f"{X} u = DequantizeLinear(p, su, zu) y = {operator}(x, u) {Y}",
            f"uint8[{first}] q, uint8[{second}] p",
            f"float[{result}] o",
            two_terms(seed, operator, near_ties=seed % 2 == 0),
        )
        feeds: Arrays = {
            "q": byte_values(seed, *shapes[0]),
            "p": byte_values(seed + 99, *shapes[1]),
        }
        others += check_exact(model, feeds, f"QLinear{operator}", tmp_path)
    assert others
