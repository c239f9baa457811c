"""Faults that people found by using the program, one test each, in the order they were found."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

import onnxq
from onnxq.errors import (
    AlreadyQuantizedError,
    DataError,
    InvalidModelError,
    OutputError,
    UnsupportedModelError,
)
from tests.models import float_weight, make_model, matmul_model, save

SAMPLE = Path(__file__).parents[1] / "sample_models"


def test_vector_times_a_stack_of_matrices_keeps_its_shape(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """Scales of shape [3, 1, N] would broadcast a result of shape [3, N] where nothing fuses."""
    weight = float_weight(rng, (3, 96, 80))
    model = make_model("y = MatMul(x, w)", "float[] x", "float[] y", {"w": weight})
    model.graph.input[0].type.tensor_type.ClearField("shape")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    result = onnxq.quantize_dynamic(save(model, tmp_path / "m.onnx"))
    vector = rng.standard_normal(96, np.float32)
    (found,) = ReferenceEvaluator(str(result.output)).run(None, {"x": vector})
    assert np.asarray(found).shape == (3, 80)


@pytest.mark.skipif(os.geteuid() != 0 and not Path("/dev/zero").exists(), reason="no devices")
def test_a_device_is_no_model() -> None:
    with pytest.raises(InvalidModelError, match="not a regular file"):
        onnxq.quantize_dynamic("/dev/zero", "never.onnx")


def test_a_pipe_is_no_output(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OutputError, match="not a regular file"):
        onnxq.quantize_dynamic(SAMPLE / "mlp.onnx", pipe, force=True)
    assert pipe.is_fifo()


def test_an_output_in_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").symlink_to("b.onnx")
    (tmp_path / "b.onnx").symlink_to("a.onnx")
    with pytest.raises(OutputError, match="cannot be written"):
        onnxq.quantize_dynamic(SAMPLE / "mlp.onnx", tmp_path / "a.onnx", force=True)


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, pixels=np.zeros((1, 64), np.float32))
    content = bytearray(buffer.getvalue())
    with zipfile.ZipFile(io.BytesIO(bytes(content))) as archive:
        start = archive.infolist()[0].header_offset + 60
    content[start : start + 20] = b"\xff" * 20
    (tmp_path / "bad.npz").write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"bad\.npz: cannot be read as numpy data"):
        onnxq.quantize_dynamic(SAMPLE / "mlp.onnx", tmp_path / "o.onnx", data=tmp_path)
    assert not (tmp_path / "o.onnx").exists()


@pytest.mark.parametrize(
    ("find", "replace"),
    [
        pytest.param(b"\x04Gemm", b"\x04\xff\xfe\xfd\xfc", id="operator"),
        pytest.param(b"\x06logits", b"\x06\xff\xfe\xfd\xfc\xfb\xfa", id="value"),
    ],
)
def test_a_name_that_is_no_text_is_refused(tmp_path: Path, find: bytes, replace: bytes) -> None:
    content = (SAMPLE / "mlp.onnx").read_bytes()
    assert find in content
    (tmp_path / "m.onnx").write_bytes(content.replace(find, replace))
    with pytest.raises(InvalidModelError):
        onnxq.quantize_dynamic(tmp_path / "m.onnx")


def test_an_attribute_without_a_type_is_refused(tmp_path: Path) -> None:
    model = matmul_model(np.ones((96, 80), np.float32))
    model.graph.node[0].attribute.add(name="odd", i=1)
    with pytest.raises(InvalidModelError, match="attribute 'odd'"):
        onnxq.quantize_dynamic(save(model, tmp_path / "m.onnx"))


def test_parameters_of_the_wrong_length_are_the_fault_of_the_model(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    vector = np.ones(5, np.float32)
    model = make_model(
        "c = Conv(x, w) y = BatchNormalization(c, p, p, p, p)",
        "float[1, 8, 9, 9] x",
        "float[N, C, H, W] y",
        {"w": float_weight(rng, (16, 8, 3, 3)), "p": vector},
    )
    with pytest.raises(onnxq.OnnxqError) as caught:
        onnxq.quantize_dynamic(save(model, tmp_path / "m.onnx"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m.int8.onnx").exists()


def test_what_an_excluded_node_computes_stays(tmp_path: Path, rng: np.random.Generator) -> None:
    """Folding a BatchNormalization into an excluded Conv would change its weight."""
    weight = float_weight(rng, (16, 8, 3, 3))
    vectors = {name: np.abs(float_weight(rng, (16,))) + 1 for name in ("s", "b", "m", "v")}
    model = make_model(
        "[conv] c = Conv(x, w) [bn] n = BatchNormalization(c, s, b, m, v) [head] y = Conv(n, w2)",
        "float[1, 8, 9, 9] x",
        "float[N, C, H, W] y",
        {"w": weight, "w2": float_weight(rng, (64, 16, 3, 3)), **vectors},
    )
    path = save(model, tmp_path / "m.onnx")
    for exclude in ("conv", "bn"):
        result = onnxq.quantize_dynamic(path, exclude=[exclude], force=True)
        written = onnx.load(str(result.output))
        assert "BatchNormalization" in [node.op_type for node in written.graph.node]
        found = {one.name: numpy_helper.to_array(one) for one in written.graph.initializer}
        if exclude == "conv":
            np.testing.assert_array_equal(found["w"], weight)


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param("f = Cast<to = 1>(w) d = Div(f, s) y = MatMul(x, d)", id="divided"),
        pytest.param(
            "i = Cast<to = 6>(w) o = Sub(i, z) f = Cast<to = 1>(o) d = Mul(f, s) y = MatMul(x, d)",
            id="integer_offset",
        ),
    ],
)
def test_other_ways_to_dequantize_are_recognised(tmp_path: Path, nodes: str) -> None:
    model = make_model(
        nodes,
        "float[2, 96] x",
        "float[2, 80] y",
        {
            "w": np.ones((96, 80), np.int8),
            "s": np.array(0.5, np.float32),
            "z": np.array(3, np.int32),
        },
    )
    with pytest.raises(AlreadyQuantizedError):
        onnxq.quantize_dynamic(save(model, tmp_path / "m.onnx"))


def test_a_map_is_refused_with_advice(tmp_path: Path) -> None:
    model = matmul_model(np.ones((96, 80), np.float32))
    output = model.graph.output.add(name="probabilities")
    output.type.map_type.key_type = onnx.TensorProto.INT64
    output.type.map_type.value_type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    with pytest.raises(UnsupportedModelError, match="zipmap=False"):
        onnxq.quantize_dynamic(save(model, tmp_path / "m.onnx"))


def test_four_bit_columns_of_zeros_give_zeros(tmp_path: Path, rng: np.random.Generator) -> None:
    weight = float_weight(rng, (256, 64))
    weight[:, 5:9] = 0
    path = save(matmul_model(weight), tmp_path / "m.onnx")
    result = onnxq.quantize_dynamic(path, weights="int4")
    session = onnxruntime.InferenceSession(str(result.output))
    feeds = {session.get_inputs()[0].name: rng.standard_normal((4, 256), np.float32)}
    (found,) = session.run(None, feeds)
    # What is left is below the smallest normal float.
    assert np.all(np.abs(found[:, 5:9]) < np.finfo(np.float32).tiny * 256)
