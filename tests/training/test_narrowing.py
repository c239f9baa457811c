"""Weights of 3 and 2 bits."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from onnxq.graph.constants import constant_tensor  # noqa: E402
from onnxq.training.binding import bind  # noqa: E402
from onnxq.training.narrowing import choose_grid, limits_of, narrow_weights  # noqa: E402
from onnxq.training.quantities import IntegerWeight  # noqa: E402
from tests.training.quantized_models import load  # noqa: E402


@pytest.mark.parametrize("bits", [2, 3])
def test_weights_use_the_levels_and_no_others(bits: int) -> None:
    model = load()
    assert narrow_weights(model, bits, {}) == 2
    low, high = limits_of(bits)
    quantities = bind(model, bits=bits)
    narrowed = [
        one
        for one in quantities.all
        if isinstance(one, IntegerWeight) and constant_tensor(one.value).dtype.name == "INT4"
    ]
    assert len(narrowed) == 2
    for one in narrowed:
        integers = constant_tensor(one.value).numpy().astype(np.int32)
        assert (integers.min(), integers.max()) == (low, high)
        assert (one.low, one.high) == (low, high)


@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("bits", [2, 3])
def test_no_grid_of_the_search_is_better(bits: int, symmetric: bool) -> None:
    real = torch.randn(5, 40, generator=torch.Generator().manual_seed(0)) + 0.4
    low, high = limits_of(bits)

    def error(scale: torch.Tensor, middle: torch.Tensor) -> torch.Tensor:
        rounded = ((real / scale).round() + middle).clamp(low, high) - middle
        return (rounded * scale - real).square().sum(1, keepdim=True)

    scale, zero_point = choose_grid(real, bits, (1,), symmetric=symmetric)
    least = error(scale, zero_point)
    assert bool((zero_point == 0).all()) is symmetric
    for middle in (0,) if symmetric else range(low, high + 1):
        above = real.amax(1, keepdim=True) / (high - middle + 0.5)
        below = -real.amin(1, keepdim=True) / (middle - low + 0.5)
        for share in np.linspace(0.2, 1.0, 33).tolist():
            tried = torch.maximum(above, below) * share
            assert bool((least <= error(tried, torch.tensor(float(middle))) * (1 + 1e-6)).all())


@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
def test_zeros_get_a_scale_that_can_divide(symmetric: bool) -> None:
    scale, _ = choose_grid(torch.zeros(2, 3), 2, (1,), symmetric=symmetric)
    assert bool((scale > 0.1).all())
