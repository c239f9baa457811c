"""Weights of 3 and 2 bits."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from onnxq.graph.constants import constant_tensor  # noqa: E402
from onnxq.training.binding import bind  # noqa: E402
from onnxq.training.narrowing import choose_scale, limits_of, narrow_weights  # noqa: E402
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


@pytest.mark.parametrize("bits", [2, 3])
def test_no_scale_of_the_search_is_better(bits: int) -> None:
    real = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    low, high = limits_of(bits)

    def error(scale: torch.Tensor) -> torch.Tensor:
        rounded = torch.round(real / scale).clamp(low, high) * scale
        return (rounded - real).square().sum(1, keepdim=True)

    chosen = choose_scale(real, bits, (1,))
    largest = real.abs().amax(1, keepdim=True)
    for share in np.linspace(0.2, 1.0, 33).tolist():
        assert bool((error(chosen) <= error(largest * share / -low) * (1 + 1e-6)).all())


def test_zeros_get_a_scale_that_can_divide() -> None:
    assert bool((choose_scale(torch.zeros(2, 3), 2, (1,)) > 0).all())
