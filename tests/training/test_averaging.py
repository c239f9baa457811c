"""The mean of the last steps."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from onnxq.training.averaging import Average  # noqa: E402
from onnxq.training.binding import bind  # noqa: E402
from onnxq.training.quantities import Quantities  # noqa: E402
from tests.training.quantized_models import load  # noqa: E402


def move(quantities: Quantities, size: float) -> None:
    with torch.no_grad():
        for one in quantities.learned:
            one.fill_(size)


def mean_of(average: Average, quantities: Quantities) -> float:
    with average.applied():
        return quantities.learned[0].reshape(-1)[0].item()


def test_it_follows_what_stays_and_evens_out_what_does_not() -> None:
    quantities = bind(load())
    average = Average(quantities, steps=200)
    for at in range(200):
        move(quantities, 5.0 + (1.0 if at % 2 else -1.0))
        average.add()
    # It looks back ten steps: of a swing of 1 each step a twentieth remains, of the start e^-20.
    assert mean_of(average, quantities) == pytest.approx(5.0, abs=0.06)
    assert quantities.learned[0].reshape(-1)[0].item() == 6.0


def test_a_few_steps_are_enough_to_forget_the_start() -> None:
    quantities = bind(load())
    average = Average(quantities, steps=100000)
    for _ in range(90):
        move(quantities, 1.0)
        average.add()
    # The weight of the start is the product of n / (n + 9), which is 90! 9! / 99!, below 1e-12.
    assert mean_of(average, quantities) == pytest.approx(1.0, abs=1e-6)


def test_it_goes_on_from_what_was_saved() -> None:
    quantities = bind(load())
    whole, other = Average(quantities, steps=20), Average(quantities, steps=20)
    for at in range(6):
        move(quantities, float(at))
        whole.add()
        if at == 2:
            other.restore(whole.save())
        if at > 2:
            other.add()
    assert mean_of(whole, quantities) == mean_of(other, quantities)
