"""Embeddings: exactly the rows of the table that the file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxq
from tests.apply.quantized import ELEMENT_TYPES, Array, Quantized, quantize
from tests.models import float_weight, make_model, save

ROWS, WIDTH = 50, 24


def embedding(kind: str, shape: tuple[int, ...], attributes: str = "") -> Any:
    rng = np.random.default_rng(len(shape))
    table = (float_weight(rng, shape) + 0.1).astype(ELEMENT_TYPES[kind])
    sizes = ", ".join(["B", "S", *map(str, shape[1:])])
    return make_model(
        f"y = Gather{attributes}(table, i)", "int64[B, S] i", f"{kind}[{sizes}] y", {"table": table}
    )


def dequantized_table(quantized: Quantized, dtype: np.dtype[Any]) -> Array:
    """The table that the int8 elements, scales and zero points in the file stand for."""
    names = {tensor.name for tensor in quantized.model.graph.initializer}
    (stored,) = (name for name in names if name.startswith(("table_int8", "table_uint8")))
    values = quantized.initializer(stored).astype(np.float32)
    if "table_offset" in names:
        values = values - quantized.initializer("table_offset")
    return (values * quantized.initializer("table_scale")).astype(dtype)


INDICES = np.array([[0, 1, ROWS - 1], [-1, -ROWS, 17]])


@pytest.mark.parametrize("target", ["ort-cpu", "onnx"])
@pytest.mark.parametrize("kind", ["float", "float16", "double"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weights": "uint8"},
        {"weights": "uint8", "symmetric": True},
        {"symmetric": False},
        {"per_channel": False},
        {"weights": "uint8", "per_channel": False},
        {"weights": "int4"},
    ],
    ids=lambda options: "-".join(map(str, options.values())) or "int8",
)
def test_rows_are_those_of_the_stored_table(
    options: dict[str, Any], kind: str, target: str, tmp_path: Path
) -> None:
    # fp16 would be nearly as small for a short row: keep rows over that size.
    model = embedding(kind, (ROWS, 2 * WIDTH))
    quantized = quantize(model, tmp_path, target=target, **options)
    expected = dequantized_table(quantized, ELEMENT_TYPES[kind])[INDICES]
    np.testing.assert_array_equal(quantized.run({"i": INDICES})[0], expected)
    np.testing.assert_array_equal(quantized.run_reference({"i": INDICES})[0], expected)


@pytest.mark.parametrize("options", [{}, {"weights": "uint8"}], ids=["int8", "uint8"])
def test_table_is_rounded_to_nearest(options: dict[str, Any], tmp_path: Path) -> None:
    quantized = quantize(embedding("float", (ROWS, 2 * WIDTH)), tmp_path, **options)
    (table,) = (t for t in quantized.float_model.graph.initializer if t.name == "table")
    from onnx import numpy_helper

    expected = numpy_helper.to_array(table)
    scale = quantized.initializer("table_scale")
    error = np.abs(dequantized_table(quantized, np.dtype(np.float32)) - expected)
    # Half a step; the zero point, rounded too, may cost the largest element another half.
    limit = 0.5 if not options else 1.0
    assert np.all(error <= limit * scale * (1 + 255 * np.finfo(np.float32).eps))


@pytest.mark.parametrize("weights", ["fp16", "bf16"])
@pytest.mark.parametrize("kind", ["float", "double"])
def test_half_rows_are_the_rounded_rows(weights: str, kind: str, tmp_path: Path) -> None:
    import ml_dtypes
    from onnx import numpy_helper

    model = embedding(kind, (ROWS, WIDTH))
    quantized = quantize(model, tmp_path, weights=weights)
    half = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}[weights]
    table = numpy_helper.to_array(model.graph.initializer[0])
    expected = table.astype(half).astype(table.dtype)[INDICES]
    np.testing.assert_array_equal(quantized.run({"i": INDICES})[0], expected)


@pytest.mark.parametrize("shape", [(ROWS, 40), (ROWS, 5, 8), (ROWS, 2, 4, 5)], ids=str)
@pytest.mark.parametrize("attributes", ["", "<axis = 0>", "<axis = -RANK>"])
def test_tables_of_any_rank(shape: tuple[int, ...], attributes: str, tmp_path: Path) -> None:
    model = embedding("float", shape, attributes.replace("RANK", str(len(shape))))
    quantized = quantize(model, tmp_path)
    assert {use.form.value for use in quantized.result.plan.tensors[0].uses} == {"lookup"}
    expected = dequantized_table(quantized, np.dtype(np.float32))[INDICES]
    np.testing.assert_array_equal(quantized.run({"i": INDICES})[0], expected)


@pytest.mark.parametrize("indices", [np.array(3), np.array([3]), np.zeros((2, 3, 2), np.int64)])
def test_indices_of_any_rank(indices: Array, tmp_path: Path) -> None:
    table = float_weight(np.random.default_rng(0), (ROWS, 40))
    axes = ", ".join(map(str, indices.shape))
    model = make_model(
        "y = Gather(table, i)",
        f"int64[{axes}] i" if axes else "int64 i",
        f"float[{', '.join(map(str, (*indices.shape, 40)))}] y",
        {"table": table},
    )
    quantized = quantize(model, tmp_path)
    expected = dequantized_table(quantized, np.dtype(np.float32))[indices]
    np.testing.assert_array_equal(quantized.run({"i": indices})[0], expected)


def test_table_looked_up_along_another_axis_is_read_as_float(tmp_path: Path) -> None:
    table = float_weight(np.random.default_rng(0), (40, ROWS))
    model = make_model(
        "y = Gather<axis = 1>(table, i)", "int64[B] i", "float[40, B] y", {"table": table}
    )
    quantized = quantize(model, tmp_path)
    (plan,) = quantized.result.plan.tensors
    assert "looked up along another axis" in plan.explanation
    feeds = {"i": np.array([0, -1, 7])}
    np.testing.assert_array_equal(quantized.run(feeds)[0], quantized.run_twin(feeds)[0])


def test_embedding_tied_to_the_output_matrix_is_stored_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = float_weight(rng, (128, 64))
    model = make_model(
        "e = Gather(table, i) t = Transpose(table) y = MatMul(e, t)",
        "int64[S] i",
        "float[S, 128] y",
        {"table": table},
    )
    quantized = quantize(model, tmp_path)
    large = [t.name for t in quantized.model.graph.initializer if np.prod(t.dims) == table.size]
    assert large == ["table_int8"]
    assert {use.form.value for use in quantized.result.plan.tensors[0].uses} == {
        "lookup",
        "integer matmul",
    }
    feeds = {"i": np.arange(128)}
    expected, actual = quantized.run_float(feeds)[0], quantized.run(feeds)[0]
    # 8 bits that cover 4 standard deviations leave 40.8 dB; three roundings and 1 dB to spare.
    noise = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
    assert -20 * np.log10(noise) > 40.8 - 10 * np.log10(3) - 1


def test_two_lookups_of_one_table_share_its_elements_and_scales(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    table = float_weight(rng, (300, 96))
    model = make_model(
        "a = Gather(t, i) b = Gather(t, j) y = Add(a, b)",
        "int64[N] i, int64[N] j",
        "float[N, 96] y",
        {"t": table},
    )
    result = onnxq.quantize_dynamic(save(model, tmp_path / "m.onnx"))
    written = onnx.load(str(result.output))
    assert sorted(one.name for one in written.graph.initializer) == ["t_int8", "t_scale"]
