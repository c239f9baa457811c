"""The pipeline of ``onnxq static``: which ranges it chooses, on which samples, what it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxq
from onnxq.errors import DataError, NothingToQuantizeError, OnnxqError
from onnxq.pipelines import QuantizationResult
from onnxq.pipelines.range_options import AUTO_METHODS
from tests.apply.calibrated_models import (
    IMAGE,
    MODELS,
    calibrated_operators,
    images,
    quantize_static,
    save_samples,
    weights,
)
from tests.apply.quantized import Quantized
from tests.models import make_model, save

Feeds = dict[str, np.ndarray]


def calibration(quantized: Quantized) -> Any:
    found = quantized.result.calibration
    assert found is not None
    return found


def sqnr_db(result: QuantizationResult) -> float:
    assert result.verification is not None
    (output,) = result.verification.outputs
    assert output.sqnr_db is not None
    return output.sqnr_db


def with_outlier(value: float) -> tuple[onnx.ModelProto, list[Feeds]]:
    """One element of one sample is ``value``; behind a layer those are 24 of 196608.

    That is 0.012 %: of a side, half of it, which is less than the 0.01 % that percentile cuts.
    """
    model = make_model(
        "[first] a = Conv(x, w1) [mid] m = Conv(a, w2) c = Relu(m) [last] d = Conv(c, w4) "
        "y = Neg(d)",
        "float[N, 24, 32, 32] x",
        "float[N, 24, 32, 32] y",
        weights(w1=(24, 24, 1, 1), w2=(24, 24, 1, 1), w4=(24, 24, 1, 1)),
        opset=21,
    )
    samples = images(10, size=32)
    samples[2]["x"][0, 3, 4, 5] = value
    return model, samples


def _at(folder: Path, case: tuple[onnx.ModelProto, list[Feeds]]) -> Any:
    model, samples = case
    return model, folder, samples


# Which method.


def test_clipping_wins_where_outliers_are_rare(tmp_path: Path) -> None:
    quantized = quantize_static(*_at(tmp_path, with_outlier(1000.0)), method="auto")
    found = calibration(quantized)
    candidates = dict(found.candidates)
    assert tuple(candidates) == AUTO_METHODS
    assert found.method in ("percentile", "mse")
    assert candidates[found.method] >= max(candidates.values()) - 0.5
    assert candidates[found.method] > candidates["minmax"] + 0.5
    # Methods are told apart on activations alone; rounding weights adds to that error.
    assert 20 < sqnr_db(quantized.result) < candidates[found.method]


def test_rare_values_that_matter_are_kept(tmp_path: Path) -> None:
    """Two values only, one of them rare: whoever clips the rare one loses it all."""
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(10):
        x = np.zeros((1, 24, 32, 32), np.float32)
        x.reshape(-1)[rng.integers(0, x.size, 1)] = 100.0
        samples.append({"x": x})
    model, _ = with_outlier(0.0)
    quantized = quantize_static(model, tmp_path, samples, method="auto")
    candidates = dict(calibration(quantized).candidates)
    assert calibration(quantized).method != "percentile"
    assert candidates["minmax"] > candidates["percentile"] + 10


def test_extremes_stay_where_nothing_is_gained(tmp_path: Path) -> None:
    """Uniform noise has no tails: cutting 0.01 % off it changes 0.001 dB."""
    model = make_model(
        "h = Gemm(x, w, b) y = Neg(h)",
        "float[N, 96] x",
        "float[N, 80] y",
        weights(w=(96, 80), b=(80,)),
        opset=21,
    )
    rng = np.random.default_rng(0)
    samples = [{"x": rng.uniform(-1, 1, (64, 96)).astype(np.float32)} for _ in range(10)]
    quantized = quantize_static(model, tmp_path, samples, method="auto", dynamic_matmul=False)
    candidates = dict(calibration(quantized).candidates)
    assert max(candidates.values()) - candidates["minmax"] <= 0.5
    assert calibration(quantized).method == "minmax"


def test_one_method_is_not_tried(tmp_path: Path) -> None:
    quantized = quantize_static(MODELS["Conv"].build(), tmp_path, method="mse")
    assert calibration(quantized).method == "mse"
    assert calibration(quantized).candidates == ()


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
def test_every_method_works(method: str, tmp_path: Path) -> None:
    quantized = quantize_static(MODELS["SiLU"].build(), tmp_path, method=method)
    for name, low, high in calibration(quantized).ranges:
        assert low <= 0.0 <= high, name
        assert low < high, name
    # Three tensors of 8 bits over +-4 standard deviations have 40 dB each.
    assert sqnr_db(quantized.result) > 20


def test_percentile_decides_how_much_is_cut(tmp_path: Path) -> None:
    widths = {}
    for percentile in (90.0, 99.0, 100.0):
        folder = tmp_path / str(percentile)
        folder.mkdir()
        found = quantize_static(
            MODELS["Conv"].build(), folder, method="percentile", percentile=percentile
        )
        ranges = {name: (low, high) for name, low, high in calibration(found).ranges}
        widths[percentile] = ranges["x"][1] - ranges["x"][0]
    values = np.concatenate(
        [feeds["x"].reshape(-1) for index, feeds in enumerate(images()) if index % 5 != 4]
    )
    for percentile, width in widths.items():
        expected = np.percentile(values, percentile) - np.percentile(values, 100 - percentile)
        assert width == pytest.approx(expected, rel=0.01)


def test_minmax_is_the_minimum_and_maximum_of_what_was_not_held_back(tmp_path: Path) -> None:
    samples = images(11)
    samples[4]["x"] *= 100  # held back
    samples[9]["x"] *= 100
    quantized = quantize_static(MODELS["Conv"].build(), tmp_path, samples)
    ranges = {name: (low, high) for name, low, high in calibration(quantized).ranges}
    used = [feeds["x"] for index, feeds in enumerate(samples) if index not in (4, 9)]
    assert ranges["x"] == (min(x.min() for x in used), max(x.max() for x in used))


# Strange data.


@pytest.mark.parametrize("value", [50.0, -1e3, 1e6, -1e12, 3e38])
def test_one_outlier_does_not_destroy_the_result(value: float, tmp_path: Path) -> None:
    quantized = quantize_static(*_at(tmp_path, with_outlier(value)), method="auto")
    # Five tensors of 8 bits over +-5 standard deviations have 38 dB each, 31 dB together.
    assert sqnr_db(quantized.result) > 28


@pytest.mark.parametrize("masked", [-1e4, -3.4028235e38, -np.inf], ids=["-1e4", "-3.4e38", "-inf"])
@pytest.mark.parametrize("method", ["auto", "minmax"])
def test_attention_mask(masked: float, method: str, tmp_path: Path) -> None:
    """A mask added to scores, behind which integer layers go on."""
    model = make_model(
        "[query] q = MatMul(x, wq) [key] k = MatMul(x, wk) t = Transpose<perm = [0, 2, 1]>(k) "
        "s = MatMul(q, t) z = Add(s, mask) p = Softmax<axis = -1>(z) [value] v = MatMul(x, wv) "
        "o = MatMul(p, v) [out] u = MatMul(o, wo) y = Tanh(u)",
        "float[N, 6, 96] x, float[N, 6, 6] mask",
        "float[N, 6, 96] y",
        weights(wq=(96, 96), wk=(96, 96), wv=(96, 96), wo=(96, 96)),
        opset=21,
    )
    rng = np.random.default_rng(0)
    samples = []
    for index in range(10):
        mask = np.zeros((2, 6, 6), np.float32)
        mask[:, :, 3 + index % 3 :] = masked
        samples.append({"x": rng.standard_normal((2, 6, 96)).astype(np.float32), "mask": mask})
    for dynamic_matmul in (True, False):
        folder = tmp_path / str(dynamic_matmul)
        folder.mkdir()
        quantized = quantize_static(
            model, folder, samples, method=method, dynamic_matmul=dynamic_matmul
        )
        assert sqnr_db(quantized.result) > 20
        if not dynamic_matmul:
            assert "MatMul" in calibrated_operators(quantized)


@pytest.mark.parametrize("masked", [-1e4, -3.4028235e38, -np.inf], ids=["-1e4", "-3.4e38", "-inf"])
@pytest.mark.parametrize("method", ["auto", "minmax"])
def test_masked_values_that_are_quantized(masked: float, method: str, tmp_path: Path) -> None:
    """Integers of the mask tensor itself: its range must not be that of the mask."""
    model = make_model(
        "z = Add(x, mask) e = Exp(z) [first] a = Conv(e, w1) [last] d = Conv(a, w1) y = Neg(d)",
        f"{IMAGE} x, {IMAGE} mask",
        f"{IMAGE} y",
        weights(w1=(24, 24, 1, 1)),
        opset=21,
    )
    samples = images(10)
    for feeds in samples:
        feeds["mask"] = np.where(feeds["x"] > 1, np.float32(masked), np.float32(0))
    quantized = quantize_static(model, tmp_path, samples, method=method)
    assert sqnr_db(quantized.result) > 20


def test_all_zero_samples(tmp_path: Path) -> None:
    samples = [{"x": np.zeros((1, 24, 8, 8), np.float32)} for _ in range(6)]
    quantized = quantize_static(MODELS["Conv-Relu"].build(), tmp_path, samples, method="auto")
    (feeds, *_) = samples
    expected, actual = quantized.run_float(feeds)[0], quantized.run(feeds)[0]
    assert np.abs(expected - actual).max() <= 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("number", [1.0, -1.0, 1e-30, 1e30, 1e-45])
def test_constant_activations(number: float, tmp_path: Path) -> None:
    samples = [{"x": np.full((1, 24, 8, 8), number, np.float32)} for _ in range(6)]
    quantized = quantize_static(MODELS["Conv-no-bias"].build(), tmp_path, samples, method="auto")
    (feeds, *_) = samples
    actual = quantized.run(feeds)[0]
    assert np.isfinite(actual).all()
    expected = quantized.run_float(feeds)[0]
    if 1e-20 < abs(number) < 1e20:
        assert np.linalg.norm(expected - actual) <= 0.05 * np.linalg.norm(expected)


def test_nan_in_a_sample_is_named(tmp_path: Path) -> None:
    samples = images(6)
    samples[3]["x"][0, 1, 2, 3] = np.nan
    with pytest.raises(DataError, match=r"sample_003.npz: array 'x' holds NaN"):
        quantize_static(MODELS["Conv"].build(), tmp_path, samples, method="auto")


@pytest.mark.parametrize("method", ["auto", "minmax"])
def test_nan_inside_the_model_is_named(method: str, tmp_path: Path) -> None:
    model = make_model(
        "s = Sqrt(x) [first] a = Conv(s, w1) [last] d = Conv(a, w1) y = Neg(d)",
        f"{IMAGE} x",
        f"{IMAGE} y",
        weights(w1=(24, 24, 1, 1)),
        opset=21,
    )
    samples = [{"x": np.abs(feeds["x"])} for feeds in images(6)]
    samples[3]["x"][0, 1, 2, 3] = -1
    with pytest.raises(DataError, match=r"sample_003.npz: tensor '\w+' holds NaN in the float"):
        quantize_static(model, tmp_path, samples, method=method)
    assert {one.name for one in tmp_path.iterdir()} == {"model.onnx", "samples"}


# Which samples.


@pytest.mark.parametrize(
    ("count", "calibrated", "held_back"), [(1, 1, 1), (4, 4, 4), (5, 4, 1), (10, 8, 2), (23, 19, 4)]
)
def test_every_fifth_is_held_back(
    count: int, calibrated: int, held_back: int, tmp_path: Path
) -> None:
    quantized = quantize_static(MODELS["Conv"].build(), tmp_path, images(count), method="auto")
    found = calibration(quantized)
    verification = quantized.result.verification
    assert verification is not None
    assert found.samples == calibrated
    assert verification.samples == held_back
    assert ("too few to hold any back" in verification.data) is (count < 5)
    assert ("held back from calibration" in verification.data) is (count >= 5)


@pytest.mark.parametrize("seed", [0, 1])
def test_limit_chooses_samples(seed: int, tmp_path: Path) -> None:
    source = save(MODELS["Conv"].build(), tmp_path / "model.onnx")
    data = save_samples(images(20), tmp_path / "samples")
    result = onnxq.quantize_static(source, data, samples=10, seed=seed, method="minmax")
    assert result.calibration is not None
    assert result.calibration.samples == 8
    assert f"10 of 20 samples, chosen with seed {seed}" in result.calibration.notes


def test_more_samples_than_there_are(tmp_path: Path) -> None:
    source = save(MODELS["Conv"].build(), tmp_path / "model.onnx")
    data = save_samples(images(6), tmp_path / "samples")
    result = onnxq.quantize_static(source, data, samples=100, method="minmax")
    assert result.calibration is not None
    assert result.calibration.samples == 5
    assert result.calibration.notes == ()


READER = """
import numpy as np
CALLS = []
def samples():
    CALLS.append(1)
    rng = np.random.default_rng(7)
    for _ in range(COUNT):
        yield {"x": rng.standard_normal((1, 24, 8, 8)).astype(np.float32)}
"""


@pytest.mark.parametrize("count", [3, 10])
def test_reader_gives_what_the_folder_gives(count: int, tmp_path: Path) -> None:
    source = save(MODELS["Conv-Relu"].build(), tmp_path / "model.onnx")
    data = save_samples(images(count), tmp_path / "samples")
    reader = tmp_path / "reader.py"
    reader.write_text(READER.replace("COUNT", str(count)))
    one = onnxq.quantize_static(source, data, tmp_path / "one.onnx")
    two = onnxq.quantize_static(source, output=tmp_path / "two.onnx", reader=f"{reader}:samples")
    assert one.output.read_bytes() == two.output.read_bytes()
    for result in (one, two):
        assert result.calibration is not None
        assert result.verification is not None
    assert one.calibration.samples == two.calibration.samples
    assert one.verification.samples == two.verification.samples


def test_reader_with_saved_ranges(tmp_path: Path) -> None:
    """Nothing was read before the verification, so how many there are is not known."""
    source = save(MODELS["Conv-Relu"].build(), tmp_path / "model.onnx")
    reader = tmp_path / "reader.py"
    reader.write_text(READER.replace("COUNT", "10"))
    name = f"{reader}:samples"
    one = onnxq.quantize_static(
        source,
        output=tmp_path / "one.onnx",
        reader=name,
        save_ranges=tmp_path / "ranges.json",
        accuracy="fast",
    )
    two = onnxq.quantize_static(
        source, output=tmp_path / "two.onnx", reader=name, ranges=tmp_path / "ranges.json"
    )
    assert one.output.read_bytes() == two.output.read_bytes()
    assert one.verification is not None
    assert two.verification is not None
    assert "too few" not in two.verification.data
    assert one.verification.samples == two.verification.samples


def test_bad_samples_among_those_held_back(tmp_path: Path) -> None:
    source = save(MODELS["Conv"].build(), tmp_path / "model.onnx")
    data = save_samples(images(10), tmp_path / "samples")
    for index in (4, 7):
        (data / f"sample_{index:03d}.npz").write_bytes(b"no sample")
    with pytest.raises(DataError, match=r"sample_004.npz|sample_007.npz"):
        onnxq.quantize_static(source, data, method="minmax")
    result = onnxq.quantize_static(source, data, method="minmax", skip_bad=True)
    assert result.calibration is not None
    assert result.verification is not None
    assert result.calibration.samples == 7
    assert result.verification.samples == 1
    skipped = " ".join(result.calibration.skipped)
    assert "sample_004.npz" in skipped
    assert "sample_007.npz" in skipped


def test_all_samples_held_back_are_bad(tmp_path: Path) -> None:
    source = save(MODELS["Conv"].build(), tmp_path / "model.onnx")
    data = save_samples(images(5), tmp_path / "samples")
    (data / "sample_004.npz").write_bytes(b"no sample")
    result = onnxq.quantize_static(source, data, skip_bad=True)
    assert result.calibration is not None
    assert result.calibration.samples == 4
    assert result.verification is not None
    assert result.verification.samples > 0


# What it leaves.


def test_same_bytes_with_any_hash_seed(tmp_path: Path) -> None:
    source = save(MODELS["SiLU"].build(), tmp_path / "model.onnx")
    data = save_samples(images(6), tmp_path / "samples")
    written = []
    for seed in ("0", "77"):
        output = tmp_path / f"{seed}.onnx"
        command = [sys.executable, "-m", "onnxq", "static", source, "--calib", data, "-o", output]
        subprocess.run(
            [*map(str, command), "--save-ranges", str(tmp_path / f"{seed}.json")],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            timeout=60,
        )
        written.append((output.read_bytes(), (tmp_path / f"{seed}.json").read_bytes()))
    assert written[0] == written[1]


def fail_while_calibrating(folder: Path) -> None:
    (folder / "samples" / "sample_003.npz").write_bytes(b"no sample")


def fail_while_holding_back(folder: Path) -> None:
    (folder / "samples" / "sample_004.npz").write_bytes(b"no sample")


@pytest.mark.parametrize("damage", [fail_while_calibrating, fail_while_holding_back])
@pytest.mark.parametrize("method", ["auto", "minmax"])
def test_nothing_is_left_behind_on_failure(damage: Any, method: str, tmp_path: Path) -> None:
    source = save(MODELS["Conv"].build(), tmp_path / "model.onnx")
    save_samples(images(6), tmp_path / "samples")
    damage(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(OnnxqError):
        onnxq.quantize_static(
            source, tmp_path / "samples", method=method, save_ranges=tmp_path / "ranges.json"
        )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert {one.name for one in tmp_path.iterdir()} == {"model.onnx", "samples"}


def test_result_that_is_not_smaller_is_refused(tmp_path: Path) -> None:
    """So many small layers that scales and pairs weigh more than what is saved."""
    constants: dict[str, np.ndarray] = {}
    text, last = "", "x"
    for index in range(8):
        constants[f"w{index}"] = weights(w=(24, 4, 1, 1))["w"]
        text += f"h{index} = Conv<group = 6>({last}, w{index}) "
        last = f"h{index}"
    model = make_model(f"{text} y = Neg({last})", f"{IMAGE} x", f"{IMAGE} y", constants, opset=21)
    try:
        quantized = quantize_static(model, tmp_path)
    except NothingToQuantizeError as error:
        assert "would not get smaller" in str(error) or "nothing to quantize" in str(error)
        assert {one.name for one in tmp_path.iterdir()} == {"model.onnx", "samples"}
    else:
        assert quantized.path.stat().st_size < (tmp_path / "model.onnx").stat().st_size


def test_ranges_need_no_calibration_of_a_model_without_integers(tmp_path: Path) -> None:
    """Only a table: nothing to observe, so nothing is run to calibrate."""
    model = make_model(
        "e = Gather(table, ids) y = Tanh(e)",
        "int64[N] ids",
        "float[N, 64] y",
        weights(table=(500, 64)),
        opset=21,
    )
    samples = [{"ids": np.arange(5) + index} for index in range(6)]
    quantized = quantize_static(model, tmp_path, samples, method="auto")
    found = calibration(quantized)
    assert found.ranges == ()
    assert found.samples == 0
    dynamic = onnxq.quantize_dynamic(tmp_path / "model.onnx", tmp_path / "dynamic.onnx")
    assert dynamic.output.read_bytes() == quantized.path.read_bytes()


def test_plan_in_the_result_is_the_settled_one(tmp_path: Path) -> None:
    """Nodes that the data turned away are not reported as calibrated."""
    from tests.calibration.test_guards import joined

    quantized = quantize_static(joined("Concat", 1000.0), tmp_path)
    operators = [node.op_type for node in onnx.load(str(quantized.path)).graph.node]
    assert operators.count("QuantizeLinear") == len(quantized.result.calibration.ranges)
