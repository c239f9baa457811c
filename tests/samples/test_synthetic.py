"""Made-up inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxq.runtime.session import InputSignature
from onnxq.samples import Hints, propose_feeds
from onnxq.samples.synthetic import FREE_SIZES, MOST_ELEMENTS
from tests.apply.quantized import quantize
from tests.models import float_weight, make_model


def signature(name: str, dtype: object, *shape: int | str | None) -> InputSignature:
    return InputSignature(name, None if dtype is None else np.dtype(dtype), shape)


def test_fixed_shapes_are_proposed_once() -> None:
    (feeds,) = propose_feeds([signature("x", np.float32, 2, 3, 5)], Hints())
    assert feeds["x"].shape == (2, 3, 5)
    assert feeds["x"].dtype == np.float32
    assert 0.5 < feeds["x"].std() < 1.5


def test_free_batch_is_one_and_other_free_axes_vary() -> None:
    proposals = list(propose_feeds([signature("x", np.float32, "batch", None, 5)], Hints()))
    assert [feeds["x"].shape for feeds in proposals] == [(1, size, 5) for size in FREE_SIZES]


def test_axes_of_one_name_have_one_size() -> None:
    inputs = [signature("a", np.float32, "n", "s", 4), signature("b", np.float32, 3, "s", "n")]
    for feeds in propose_feeds(inputs, Hints()):
        assert feeds["a"].shape[1] == feeds["b"].shape[1]
        assert feeds["a"].shape[0] == feeds["b"].shape[2] == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attention_mask", 1),
        ("Mask", 1),
        ("token_type_ids", 0),
        ("segment_ids", 0),
    ],
)
def test_known_integer_inputs(name: str, value: int) -> None:
    (feeds,) = propose_feeds([signature(name, np.int64, 1, 16)], Hints(1000))
    np.testing.assert_array_equal(feeds[name], np.full((1, 16), value, np.int64))


@pytest.mark.parametrize("largest", [1, 2, 7, 30_000])
def test_indices_stay_below_the_smallest_table(largest: int) -> None:
    (feeds,) = propose_feeds([signature("input_ids", np.int32, 1, 500)], Hints(largest))
    assert feeds["input_ids"].dtype == np.int32
    assert feeds["input_ids"].min() >= 0
    assert feeds["input_ids"].max() < largest


def test_a_table_of_no_rows_gives_index_zero() -> None:
    (feeds,) = propose_feeds([signature("i", np.int64, 4)], Hints(0))
    np.testing.assert_array_equal(feeds["i"], np.zeros(4, np.int64))


@pytest.mark.parametrize("dtype", [np.bool_, np.float16, np.float64, np.uint8])
def test_types_are_those_of_the_model(dtype: type) -> None:
    (feeds,) = propose_feeds([signature("x", dtype, 2, 2)], Hints(5))
    assert feeds["x"].dtype == dtype


def test_sizes_that_the_weights_ask_for_come_last() -> None:
    proposals = list(propose_feeds([signature("x", np.float32, 1, None)], Hints(sizes=(77, 16))))
    sizes = [feeds["x"].shape[1] for feeds in proposals]
    assert sizes == [*FREE_SIZES, 77]


def test_inputs_larger_than_memory_are_not_proposed() -> None:
    inputs = [signature("x", np.float32, 1, *[None] * 5)]
    proposals = [feeds["x"].shape[1] for feeds in propose_feeds(inputs, Hints())]
    assert proposals == [size for size in FREE_SIZES if size**5 <= MOST_ELEMENTS]
    assert len(proposals) < len(FREE_SIZES)


@pytest.mark.parametrize("dtype", [None, np.object_], ids=["sequence", "string"])
def test_nothing_is_proposed_for_inputs_that_are_no_numbers(dtype: object) -> None:
    inputs = [signature("x", np.float32, 2), signature("s", dtype, 2)]
    assert list(propose_feeds(inputs, Hints(5))) == []


def test_same_feeds_every_time() -> None:
    inputs = [signature("x", np.float32, 1, 3), signature("i", np.int64, 1, 3)]
    (first,), (second,) = propose_feeds(inputs, Hints(9)), propose_feeds(inputs, Hints(9))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_token_model_with_mask_is_run(tmp_path: Path) -> None:
    """Indices within the table, a mask of ones, one segment: the usual inputs of an encoder."""
    rng = np.random.default_rng(0)
    model = make_model(
        "e = Gather(words, input_ids) t = Gather(types, token_type_ids) h = Add(e, t)"
        " f = Cast<to = 1>(attention_mask) a = Unsqueeze(f, last) m = Mul(h, a) y = MatMul(m, w)",
        "int64[batch, sequence] input_ids, int64[batch, sequence] attention_mask,"
        " int64[batch, sequence] token_type_ids",
        "float[batch, sequence, 128] y",
        {
            "words": float_weight(rng, (50, 64)),
            "types": float_weight(rng, (2, 64)),
            "w": float_weight(rng, (64, 128)),
            "last": np.array([-1]),
        },
    )
    verification = quantize(model, tmp_path).result.verification
    assert verification is not None
    assert verification.data == "synthetic inputs"
    assert verification.samples == 1
    (output,) = verification.outputs
    assert output.sqnr_db is not None
    # Three roundings to 8 bits of Gaussians (40.8 dB each), and 3 dB for the rest.
    assert output.sqnr_db > 40.8 - 10 * np.log10(3) - 3


@pytest.mark.parametrize("length", [32, 224, 77], ids=["not-the-first", "image", "of-a-weight"])
def test_other_sizes_are_tried_until_one_fits(length: int, tmp_path: Path) -> None:
    model = make_model(
        f"s = Constant<value_ints = [-1, {length}]>() h = Reshape(x, s) y = MatMul(h, w)",
        "float[N, L] x",
        "float[N, 64] y",
        {"w": float_weight(np.random.default_rng(0), (length, 64))},
    )
    verification = quantize(model, tmp_path).result.verification
    assert verification is not None
    assert verification.data == "synthetic inputs"
