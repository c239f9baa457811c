"""Calibrated nodes as operators that need no optimisation of the runtime.

What they compute is compared with pairs of QuantizeLinear and DequantizeLinear, which onnxruntime
fuses to the same kernels when it optimises: with the same kernels, every element is the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from onnxq.apply.calibrated import write_pairs
from onnxq.apply.encodings import Encodings
from onnxq.apply.operators import write_float_products, write_operators
from onnxq.apply.rewriter import Rewriter
from onnxq.calibration import resolve_ranges
from onnxq.pipelines import adapt_target
from onnxq.plan import Plan, StaticOptions, plan_static
from onnxq.rules.calibrated import CALIBRATED_RULES
from onnxq.schemes import ActivationScheme, ActivationType, WeightType
from onnxq.targets import find_target
from tests.apply.quantized import Array, Feeds, count_operators, iterate_graphs
from tests.models import float_weight, make_model, to_ir

NONE = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
ALL = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
LAYERS = {"Conv", "MatMul", "Gemm"}
MISSING_IN_ONNX = {"Add", "Mul", "Concat", "Sigmoid", "LeakyRelu", "GlobalAveragePool"}
UNOBSERVED = (-3.0, 3.0)
"""A range for tensors in the body of an If."""

FIRST = "[first] a = Conv (x, w, b)"
LAST = "[last] z = Conv (m, w, b) y = Neg (z)"
SQUARE = "float[1, 24, 8, 8] x"

MIDDLES: Mapping[str, str] = {
    "Conv": "m = Conv <group = 2, pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (a, grouped)",
    "Conv with Relu": "c = Conv (a, w, b) m = Relu (c)",
    "Conv with Clip": "c = Conv (a, w, b) m = Clip (c, zero, six)",
    "Add": "c = Conv (x, w) m = Add (a, c)",
    "Add with Relu": "c = Conv (x, w) d = Add (a, c) m = Relu (d)",
    "Add of one tensor": "m = Add (a, a)",
    "Mul": "c = Conv (x, w) m = Mul (a, c)",
    "Mul that broadcasts": "c = GlobalAveragePool (a) m = Mul (a, c)",
    "Concat": "c = Conv (x, w) d = Concat <axis = 1> (c, a) m = Conv (d, wide)",
    "Concat along rows": "c = Conv (x, w) m = Concat <axis = 2> (c, a, c)",
    "Sigmoid": "m = Sigmoid (a)",
    "LeakyRelu": "m = LeakyRelu <alpha = 0.2> (a)",
    "GlobalAveragePool": "m = GlobalAveragePool (a)",
    "MaxPool": "m = MaxPool <kernel_shape = [3, 3], strides = [2, 2]> (a)",
    "Resize": 'm = Resize <mode = "nearest"> (a, , scales)',
    "Resize that mixes": 'm = Resize <mode = "linear"> (a, , scales)',
    "Reshape": "m = Reshape (a, long)",
    "Transpose": "m = Transpose <perm = [0, 1, 3, 2]> (a)",
    "Squeeze": "c = Squeeze (a, axis) m = Unsqueeze (c, axis)",
    "Slice": "m = Slice (a, starts, ends)",
    "Gather": "m = Gather <axis = 2> (a, picks)",
    "Split": "c, d = Split <axis = 3> (a) m = Add (c, d)",
    "MatMul": "c = MatMul (a, square) d = Relu (c) m = Concat <axis = 2> (d, d)",
    "float reader": "f = Exp (a) g = Relu (a) h = Add (f, g) m = Conv (h, w)",
}
"""What can stand between two convolutions, ``a`` and ``m``."""

MATRICES: Mapping[str, str] = {
    "MatMul to float": "d = MatMul (a, square) y = Exp (d)",
    # Neg, since the runtime computes this bias in pairs with one rounding less: Exp enlarges that.
    "MatMul and float bias": "d = MatMul (a, square) e = Add (d, b12) y = Neg (e)",
    "MatMul at the output": "y = MatMul (a, square)",
    "Gemm": "f = Flatten (a) g = Gemm (f, tall) h = Relu (g) y = Gemm (h, small)",
    "Gemm with bias": "f = Flatten (a) g = Gemm (f, tall, b) h = Relu (g) y = Gemm (h, small)",
    "Gemm transposed": "f = Flatten (a) g = Gemm <transB = 1> (f, flat) y = Gemm (g, small, b12)",
    "Gemm transposed to float": "f = Flatten (a) y = Gemm <transB = 1> (f, flat, b)",
    "Gemm pooled": "p = GlobalAveragePool (a) f = Flatten (p) y = Gemm (f, small, b12)",
}
"""What can follow a convolution ``a`` and multiply by a matrix."""


def _weights(rng: np.random.Generator) -> dict[str, Array]:
    return {
        "w": float_weight(rng, (24, 24, 1, 1)),
        "b": float_weight(rng, (24,)),
        "grouped": float_weight(rng, (24, 12, 3, 3)),
        "wide": float_weight(rng, (24, 48, 1, 1)),
        "square": float_weight(rng, (8, 12)),
        "tall": float_weight(rng, (1536, 24)),
        "flat": float_weight(rng, (24, 1536)),
        "small": float_weight(rng, (24, 12)),
        "b12": float_weight(rng, (12,)),
        "zero": np.float32(0.0),
        "six": np.float32(0.5),
        "scales": np.float32([1, 1, 2, 1.5]),
        "long": np.int64([1, 24, 4, 16]),
        "axis": np.int64([0]),
        "starts": np.int64([0, 0, 1, 2]),
        "ends": np.int64([1, 24, 7, 8]),
        "picks": np.int64([5, 0, 2]),
    }


@dataclass(frozen=True)
class Forms:
    """The same plan of a model, written in both forms."""

    pairs: onnx.ModelProto
    operators: onnx.ModelProto

    def counts(self) -> dict[str, int]:
        return count_operators(self.operators)


def _make(text: str, rng: np.random.Generator, inputs: str = SQUARE) -> onnx.ModelProto:
    words = set(re.findall(r"\w+", text))
    used = {name: array for name, array in _weights(rng).items() if name in words}
    outputs = ", ".join(
        f"float[?] {name}".replace("[?]", "") for name in ("y", "v") if name in words
    )
    return make_model(text, inputs, outputs, used)


def _between(middle: str, rng: np.random.Generator) -> onnx.ModelProto:
    return _make(f"{FIRST} {middle} {LAST}", rng)


def _feeds(rng: np.random.Generator) -> Feeds:
    return {"x": rng.standard_normal((1, 24, 8, 8)).astype(np.float32)}


def _run(model: onnx.ModelProto, feeds: Feeds, level: Any) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, dict(feeds)))


def _observe(
    model: onnx.ModelProto, plan: Plan, feeds: Feeds
) -> dict[ir.Value, tuple[float, float]]:
    """Smallest and largest value of each activation in the main graph."""
    assert plan.calibration is not None
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    known = {name for node in probed.graph.node for name in node.output}
    names = [one.value.name or "" for one in plan.calibration.activations]
    seen = [name for name in names if name in known]
    del probed.graph.output[:]
    probed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in seen)
    found = {**feeds, **dict(zip(seen, _run(probed, feeds, NONE), strict=True))}
    return {
        one.value: (float(found[name].min()), float(found[name].max()))
        if name in found
        else UNOBSERVED
        for one, name in zip(plan.calibration.activations, names, strict=True)
    }


def _write(
    model: onnx.ModelProto,
    feeds: Feeds,
    *,
    target: str = "ort-cpu",
    writer: Callable[[Rewriter, Plan], None] = write_operators,
    **options: Any,
) -> Forms:
    """Both forms of a model, calibrated on one sample, in as many bits as are exact here."""
    chosen = replace(
        adapt_target(find_target(target)), integer_matrix_min_elements=1, dynamic_matmul=False
    )
    written = []
    for with_operators in (False, True):
        edited = to_ir(model)
        plan = plan_static(edited, chosen, StaticOptions(**options))
        assert plan.calibration is not None
        encodings, rewriter = Encodings(), Rewriter(edited, chosen)
        encodings.fill(resolve_ranges(plan.calibration.activations, _observe(model, plan, feeds)))
        write_pairs(rewriter, plan, encodings)
        if with_operators:
            writer(rewriter, plan)
        rewriter.finish()
        written.append(ir.to_proto(edited))
        onnx.checker.check_model(written[-1])
    return Forms(*written)


def _constant_dequantizers(model: onnx.ModelProto) -> list[str]:
    constants = {one.name for graph in iterate_graphs(model) for one in graph.initializer}
    return [
        node.input[0]
        for graph in iterate_graphs(model)
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    ]


def _assert_same(forms: Forms, feeds: Feeds) -> None:
    """Equal to the pairs as the runtime fuses them, but for the rounding of float32."""
    expected = _run(forms.pairs, feeds, ALL)
    for level in (NONE, ALL):
        for mine, other in zip(_run(forms.operators, feeds, level), expected, strict=True):
            assert mine.shape == other.shape
            np.testing.assert_allclose(mine, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("middle", MIDDLES)
def test_gives_what_fused_pairs_give(middle: str, rng: np.random.Generator) -> None:
    feeds = _feeds(rng)
    forms = _write(_between(MIDDLES[middle], rng), feeds)
    _assert_same(forms, feeds)
    assert not LAYERS & set(forms.counts())
    assert _constant_dequantizers(forms.operators) == []
    mixes = middle == "Resize that mixes"
    # The input enters the first time; the last result, and what a float node reads, leave.
    assert forms.counts()["QuantizeLinear"] == (2 if mixes or middle == "float reader" else 1)
    assert forms.counts()["DequantizeLinear"] == (2 if mixes or middle == "float reader" else 1)


def test_every_calibrated_operator_is_tried() -> None:
    tried = " ".join((*MIDDLES.values(), *MATRICES.values()))
    for rule in CALIBRATED_RULES:
        assert re.search(rf"\b{rule.operator}\b", tried), rule.operator


@pytest.mark.parametrize("middle", [name for name in MIDDLES if "mixes" not in name])
@pytest.mark.parametrize("weights", [WeightType.UINT8, WeightType.INT8])
@pytest.mark.parametrize("per_channel", [True, False])
def test_other_weights(
    middle: str, weights: WeightType, per_channel: bool, rng: np.random.Generator
) -> None:
    feeds = _feeds(rng)
    options = {"weights": weights, "per_channel": per_channel}
    _assert_same(_write(_between(MIDDLES[middle], rng), feeds, **options), feeds)


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("per_channel", [True, False])
def test_matrix_products(matrix: str, per_channel: bool, rng: np.random.Generator) -> None:
    feeds = _feeds(rng)
    forms = _write(_make(f"{FIRST} {MATRICES[matrix]}", rng), feeds, per_channel=per_channel)
    _assert_same(forms, feeds)
    assert not LAYERS & set(forms.counts())
    assert _constant_dequantizers(forms.operators) == []


@pytest.mark.parametrize("per_channel", [True, False])
def test_only_products_with_a_float_output(per_channel: bool, rng: np.random.Generator) -> None:
    """Beside pairs they are the operators that they are without, and nothing else changes."""
    for matrix, text in MATRICES.items():
        feeds, model = _feeds(rng), _make(f"{FIRST} {text}", rng)
        mixed = _write(model, feeds, writer=write_float_products, per_channel=per_channel)
        every = _write(model, feeds, per_channel=per_channel)
        _assert_same(mixed, feeds)
        kept = [node for node in every.pairs.graph.node if node.op_type in LAYERS]
        made = {node.name: node.op_type for node in every.operators.graph.node}
        quantized = {
            node.input[0] for node in every.pairs.graph.node if node.op_type == "QuantizeLinear"
        }
        expected = {
            node.name: node.op_type if node.output[0] in quantized else made[node.name]
            for node in kept
        }
        found = {node.name: node.op_type for node in mixed.operators.graph.node}
        assert {name: found[name] for name in expected} == expected, matrix
        assert sum(found[name] not in LAYERS for name in expected) == 1, matrix


@pytest.mark.parametrize("matrix", MATRICES)
def test_float_products_without_contrib_operators_stay(
    matrix: str, rng: np.random.Generator
) -> None:
    feeds = _feeds(rng)
    model = _make(f"{FIRST} {MATRICES[matrix]}", rng)
    forms = _write(model, feeds, target="onnx", writer=write_float_products)
    assert forms.operators == forms.pairs


@pytest.mark.parametrize("matrix", MATRICES)
def test_matrix_products_with_standard_operators(matrix: str, rng: np.random.Generator) -> None:
    feeds = _feeds(rng)
    forms = _write(_make(f"{FIRST} {MATRICES[matrix]}", rng), feeds, target="onnx")
    _assert_same(forms, feeds)
    assert not LAYERS & set(forms.counts())
    assert _constant_dequantizers(forms.operators) == []
    assert {one.domain for one in forms.operators.opset_import} == {""}


@pytest.mark.parametrize("middle", MIDDLES)
def test_standard_operators_only(middle: str, rng: np.random.Generator) -> None:
    feeds = _feeds(rng)
    forms = _write(_between(MIDDLES[middle], rng), feeds, target="onnx")
    _assert_same(forms, feeds)
    assert not LAYERS & set(forms.counts())
    assert {one.domain for one in forms.operators.opset_import} == {""}
    # The standard has no integer operators for arithmetic: it stays between its pairs.
    kept = {node.op_type for node in forms.operators.graph.node} & MISSING_IN_ONNX
    assert all(name in MIDDLES[middle] for name in kept)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("middle", MIDDLES)
def test_signed_activations(middle: str, symmetric: bool, rng: np.random.Generator) -> None:
    feeds = _feeds(rng)
    scheme = ActivationScheme(type=ActivationType.INT8, symmetric=symmetric)
    forms = _write(_between(MIDDLES[middle], rng), feeds, target="onnx", activations=scheme)
    _assert_same(forms, feeds)
    assert not LAYERS & set(forms.counts())


def test_symmetric_range_clips_integers(rng: np.random.Generator) -> None:
    """With zero in the middle of the integers, the range cannot stand for a Relu."""
    feeds = _feeds(rng)
    scheme = ActivationScheme(type=ActivationType.INT8, symmetric=True)
    forms = _write(
        _make(f"{FIRST} r = Relu (a) y = Neg (r) z = Conv (r, w) v = Neg (z)", rng),
        feeds,
        target="onnx",
        activations=scheme,
    )
    assert "Relu" not in forms.counts() and forms.counts()["Clip"] == 1
    relu = -_run(forms.operators, feeds, NONE)[0]
    assert relu.min() == 0.0 and relu.max() > 0.0
    np.testing.assert_array_equal(relu, -_run(forms.pairs, feeds, ALL)[0])


BODIES = """[first] a = Conv (x, w, b)
    y = If (flag) <
      then_branch = left () => (p) {
        c = Conv (a, w, b) d = Add (c, c) e = Conv (d, w) p = Neg (e)
      },
      else_branch = right () => (q) { c2 = Conv (x, w, b) d2 = Conv (c2, w) q = Neg (d2) }
    > z = Conv (a, w) v = Neg (z)"""


@pytest.mark.parametrize("flag", [True, False])
def test_bodies(flag: bool, rng: np.random.Generator) -> None:
    feeds = {**_feeds(rng), "flag": np.array(flag)}
    forms = _write(_make(BODIES, rng, inputs=f"{SQUARE}, bool flag"), feeds)
    _assert_same(forms, feeds)
    counts = forms.counts()
    assert not LAYERS & set(counts) and "Add" not in counts
    # The body reads the integers of ``a`` outside of it; ``x`` is quantized where it is read.
    assert counts["QuantizeLinear"] == 2


def test_names_stay(rng: np.random.Generator) -> None:
    forms = _write(_make(f"{FIRST} y = MatMul (a, square)", rng), _feeds(rng))
    assert [one.name for one in forms.operators.graph.output] == ["y"]
    nodes = {node.name: node.op_type for node in forms.operators.graph.node}
    assert nodes["first"] == "QLinearConv"


def test_encodings_can_change_before_writing(rng: np.random.Generator) -> None:
    """Ranges are chosen after the graph is made: constants follow them."""
    feeds = _feeds(rng)
    edited, target = to_ir(_make(f"{FIRST} y = MatMul (a, square)", rng)), find_target("ort-cpu")
    plan = plan_static(edited, target, StaticOptions())
    assert plan.calibration is not None
    activations, encodings = plan.calibration.activations, Encodings()
    rewriter = Rewriter(edited, target)
    encodings.fill(resolve_ranges(activations, {one.value: (-1.0, 1.0) for one in activations}))
    write_pairs(rewriter, plan, encodings)
    write_operators(rewriter, plan)
    rewriter.finish()
    peaks = []
    for high in (0.5, 8.0):
        ranges = {one.value: (-high, high) for one in activations}
        encodings.fill(resolve_ranges(activations, ranges))
        peaks.append(float(np.abs(_run(ir.to_proto(edited), feeds, NONE)[0]).max()))
    assert peaks[0] < peaks[1]


def test_nothing_calibrated() -> None:
    model = to_ir(make_model("y = Neg (x)", "float[2] x", "float[2] y"))
    plan = plan_static(model, find_target("ort-cpu"), StaticOptions())
    write_operators(Rewriter(model, find_target("ort-cpu")), plan)
    assert [node.op_type for node in model.graph] == ["Neg"]


def test_sample_model(sample_models: Path) -> None:
    """A trained network: close to float without any optimisation, and to the pairs."""
    folder = sample_models.parent / "calib_data" / "cnn" / "calib"
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".npz", ".npy"))
    model = onnx.load(str(sample_models / "cnn.onnx"))
    name = model.graph.input[0].name
    loaded = [np.load(path) for path in files[:8]]
    arrays = [one[name] if isinstance(one, np.lib.npyio.NpzFile) else one for one in loaded]
    feeds = {name: np.concatenate(arrays).astype(np.float32)}
    # With larger steps no sum is so near to the middle of two that the two forms round it apart.
    forms = _write(model, feeds, reduce_range=True)
    (result,), (reference,) = _run(forms.operators, feeds, NONE), _run(model, feeds, ALL)
    noise = float(np.mean((result - reference) ** 2))
    assert 10 * np.log10(float(np.mean(reference**2)) / noise) > 25
    _assert_same(forms, feeds)
    assert _constant_dequantizers(forms.operators) == []
