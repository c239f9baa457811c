"""Weights that keep sums of two products small."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from onnxq.graph.constants import constant_tensor  # noqa: E402
from onnxq.numerics.pairs import find_large_pairs  # noqa: E402
from onnxq.training.binding import bind  # noqa: E402
from onnxq.training.pairs import LARGEST_SUM, PairOrder, find_pairs, fit_pairs  # noqa: E402
from onnxq.training.quantities import IntegerWeight  # noqa: E402
from tests.models import make_model  # noqa: E402

Shape = tuple[int, ...]


def make_layer(operator: str, integers: np.ndarray) -> tuple[ir.Model, ir.Value]:
    """One operator that reads a dequantized weight."""
    model = make_model(
        f"""w = DequantizeLinear(q, s)
           y = {operator}(x, w)""",
        "float[N, 2, 8, 8] x" if integers.ndim == 4 else f"float[N, {integers.shape[0]}] x",
        "float[N] y",
        {"q": integers, "s": np.float32(0.01)},
    )
    loaded = ir.from_proto(model)
    return loaded, loaded.graph.initializers["q"]


@pytest.mark.parametrize(
    ("operator", "shape", "expected"),
    [
        ("Conv", (4, 3, 3, 3), PairOrder((0, 2, 3, 1), 1)),
        ("Conv<group = 4>", (4, 1, 3, 3), None),
        ("Conv<group = 2>", (4, 1, 3, 3), PairOrder((0, 2, 3, 1), 1)),
        ("Gemm", (6, 4), PairOrder((1, 0), 1)),
        ("Gemm<transB = 1>", (6, 4), PairOrder((0, 1), 1)),
        ("MatMul", (6, 4), PairOrder((1, 0), 1)),
        ("Add", (6, 4), None),
    ],
)
def test_the_order_is_that_of_the_kernel(
    operator: str, shape: Shape, expected: PairOrder | None
) -> None:
    assert find_pairs(make_layer(operator, np.ones(shape, np.int8))[1]) == expected


def test_a_weight_with_a_large_pair_was_not_made_for_such_a_processor() -> None:
    integers = np.full((4, 6), 64, np.int8)
    assert find_pairs(make_layer("Gemm<transB = 1>", integers)[1]) is not None
    integers[2, 4] = 65
    assert find_pairs(make_layer("Gemm<transB = 1>", integers)[1]) is None


CASES = [((30, 9), (0, 1), 1), ((9, 30), (1, 0), 1)]


@given(st.integers(0, 200), st.sampled_from(CASES))
def test_no_pair_is_too_large_and_others_stay(seed: int, case: tuple[Shape, Shape, int]) -> None:
    shape, axes, rows = case
    order = PairOrder(axes, rows)
    steps = torch.from_numpy(np.random.default_rng(seed).uniform(-127, 127, shape))
    fitted = fit_pairs(steps, order)
    assert fitted.shape == steps.shape
    integers = order.to_rows(torch.round(fitted)).to(torch.int32).numpy()
    assert not find_large_pairs(integers).any()
    before = order.to_rows(steps).numpy()
    pairs = before[:, : before.shape[1] // 2 * 2].reshape(before.shape[0], -1, 2)
    fits = (pairs.prod(-1) <= 0) | (np.abs(pairs.sum(-1)) <= LARGEST_SUM)
    after = order.to_rows(fitted).numpy()[:, : pairs.shape[1] * 2].reshape(pairs.shape)
    assert np.array_equal(after[fits], pairs[fits])
    assert fits.any() and not fits.all()


def test_rows_of_a_convolution_go_back_where_they_came_from() -> None:
    order = PairOrder((0, 2, 3, 1), 1)
    weight = torch.arange(4 * 3 * 2 * 5).reshape(4, 3, 2, 5)
    rows = order.to_rows(weight)
    assert rows[0, :3].tolist() == [0, 10, 20]
    assert torch.equal(order.from_rows(rows, weight.shape), weight)


def test_trained_weights_keep_to_it_and_the_start_is_as_it_was() -> None:
    integers = np.int8([[100, 28, -100, 28], [64, 64, 127, 0]])
    model, value = make_layer("Gemm<transB = 1>", integers)
    quantities = bind(model)
    weight = next(one for one in quantities.all if isinstance(one, IntegerWeight))
    np.testing.assert_array_equal(quantities.compute()[value].detach().numpy(), integers)
    with torch.no_grad():
        weight.learned.copy_(torch.tensor([[3.0, 5, -9, 3], [20, 30, 5, 1]]))
    moved = quantities.compute()[value]
    assert not find_large_pairs(moved.detach().numpy().astype(np.int32)).any()
    assert moved[0, 2:].tolist() == [-109.0, 31.0]
    assert constant_tensor(value) is not None
