"""Sessions: what a model takes and gives, and errors in one line."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest

from onnxq.errors import ExecutionError
from onnxq.runtime.session import InputSignature, Session, shorten_message
from tests.models import make_model, save


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(
        make_model(
            "y = MatMul(x, w) [c] z = Cast<to = 7>(y)",
            "float[batch, 4] x",
            "float[batch, 3] y, int64[batch, 3] z",
            {"w": np.ones((4, 3), np.float32)},
        ),
        tmp_path / "model.onnx",
    )


def test_signature_and_outputs(model: Path) -> None:
    session = Session(model)
    assert session.inputs == (InputSignature("x", np.float32, ("batch", 4)),)
    assert session.output_names == ("y", "z")


def test_outputs_come_in_their_order(model: Path) -> None:
    y, z = Session(model).run({"x": np.ones((2, 4), np.float32)})
    np.testing.assert_array_equal(y, np.full((2, 3), 4, np.float32))
    np.testing.assert_array_equal(z, np.full((2, 3), 4, np.int64))


@pytest.mark.parametrize("mapped", [False, True])
def test_mapped_session_computes_the_same(model: Path, mapped: bool) -> None:
    y, _ = Session(model, mapped=mapped, threads=1).run({"x": np.eye(4, dtype=np.float32)})
    np.testing.assert_array_equal(y, np.ones((4, 3), np.float32))


@pytest.mark.parametrize("optimization", ["all", "none"])
@pytest.mark.parametrize("spinning", [False, True])
def test_every_kind_of_session_computes_the_same(
    model: Path, optimization: str, spinning: bool
) -> None:
    session = Session(model, optimization=optimization, spinning=spinning, threads=2)
    y, _ = session.run({"x": np.eye(4, dtype=np.float32)})
    np.testing.assert_array_equal(y, np.ones((4, 3), np.float32))


@pytest.mark.parametrize(("optimization", "nodes"), [("all", 1), ("none", 3)])
def test_level_of_optimization(optimization: str, nodes: int, tmp_path: Path) -> None:
    text = "a = Identity(x) b = Identity(a) y = Neg(b)"
    path = save(make_model(text, "float[2] x", "float[2] y"), tmp_path / "model.onnx")
    written = tmp_path / "optimized.onnx"
    Session(path, optimized_path=written, optimization=optimization)
    assert len(onnx.load(str(written)).graph.node) == nodes


def test_level_of_optimization_that_does_not_exist(model: Path) -> None:
    with pytest.raises(ValueError, match="'all' or 'none', not 'some'"):
        Session(model, optimization="some")


def test_optimized_graph_is_written_where_asked(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "optimized"
    folder.mkdir()
    Session(model, optimized_path=folder / "graph.onnx")
    assert (folder / "graph.onnx").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "optimized"]


@pytest.mark.parametrize(
    "feeds",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"x": np.ones((2, 5), np.float32)}, id="wrong-size"),
        pytest.param({"x": np.ones((2, 4), np.float64)}, id="wrong-type"),
        pytest.param({"other": np.ones((2, 4), np.float32)}, id="wrong-name"),
    ],
)
def test_feeds_that_do_not_fit(model: Path, feeds: dict[str, np.ndarray]) -> None:
    with pytest.raises(ExecutionError, match="onnxruntime cannot run it") as caught:
        Session(model).run(feeds)
    assert str(model) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_model_that_does_not_load(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"nothing")
    with pytest.raises(ExecutionError, match="onnxruntime cannot load it") as caught:
        Session(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("float", np.float32),
        ("double", np.float64),
        ("float16", np.float16),
        ("bfloat16", ml_dtypes.bfloat16),
        ("int64", np.int64),
        ("uint8", np.uint8),
        ("bool", np.bool_),
        ("string", np.object_),
    ],
)
def test_type_of_an_input(kind: str, dtype: type, tmp_path: Path) -> None:
    model = make_model("y = Identity(x)", f"{kind}[2] x", f"{kind}[2] y")
    (signature,) = Session(save(model, tmp_path / "model.onnx")).inputs
    assert signature.dtype == dtype


@pytest.mark.parametrize(
    ("signature", "text"),
    [
        (InputSignature("x", np.float32, ("batch", 3, None)), "x: float32[batch, 3, ?]"),
        (InputSignature("n", np.int64, ()), "n: int64[]"),
        (InputSignature("s", None, ()), "s: not a tensor[]"),
    ],
)
def test_signature_as_text(signature: InputSignature, text: str) -> None:
    assert str(signature) == text


def test_long_message_is_cut() -> None:
    text = shorten_message(ValueError("[ONNXRuntimeError] : 1 : FAIL : " + "word \n" * 200))
    assert len(text) == 300
    assert text.startswith("word word")
    assert text.endswith("...")
