"""Trying a result before it gets its name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxq.errors import DataError, ExecutionError, UnsupportedModelError, VerificationError
from onnxq.runtime.session import Feeds
from onnxq.samples import Hints, SampleFolder
from onnxq.verification import Verification, find_hints, verify
from tests.models import float_weight, make_model, save, to_ir

WEIGHT = float_weight(np.random.default_rng(0), (16, 8))


def model(text: str = "y = MatMul(x, w)", columns: int = 8, **more: Any) -> onnx.ModelProto:
    return make_model(text, "float[N, 16] x", f"float[N, {columns}] y", {"w": WEIGHT}, **more)


def check(
    float_model: onnx.ModelProto,
    quantized: onnx.ModelProto,
    folder: Path,
    *,
    data: Path | None = None,
    size_bytes: int = 1000,
    seen: list[int | None] | None = None,
) -> Verification:
    def track(feeds: Iterable[Feeds], total: int | None) -> Iterable[Feeds]:
        if seen is not None:
            seen.append(total)
        return feeds

    staging = folder / "staging"
    staging.mkdir()
    return verify(
        save(float_model, folder / "float.onnx"),
        save(quantized, staging / "quantized.onnx"),
        data=None if data is None else SampleFolder.open(data),
        hints=Hints(),
        size_bytes=size_bytes,
        track=track,
    )


def test_result_on_synthetic_inputs_says_so(tmp_path: Path) -> None:
    found = check(model(), model(), tmp_path)
    assert found.data == "synthetic inputs"
    assert found.samples == 1
    assert found.notes == ()
    assert found.optimized is not None
    assert found.optimized.float_nodes == {"MatMul": 1}


def test_result_on_samples_names_their_folder(tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    for index in range(3):
        np.savez(samples / f"{index}.npz", x=np.full((1, 16), index + 1, np.float32))
    seen: list[int] = []
    found = check(model(), model(), tmp_path, data=samples, seen=seen)
    assert (found.data, found.samples, seen) == (str(samples), 3, [3])
    assert found.to_json()["outputs"][0]["identical"] is True


def test_samples_of_another_shape_are_refused(tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    np.savez(samples / "0.npz", x=np.ones((1, 17), np.float32))
    with pytest.raises(DataError, match=r"float32\[1, 17\]; expected x: float32\[N, 16\]"):
        check(model(), model(), tmp_path, data=samples)


def test_operators_without_a_kernel_are_the_limit_of_the_runtime(tmp_path: Path) -> None:
    """As QuantizeLinear of operator set 28 in onnxruntime 1.32, which runs the float model."""
    text = "a = Cast<to = 16>(x) b = Cast<to = 16>(w) c = MatMul(a, b) y = Cast<to = 1>(c)"
    with pytest.raises(UnsupportedModelError, match=r"kernel .* MatMul\(13\).*older operator set"):
        check(model(), model(text), tmp_path)


def test_constant_dequantize_linear_is_refused(tmp_path: Path) -> None:
    quantized = make_model(
        "[slow] w = DequantizeLinear(q, s) h = Transpose<perm = [0, 1]>(w) g = Relu(h)"
        " y = MatMul(x, g)",
        "float[N, 16] x",
        "float[N, 8] y",
        {"q": np.ones((16, 8), np.int8), "s": np.float32(0.1)},
    )
    with pytest.raises(VerificationError, match="would be dequantized at every run, first '"):
        check(model(), quantized, tmp_path)


def test_invalid_result_is_refused(tmp_path: Path) -> None:
    broken = model()
    broken.graph.node[0].input[0] = "nowhere"
    with pytest.raises(VerificationError, match=r"onnx\.checker rejects the result"):
        check(model(), broken, tmp_path)


def test_result_that_does_not_load_is_refused(tmp_path: Path) -> None:
    unknown = model("y = com.microsoft.NoSuchOperator(x, w)", contrib=True)
    with pytest.raises(VerificationError, match="loads, but its quantized form does not"):
        check(model(), unknown, tmp_path)


def test_neither_loads(tmp_path: Path) -> None:
    unknown = model("y = com.microsoft.NoSuchOperator(x, w)", contrib=True)
    with pytest.raises(ExecutionError, match=r"float\.onnx: onnxruntime cannot load it"):
        check(unknown, unknown, tmp_path)


def test_only_the_float_model_does_not_load(tmp_path: Path) -> None:
    unknown = model("y = com.microsoft.NoSuchOperator(x, w)", contrib=True)
    found = check(unknown, model(), tmp_path)
    assert found.data == "not run"
    assert "the float model does not load" in found.notes[0]


def test_float_model_that_the_checker_rejects_is_noted(tmp_path: Path) -> None:
    # Before IR version 4 every initializer had to be an input; onnxruntime does not insist.
    strange = model(ir_version=3)
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(strange)
    found = check(strange, strange, tmp_path)
    (note,) = found.notes
    assert note.startswith("onnx.checker rejects the float model too: ")
    assert found.samples == 1


def test_other_numbers_are_reported_not_refused(tmp_path: Path) -> None:
    found = check(model(), model("h = MatMul(x, w) y = Neg(h)"), tmp_path)
    (output,) = found.outputs
    # Twice the signal is the noise: -20 log10(2).
    assert output.sqnr_db == pytest.approx(-6.02, abs=0.01)
    assert output.cosine == pytest.approx(-1.0)
    assert "WARNING: output 'y' keeps only -6.0 dB" in found.notes[0]


def test_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="NaN or infinity"):
        check(model(), model("h = MatMul(x, w) y = Sqrt(h)"), tmp_path)


def test_another_output_shape_is_refused(tmp_path: Path) -> None:
    doubled = model("h = MatMul(x, w) y = Concat<axis = 1>(h, h)", columns=16)
    with pytest.raises(VerificationError, match="has shape"):
        check(model(), doubled, tmp_path)


def test_model_that_no_synthetic_input_fits(tmp_path: Path) -> None:
    picky = make_model(
        "s = Constant<value_ints = [3, 7]>() h = Reshape(x, s) y = MatMul(h, w)",
        "float[A, B] x",
        "float[3, 8] y",
        {"w": float_weight(np.random.default_rng(0), (7, 8))},
    )
    found = check(picky, picky, tmp_path)
    assert found.samples == 0
    assert found.outputs == ()
    assert "--data DIR compares on real samples" in found.data


def test_huge_model_is_only_loaded(tmp_path: Path) -> None:
    found = check(model(), model(), tmp_path, size_bytes=2_000_000_001)
    assert "not run: over 2 GB" in found.data
    assert found.samples == 0
    assert found.optimized is None
    assert found.to_json()["optimized_graph"] is None


@pytest.mark.parametrize(
    ("tables", "expected"),
    [((), 2), ((30,), 30), ((30, 7, 512), 7)],
    ids=["none", "one", "several"],
)
def test_indices_stay_below_the_smallest_table(tables: tuple[int, ...], expected: int) -> None:
    nodes = [f"e{index} = Gather(t{index}, i)" for index in range(len(tables))]
    built = make_model(
        " ".join([*nodes, "y = Identity(i)"]),
        "int64[S] i",
        "int64[S] y",
        {f"t{index}": np.ones((rows, 4), np.float32) for index, rows in enumerate(tables)},
    )
    assert find_hints(to_ir(built)).largest_index == expected


def test_free_axes_may_have_to_be_as_long_as_a_matrix_has_rows() -> None:
    assert find_hints(to_ir(model())) == Hints(largest_index=2, sizes=(16,))


def test_output_without_finite_numbers_is_noted(tmp_path: Path) -> None:
    nan = model("h = MatMul(x, w) k = Abs(h) n = Neg(k) y = Sqrt(n)")
    found = check(nan, nan, tmp_path)
    assert found.notes == ("output 'y': no sample gave finite numbers to compare",)
    assert found.outputs[0].sqnr_db is None
