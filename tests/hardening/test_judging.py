"""The judge: what rounding explains, and what it does not."""

from __future__ import annotations

import numpy as np

from tests.hardening.judging import STEPS, Judge
from tests.models import float_weight, make_model


def test_rows_that_are_equal_stay_so_where_shapes_depend_on_it() -> None:
    """Noise on activations makes three rows of two; that on weights does not."""
    weight = float_weight(np.random.default_rng(0), (3, 3))
    model = make_model(
        "h = MatMul(x, w) y, i, j, k = Unique<axis = 0, sorted = 1>(h)",
        "float[3, 3] x",
        "float[M, 3] y",
        {"w": weight},
        opset=21,
    )
    rows = np.float32([[1, 0, 0], [1, 0, 0], [2, 3, 4]])
    judge = Judge(model, {"x": rows}, STEPS["int8"])
    step = float(np.abs(weight).max()) / 127

    def run(error: float) -> np.ndarray:
        return np.unique(rows @ (weight + np.float32(error)), axis=0)

    assert judge.find_fault([run(0.0)]) is None
    assert judge.find_fault([run(step / 4)]) is None
    assert "are explained" in str(judge.find_fault([run(100 * step)]))
