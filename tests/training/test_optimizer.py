"""Schedule, clipping, and going on from what was saved."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from onnxq.training.binding import bind  # noqa: E402
from onnxq.training.optimizer import Optimizer, schedule  # noqa: E402
from tests.training.quantized_models import load  # noqa: E402


def give_gradients(quantities: object, size: float) -> None:
    for one in quantities.learned:  # type: ignore[attr-defined]
        one.grad = size * torch.ones_like(one)


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_the_schedule_rises_once_and_ends_near_0(steps: int) -> None:
    shares = [schedule(at, steps) for at in range(steps)]
    peak = shares.index(max(shares))
    assert max(shares) == 1.0
    assert shares[: peak + 1] == sorted(shares[: peak + 1])
    assert shares[peak:] == sorted(shares[peak:], reverse=True)
    assert steps == 1 or shares[-1] < 0.2


def test_a_spike_moves_no_further_than_the_usual_gradient_allows() -> None:
    moved = []
    for clipping in (4.0, 0.0):
        quantities = bind(load())
        optimizer = Optimizer(quantities, factor=1.0, steps=100, clipping=clipping)
        for size in (*[1.0] * 20, 1e6, *[1.0] * 20):
            give_gradients(quantities, size)
            optimizer.step()
        moved.append(float(quantities.learned[0].detach().abs().max()))
    # The spike fills the second moments of Adam, which then hardly moves.
    assert moved[0] > 1.2 * moved[1]


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    quantities = bind(load())
    optimizer = Optimizer(quantities, factor=1.0, steps=10, clipping=4.0)
    give_gradients(quantities, float("nan"))
    assert not optimizer.step()
    assert all(not bool(one.detach().any()) for one in quantities.learned)


def test_it_goes_on_as_if_it_had_not_stopped() -> None:
    whole, parts = bind(load()), bind(load())
    first = Optimizer(whole, factor=1.0, steps=10, clipping=4.0)
    second = Optimizer(parts, factor=1.0, steps=10, clipping=4.0)
    for at in range(6):
        if at == 3:
            saved = second.save()
            second = Optimizer(parts, factor=1.0, steps=10, clipping=4.0)
            second.restore(saved)
        for quantities, optimizer in ((whole, first), (parts, second)):
            give_gradients(quantities, 1.0 + at)
            optimizer.step()
    for a, b in zip(whole.learned, parts.learned, strict=True):
        assert torch.equal(a, b)
