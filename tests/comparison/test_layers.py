"""Which layer adds which error."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxq
from onnxq.comparison.layers import measure_layers
from onnxq.comparison.layers_probes import FloatTypes, add_kind_probes, add_layer_probes
from onnxq.errors import DataError, InvalidModelError
from onnxq.graph.files import load_model
from onnxq.runtime.session import Session
from onnxq.samples import open_samples
from onnxq.verification.comparison import Comparison
from tests.comparison.layer_models import (
    INPUT,
    OUTPUT,
    PAIR,
    ROWS,
    WIDTH,
    compare,
    feeds,
    ratio_db,
    run,
    samples,
    two_layers,
    two_weights,
)
from tests.models import FloatArray, float_weight, make_model, save

DECIBELS = 10 * math.log10(1.001)
"""A relative error of 1e-3 in the noise."""


def _coarse(weight: FloatArray) -> FloatArray:
    return np.round(weight * 8) / np.float32(8)


def _relu(array: FloatArray) -> FloatArray:
    return np.maximum(array, 0)


@pytest.mark.parametrize("damaged", ["w1", "w2"])
def test_the_damaged_layer_comes_first(
    rng: np.random.Generator, tmp_path: Path, damaged: str
) -> None:
    weights, arrays = two_weights(rng), feeds(rng)
    rounded = {**weights, damaged: _coarse(weights[damaged])}
    found = compare(tmp_path, two_layers(weights), two_layers(rounded), arrays)
    hidden = [one @ weights["w1"] for one in arrays]
    inputs, tensor = (arrays, "h") if damaged == "w1" else ([_relu(one) for one in hidden], "y")
    expected = ratio_db(
        [one @ weights[damaged] for one in inputs], [one @ rounded[damaged] for one in inputs]
    )
    assert next(iter(found)) == tensor
    assert found[tensor].added_sqnr_db == pytest.approx(expected, abs=DECIBELS)
    assert found[tensor].accumulated_sqnr_db == pytest.approx(expected, abs=DECIBELS)
    assert (found[tensor].node, found[tensor].operator) == (
        "first" if damaged == "w1" else "second",
        "MatMul",
    )
    other = found["y" if tensor == "h" else "h"]
    assert other.added_sqnr_db == math.inf
    if damaged == "w1":
        outputs = [[run(two_layers(w), one) for one in arrays] for w in (weights, rounded)]
        assert other.accumulated_sqnr_db == pytest.approx(ratio_db(*outputs), abs=DECIBELS)


def test_errors_of_both_layers_are_told_apart(rng: np.random.Generator, tmp_path: Path) -> None:
    weights, arrays = two_weights(rng), feeds(rng)
    rounded = {name: _coarse(weight) for name, weight in weights.items()}
    found = compare(tmp_path, two_layers(weights), two_layers(rounded), arrays)
    hidden = [_relu(one @ weights["w1"]) for one in arrays]
    expected = ratio_db(
        [one @ weights["w2"] for one in hidden], [one @ rounded["w2"] for one in hidden]
    )
    assert found["y"].added_sqnr_db == pytest.approx(expected, abs=DECIBELS)
    assert found["y"].accumulated_sqnr_db < expected - 1
    errors = [one.added_sqnr_db for one in found.values()]
    assert errors == sorted(errors)
    assert "r" not in found, "a Relu adds nothing"


@pytest.mark.parametrize("names", [("q", "d"), ("h_QuantizeLinear_Output", "h_Dequantize/:*")])
def test_rounding_is_charged_to_the_layer_before_it(
    rng: np.random.Generator, tmp_path: Path, names: tuple[str, str]
) -> None:
    weights, arrays = two_weights(rng), feeds(rng)
    scale = np.float32(0.25)
    quantized = make_model(
        f"[first] h = MatMul(x, w1) {PAIR} r = Relu(d) [second] y = MatMul(r, w2)",
        INPUT,
        OUTPUT,
        {**weights, "scale": np.array(scale), "zero": np.array(0, np.int8)},
    )
    for node in quantized.graph.node:
        for values in (node.input, node.output):
            values[:] = [{"q": names[0], "d": names[1]}.get(one, one) for one in values]
    found = compare(tmp_path, two_layers(weights), quantized, arrays)
    hidden = [one @ weights["w1"] for one in arrays]
    expected = ratio_db(hidden, [np.round(one / scale) * scale for one in hidden])
    assert list(found) == ["h", "y"]
    assert found["h"].added_sqnr_db == pytest.approx(expected, abs=10 * DECIBELS)
    assert found["y"].added_sqnr_db == math.inf
    assert found["y"].accumulated_sqnr_db < expected + 10


def test_a_clipping_that_the_integers_do_counts_to_the_layer(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    """As onnxruntime.quantization leaves out a Relu: the integers start at 0."""
    weights, arrays = two_weights(rng), feeds(rng)
    quantized = make_model(
        f"[first] h = MatMul(x, w1) {PAIR} [second] y = MatMul(d, w2)",
        INPUT,
        OUTPUT,
        {**weights, "scale": np.array(np.float32(0.02)), "zero": np.array(0, np.uint8)},
    )
    found = compare(tmp_path, two_layers(weights), quantized, arrays)
    assert list(found) == ["r", "y"]
    assert found["r"].node == "first"
    assert found["r"].added_sqnr_db > 30


@pytest.mark.parametrize("suffix", ["_quantized", "_q", ""])
def test_operators_on_integers(rng: np.random.Generator, tmp_path: Path, suffix: str) -> None:
    weights, arrays = two_weights(rng), feeds(rng)
    integers = np.clip(np.round(weights["w1"] / 0.02), -127, 127).astype(np.int8)
    hidden, weight = f"h{suffix}", ("w2", weights["w2"])
    last = "d" if not suffix else "h"
    quantized = make_model(
        f"x_q = QuantizeLinear(x, s, z) {hidden} = QLinearMatMul(x_q, s, z, w1_q, sw, zw, s, z) "
        f"{last} = DequantizeLinear({hidden}, s, z) r = Relu({last}) y = MatMul(r, w2)",
        INPUT,
        OUTPUT,
        {
            "s": np.array(np.float32(0.03)),
            "z": np.array(0, np.int8),
            "w1_q": integers,
            "sw": np.array(np.float32(0.02)),
            "zw": np.array(0, np.int8),
            weight[0]: weight[1],
        },
    )
    found = compare(tmp_path, two_layers(weights), quantized, arrays)
    assert list(found) == ["h", "y"], "and not the Relu, which reads what is dequantized"
    assert 20 < found["h"].added_sqnr_db < 45
    assert found["h"].added_sqnr_db == found["h"].accumulated_sqnr_db
    assert found["y"].added_sqnr_db == math.inf


def test_names_with_odd_characters(rng: np.random.Generator, tmp_path: Path) -> None:
    weights, arrays = two_weights(rng), feeds(rng)
    models = [two_layers(weights), two_layers({**weights, "w1": _coarse(weights["w1"])})]
    new = {"h": "onnxq_h/ ☃:0", "w1": "w;1", "r": 'a "b"', "first": "la yer\\1", "y": "onnxq_Sub"}
    for model in models:
        for node in model.graph.node:
            node.name = new.get(node.name, node.name)
            for values in (node.input, node.output):
                values[:] = [new.get(one, one) for one in values]
        for one in (*model.graph.initializer, *model.graph.output):
            one.name = new.get(one.name, one.name)
    found = compare(tmp_path, models[0], models[1], arrays)
    assert list(found) == [new["h"], new["y"]]
    assert found[new["h"]].node == new["first"]


def test_nothing_in_common(rng: np.random.Generator, tmp_path: Path) -> None:
    weights, arrays = two_weights(rng), feeds(rng)
    other = make_model("z = Exp(x)", INPUT, f"float[N, {WIDTH}] z")
    assert compare(tmp_path, two_layers(weights), other, arrays) == {}
    renamed = make_model("y = Exp(v)", INPUT.replace(" x", " v"), OUTPUT)
    assert compare(tmp_path, two_layers(weights), renamed, arrays) == {}
    assert compare(tmp_path, two_layers(weights), two_layers(weights), []) == {}


def test_tensors_of_another_shape_are_left_out(rng: np.random.Generator, tmp_path: Path) -> None:
    weights, arrays = two_weights(rng), feeds(rng)
    quantized = make_model(
        "h2 = MatMul(x, w1) h = Transpose <perm = [1, 0]> (h2) b = Transpose <perm = [1, 0]> (h) "
        "r = Relu(b) y = MatMul(r, w2)",
        INPUT,
        OUTPUT,
        {**weights, "w1": _coarse(weights["w1"])},
    )
    found = compare(tmp_path, two_layers(weights), quantized, arrays)
    # The layer behind reaches back to the next tensor that both have.
    assert list(found) == ["r", "y"]
    assert found["r"].node == "first"


def test_bodies_functions_and_older_opsets(rng: np.random.Generator, tmp_path: Path) -> None:
    weights, arrays = two_weights(rng), feeds(rng)
    nodes = (
        "h = MatMul(x, w1) total = ReduceSum <keepdims = 0> (h) large = Greater(total, zero) "
        "r = If (large) <then_branch = a () => (t) { t = Relu(h) }, "
        "else_branch = b () => (e) { one = MatMul(h, w1) e = local.half(one) }> y = MatMul(r, w2)"
    )
    functions = '<domain: "local", opset_import: ["" : 17]> half (a) => (b) { b = Add(a, a) }'
    models = [
        make_model(
            nodes,
            INPUT,
            OUTPUT,
            {**weights, "w1": change(weights["w1"]), "zero": np.array(np.float32(1e9))},
            functions=text,
        )
        for change, text in ((np.asarray, functions), (_coarse, functions.replace("Add", "Sub")))
    ]
    found = compare(tmp_path, models[0], models[1], arrays)
    assert set(found) == {"h", "r", "y"}
    assert found["r"].operator == "If"
    assert found["y"].added_sqnr_db == math.inf
    older = two_layers({**weights, "w1": _coarse(weights["w1"])}, opset=9)
    assert list(compare(tmp_path, two_layers(weights), older, arrays)) == ["h", "y"]


def test_integers_scalars_and_infinities_are_left_out(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    weights, arrays = two_weights(rng), feeds(rng)
    models = [
        make_model(
            "h = MatMul(x, w1) i = ArgMax(h) s = ReduceMax <keepdims = 0> (h) n = Div(h, nought) "
            "f = Cast <to = 1> (i) g = Add(f, s) y = Add(h, g)",
            INPUT,
            OUTPUT + f", float[N, {WIDTH}] n",
            {"w1": weight, "nought": np.array(np.float32(0))},
        )
        for weight in (weights["w1"], _coarse(weights["w1"]))
    ]
    found = compare(tmp_path, models[0], models[1], arrays)
    assert "i" not in found
    assert "s" not in found
    assert "n" not in found
    assert next(iter(found)) == "h"


def test_a_quantized_model_that_gives_nan_is_the_worst(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    weights, arrays = two_weights(rng), feeds(rng)
    broken = {**weights, "w2": np.full((WIDTH, WIDTH), np.nan, np.float32)}
    found = compare(tmp_path, two_layers(weights), two_layers(broken), arrays)
    assert list(found) == ["y", "h"]
    assert found["y"].added_sqnr_db == -math.inf


def test_half_precision(rng: np.random.Generator, tmp_path: Path) -> None:
    weights, arrays = two_weights(rng), feeds(rng)
    half = make_model(
        "xh = Cast <to = 10> (x) h = MatMul(xh, w1) r = Relu(h) yh = MatMul(r, w2) "
        "y = Cast <to = 1> (yh)",
        INPUT,
        OUTPUT,
        {name: weight.astype(np.float16) for name, weight in weights.items()},
    )
    found = compare(tmp_path, two_layers(weights), half, arrays)
    assert set(found) == {"h", "y"}
    assert all(50 < one.added_sqnr_db < 90 for one in found.values())


@pytest.mark.parametrize("kind", ["int8", "fp16", "int4"])
def test_dynamic_models(rng: np.random.Generator, tmp_path: Path, kind: str) -> None:
    nodes = "[first] h = MatMul(x, w1) a = Add(h, b) r = Relu(a) [second] y = MatMul(r, w2)"
    weights = {name: float_weight(rng, (64, 64)) for name in ("w1", "w2")}
    weights["b"] = float_weight(rng, (64,))
    path = save(
        make_model(nodes, "float[N, 64] x", "float[N, 64] y", weights), tmp_path / "model.onnx"
    )
    quantized = tmp_path / "quantized.onnx"
    onnxq.quantize_dynamic(path, quantized, weights=kind)
    arrays = [rng.standard_normal((ROWS, 64)).astype(np.float32) for _ in range(3)]
    found = measure_layers(path, quantized, samples(arrays), folder=tmp_path)
    assert {one.node for one in found} == {"first", "second"}
    plain = Comparison(Session(path), Session(quantized))
    for array in arrays:
        plain.add({"x": array})
    last = next(one for one in found if one.tensor == "y")
    assert last.accumulated_sqnr_db == pytest.approx(plain.results()[0].sqnr_db, abs=0.1)


@pytest.fixture(scope="module")
def calibrated_cnn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The sample CNN, its calibrated form, and samples."""
    repository = Path(__file__).resolve().parents[2]
    source, data = repository / "sample_models/cnn.onnx", repository / "calib_data/cnn/calib"
    output = tmp_path_factory.mktemp("cnn") / "cnn.int8.onnx"
    onnxq.quantize_static(source, data, output, accuracy="fast")
    return source, output, data


def test_a_calibrated_network(calibrated_cnn: tuple[Path, Path, Path], tmp_path: Path) -> None:
    source, quantized, data = calibrated_cnn
    reference = Session(source)
    plain = Comparison(reference, Session(quantized))
    chosen = list(open_samples(data).read(reference.inputs, keep=lambda index: index < 8))
    for sample in chosen:
        plain.add(sample.feeds)
    found = measure_layers(source, quantized, iter(chosen), folder=tmp_path)
    by_tensor = {one.tensor: one for one in found}
    output = plain.results()[0].sqnr_db
    assert by_tensor["logits"].accumulated_sqnr_db == pytest.approx(output, abs=0.1)
    assert sum(one.operator in ("Conv", "Gemm") for one in found) >= 17
    assert [one.added_sqnr_db for one in found] == sorted(one.added_sqnr_db for one in found)
    assert found[0].added_sqnr_db > 15
    for one in found:
        assert one.accumulated_sqnr_db < one.added_sqnr_db + 3


def test_outputs_do_not_grow_with_samples(calibrated_cnn: tuple[Path, Path, Path]) -> None:
    """All that leaves the runtime are numbers, three a layer."""
    source, quantized, _ = calibrated_cnn
    models = load_model(source).model, load_model(quantized).model
    _, kinds = add_kind_probes(*models)
    single = FloatTypes(np.dtype(np.float32), np.dtype(np.float32))
    model, probes = add_layer_probes(*models, {one.name: single for one in kinds})
    assert len(model.graph.outputs) == sum(len(one.outputs) for one in probes)
    operators = {one.producer().op_type for one in model.graph.outputs}  # type: ignore[union-attr]
    assert operators == {"ReduceSumSquare"}


def test_weights_are_there_once(rng: np.random.Generator, tmp_path: Path) -> None:
    weights = two_weights(rng)
    paths = [
        save(two_layers(one), tmp_path / f"{index}.onnx")
        for index, one in enumerate((weights, {**weights, "w1": _coarse(weights["w1"])}))
    ]
    models = [load_model(path).model for path in paths]
    single = FloatTypes(np.dtype(np.float32), np.dtype(np.float32))
    model, _ = add_layer_probes(*models, dict.fromkeys(("h", "r", "y"), single))
    assert len(model.graph.initializers) == 3


def test_external_data(rng: np.random.Generator, tmp_path: Path) -> None:
    weights, arrays = two_weights(rng), feeds(rng)
    paths = []
    for name, first in (("float", weights["w1"]), ("quantized", _coarse(weights["w1"]))):
        folder = tmp_path / name
        folder.mkdir()
        paths.append(folder / "model.onnx")
        onnx.save(
            two_layers({**weights, "w1": first}),
            paths[-1],
            save_as_external_data=True,
            location="data",
            size_threshold=0,
        )
    found = measure_layers(paths[0], paths[1], samples(arrays), folder=tmp_path)
    assert [one.tensor for one in found] == ["h", "y"]
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["float", "quantized"]


def test_old_models_list_their_weights_as_inputs(rng: np.random.Generator, tmp_path: Path) -> None:
    weights, arrays = two_weights(rng), feeds(rng)
    models = [two_layers(weights), two_layers({**weights, "w1": _coarse(weights["w1"])})]
    for model in models:
        model.ir_version = 3
        model.graph.input.extend(
            onnx.helper.make_tensor_value_info(name, 1, [WIDTH, WIDTH]) for name in weights
        )
        assert numpy_helper.to_array(model.graph.initializer[0]).shape == (WIDTH, WIDTH)
    assert list(compare(tmp_path, models[0], models[1], arrays)) == ["h", "y"]


def test_errors_are_those_of_onnxq(rng: np.random.Generator, tmp_path: Path) -> None:
    weights = two_weights(rng)
    path = save(two_layers(weights), tmp_path / "model.onnx")
    bad = np.zeros((2, WIDTH + 1), np.float32)
    with pytest.raises(DataError, match=r"0\.npy: the models cannot run"):
        measure_layers(path, path, samples([bad]), folder=tmp_path)
    with pytest.raises(InvalidModelError):
        measure_layers(path, tmp_path / "none.onnx", samples([bad]), folder=tmp_path)
