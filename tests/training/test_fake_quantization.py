"""Rounding with gradients, against the equations of LSQ written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

torch = pytest.importorskip("torch")

from onnxq.training.fake_quantization import fake_quantize, round_through  # noqa: E402

VALUES = hnp.arrays(
    np.float32,
    st.integers(1, 20),
    elements=st.floats(-8, 8, width=32, allow_subnormal=False),
)
SCALES = st.floats(0.0625, 1.0, width=32)


def gradients(
    values: np.ndarray, scale: float, low: int, high: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Result, and its gradients for the values and the scale, of the sum of the result."""
    value = torch.tensor(values, requires_grad=True)
    step = torch.tensor(scale, requires_grad=True)
    result = fake_quantize(value, step, low, high)
    result.sum().backward()
    assert value.grad is not None
    assert step.grad is not None
    return result.detach().numpy(), value.grad.numpy(), float(step.grad)


@given(VALUES, SCALES, st.sampled_from([(0, 15), (-3, 12), (-128, 127)]))
def test_gradients_are_those_of_the_equations(
    values: np.ndarray, scale: float, limits: tuple[int, int]
) -> None:
    low, high = limits
    result, for_value, for_scale = gradients(values, scale, low, high)
    steps = values / np.float32(scale)
    integers = np.rint(np.clip(steps, low, high))
    np.testing.assert_array_equal(result, integers * np.float32(scale))
    step = np.float32(scale)
    inside = (values > np.float32(low) * step) & (values < np.float32(high) * step)
    np.testing.assert_array_equal(for_value, inside.astype(np.float32))
    # Esser et al. 2020, equation 3.
    expected = np.where(inside, integers - steps, integers).astype(np.float64).sum()
    # Two float32 sums of 20 terms of at most 8, divided by 1/16 or more: 20 * 20 * 8 * 16 * 2^-24.
    assert for_scale == pytest.approx(expected, abs=4e-3)


@given(VALUES.filter(lambda values: not np.any(np.isin(values, 0))), SCALES)
@example(np.float32([-0.5, 0.3]), 0.125)
def test_both_forms_have_the_same_gradients(values: np.ndarray, scale: float) -> None:
    """The fused form, and the one that QuantizeLinear and DequantizeLinear make together."""
    # At a limit itself either gradient is right: that of clamp is 1 there, that of hardtanh 0.
    values = values[~np.isin(values / np.float32(scale), (-4, 11))]
    assume(values.size)
    _, for_value, for_scale = gradients(values, scale, -4, 11)
    value = torch.tensor(values, requires_grad=True)
    step = torch.tensor(scale, requires_grad=True)
    (round_through((value / step).clamp(-4, 11)) * step).sum().backward()
    assert value.grad is not None
    assert step.grad is not None
    np.testing.assert_allclose(value.grad.numpy(), for_value, rtol=1e-5)
    # Terms of up to 128 cancel here.
    assert float(step.grad) == pytest.approx(for_scale, abs=2e-2)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(15.3, 0.0, id="rounds to the largest integer, but is beyond it"),
        pytest.param(15.0, 0.0, id="is the largest integer"),
        pytest.param(14.7, 1.0, id="rounds up to it"),
        pytest.param(-0.4, 0.0, id="rounds to the smallest integer, but is below it"),
    ],
)
def test_the_mask_asks_the_value_before_it_is_rounded(value: float, expected: float) -> None:
    _, for_value, _ = gradients(np.float32([value]), 1.0, 0, 15)
    assert for_value.tolist() == [expected]
