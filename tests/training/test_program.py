"""Making programs of graphs: what is missing, what is folded, what is freed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch")

from onnxq.errors import UnsupportedModelError  # noqa: E402
from onnxq.graph.files import load_model  # noqa: E402
from onnxq.runtime.session import Session  # noqa: E402
from onnxq.training.interpreter import run  # noqa: E402
from onnxq.training.program import compile_model, count_operators, find_unsupported  # noqa: E402
from tests.cli.running import CALIB_DATA, SAMPLE_MODELS  # noqa: E402
from tests.models import make_model  # noqa: E402
from tests.training.engine import LARGEST_ERROR  # noqa: E402
from tests.training.quantized_models import load  # noqa: E402


def test_an_operator_that_is_missing_is_named() -> None:
    model = ir.from_proto(
        make_model("a = NonZero(x) y = Det(x) z = Det(x)", "float[2, 2] x", "float y, float z")
    )
    assert find_unsupported(model) == ("Det",)
    with pytest.raises(UnsupportedModelError, match="no operator Det;"):
        compile_model(model)


def test_a_form_that_is_missing_is_named() -> None:
    model = ir.from_proto(
        make_model(
            "[pool] y, i = MaxPool<kernel_shape = [2, 2]>(x)",
            "float[1, 1, 4, 4] x",
            "float[1, 1, 3, 3] y, int64[1, 1, 3, 3] i",
        )
    )
    with pytest.raises(UnsupportedModelError, match="lacks MaxPool with indices at node 'pool'"):
        run(compile_model(model), {"x": np.zeros((1, 1, 4, 4), np.float32)})


def test_constants_are_computed_once() -> None:
    model = ir.from_proto(
        make_model(
            "c = Constant<value_floats = [2.0]>() d = Mul(c, w) y = Add(x, d)",
            "float[3] x",
            "float[3] y",
            {"w": np.float32([1, 2, 3])},
        )
    )
    program = compile_model(model)
    assert count_operators(program) == {"Add": 1}
    trained = compile_model(model, trained=[model.graph.initializers["w"]])
    assert count_operators(trained) == {"Add": 1, "Mul": 1}


def test_a_pair_is_one_step() -> None:
    for bits in (8, 4):
        model = load(bits)
        counts = count_operators(compile_model(model))
        assert counts["QuantizeLinear"] == sum(
            one.op_type == "QuantizeLinear" for one in model.graph
        )
        assert "DequantizeLinear" not in counts


@pytest.mark.parametrize("name", ["mlp", "cnn", "lstm", "transformer"])
def test_sample_models_give_what_onnxruntime_gives(name: str) -> None:
    path = SAMPLE_MODELS / f"{name}.onnx"
    session, program = Session(path, threads=1), compile_model(load_model(path).model)
    (key,) = (one.name for one in session.inputs)
    for file in sorted((CALIB_DATA / name / "eval").iterdir())[:2]:
        feeds = {key: np.load(file)[key]}
        (expected,) = session.run(feeds)
        with torch.no_grad():
            measured = run(program, feeds)["logits"].numpy()
        error = np.linalg.norm(measured - expected) / np.linalg.norm(expected)
        assert error < LARGEST_ERROR


def test_twice_the_precision(tmp_path: Path) -> None:
    model = ir.from_proto(
        make_model("a = Constant<value_float = 0.1>() y = Mul(x, a)", "float[1] x", "float[1] y")
    )
    found = run(compile_model(model, real=torch.float64), {"x": np.float32([1])})["y"]
    assert found.dtype is torch.float64
    assert float(found) == float(np.float32(0.1))


def test_integers_that_enter_are_real_in_twice_the_precision() -> None:
    scale, zero_point = np.float32(0.1), np.uint8(3)
    model = ir.from_proto(
        make_model(
            "y = DequantizeLinear(x, s, z)",
            "uint8[1] x",
            "float[1] y",
            {"s": scale, "z": zero_point},
        )
    )
    found = run(compile_model(model, real=torch.float64), {"x": np.uint8([10])})["y"]
    assert found.dtype is torch.float64
    assert float(found) == 7 * float(scale)


def test_products_of_integers_are_computed_in_the_type_of_the_others() -> None:
    model = ir.from_proto(
        make_model(
            """q, s, z = DynamicQuantizeLinear(x)
               i = MatMulInteger(q, w, z)
               f = Cast<to = 1>(i)
               y = Mul(f, s)""",
            "float[N, 4] x",
            "float[N, 3] y",
            {"w": np.arange(12, dtype=np.int8).reshape(4, 3)},
        )
    )
    feeds = {"x": np.float32([[1.1, 2.3, 3.7, 4.9]])}
    exact = run(compile_model(model, real=torch.float64), feeds)["y"]
    np.testing.assert_allclose(exact, run(compile_model(model), feeds)["y"], rtol=1e-5)
    assert exact.dtype is torch.float64
