from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.graph.constants import Use, iterate_constants
from onnxq.rules.forms import (
    output_columns,
    refuse_blocked_matmul,
    refuse_integer_attention,
    refuse_integer_lstm,
    refuse_integer_matmul,
    refuse_lookup,
)
from onnxq.targets import find_target
from tests.models import make_model, to_ir

ORT = find_target("ort-cpu")
ONNX = find_target("onnx")
ANY_SIZE = replace(
    ORT, integer_matrix_min_elements=0, integer_matrix_min_columns=0, integer_lstm_min_hidden=0
)


def _use_of(
    nodes: str,
    inputs: str,
    weights: dict[str, tuple[int, ...]],
    *,
    name: str = "w",
    dtype: type = np.float32,
) -> tuple[Use, ir.TensorProtocol]:
    """The first use of the constant ``name``, and its tensor."""
    arrays = {key: np.zeros(shape, dtype) for key, shape in weights.items()}
    model = to_ir(make_model(nodes, inputs, "float[] y", arrays, contrib=True))
    (constant,) = (one for one in iterate_constants(model) if one.name == name)
    return constant.uses[0], constant.tensor


INTEGER_MATMUL = {
    "matmul": ("y = MatMul(x, w)", "float[N, 128] x", {"w": (128, 64)}, None),
    "gemm": ("y = Gemm<transB = 1>(x, w)", "float[N, 128] x", {"w": (64, 128)}, None),
    "unknown_rank": ("y = MatMul(x, w)", "float[] x", {"w": (128, 64)}, None),
    "stack": ("y = MatMul(x, w)", "float[4, N, 128] x", {"w": (4, 128, 64)}, None),
    "left_of_batch": ("y = MatMul(w, x)", "float[2, 64, N] x", {"w": (128, 64)}, None),
    "left_gemm": ("y = Gemm(w, x)", "float[64, N] x", {"w": (128, 64)}, None),
    "vector": ("y = MatMul(x, w)", "float[N, 128] x", {"w": (128,)}, "a vector, not a matrix"),
    "both_constant": (
        "y = MatMul(v, w)",
        "float[] x",
        {"v": (4, 128), "w": (128, 64)},
        "both operands are constant",
    ),
    "left_stack": (
        "y = MatMul(w, x)",
        "float[4, 64, N] x",
        {"w": (4, 128, 64)},
        "constant on the left with batch axes",
    ),
    "left_of_unknown_rank": (
        "y = MatMul(w, x)",
        "float[] x",
        {"w": (128, 64)},
        "constant on the left of a tensor of unknown rank",
    ),
    "left_of_vector": (
        "y = MatMul(w, x)",
        "float[64] x",
        {"w": (128, 64)},
        "constant on the left of a tensor of unknown rank",
    ),
    "right_of_vector": (
        "y = MatMul(x, w)",
        "float[128] x",
        {"w": (128, 64)},
        "the other operand is a vector",
    ),
    "left_of_a_column": (
        "y = MatMul(w, x)",
        "float[64, 1] x",
        {"w": (128, 64)},
        "no gain: constant on the left of a single column",
    ),
    "alpha_is_zero": (
        "y = Gemm<alpha = 0.0>(x, w)",
        "float[N, 128] x",
        {"w": (128, 64)},
        "alpha is 0",
    ),
    "few_columns": (
        "y = MatMul(x, w)",
        "float[N, 1024] x",
        {"w": (1024, 10)},
        "no gain: only 10 output columns",
    ),
    "few_elements": (
        "y = MatMul(x, w)",
        "float[N, 64] x",
        {"w": (64, 64)},
        "no gain: only 4096 elements in the matrix",
    ),
    "few_elements_in_each_of_a_stack": (
        "y = MatMul(x, w)",
        "float[8, N, 64] x",
        {"w": (8, 64, 64)},
        "no gain: only 4096 elements in the matrix",
    ),
}


@pytest.mark.parametrize("name", sorted(INTEGER_MATMUL))
def test_integer_matmul(name: str) -> None:
    nodes, inputs, weights, reason = INTEGER_MATMUL[name]
    use, tensor = _use_of(nodes, inputs, weights)
    assert refuse_integer_matmul(use, tensor, ORT) == reason


def test_the_limits_of_a_target_decide() -> None:
    use, tensor = _use_of("y = MatMul(x, w)", "float[N, 64] x", {"w": (64, 64)})
    assert refuse_integer_matmul(use, tensor, ANY_SIZE) is None
    enough = replace(ANY_SIZE, integer_matrix_min_elements=64 * 64)
    assert refuse_integer_matmul(use, tensor, enough) is None
    too_much = replace(ANY_SIZE, integer_matrix_min_elements=64 * 64 + 1)
    assert refuse_integer_matmul(use, tensor, too_much) is not None
    too_wide = replace(ANY_SIZE, integer_matrix_min_columns=65)
    assert refuse_integer_matmul(use, tensor, too_wide) is not None


@pytest.mark.parametrize(
    ("nodes", "inputs", "shape", "columns"),
    [
        pytest.param("y = MatMul(x, w)", "float[N, 3] x", (3, 5), 5, id="right"),
        pytest.param("y = MatMul(x, w)", "float[2, N, 3] x", (2, 3, 5), 5, id="right_stack"),
        pytest.param("y = MatMul(w, x)", "float[3, N] x", (5, 3), 5, id="left"),
        pytest.param("y = Gemm(x, w)", "float[N, 3] x", (3, 5), 5, id="gemm"),
        pytest.param("y = Gemm<transB = 1>(x, w)", "float[N, 3] x", (5, 3), 5, id="trans_b"),
        pytest.param("y = Gemm<transA = 1>(w, x)", "float[3, N] x", (3, 5), 5, id="trans_a"),
        pytest.param("y = Gemm<transA = 1>(x, w)", "float[3, N] x", (3, 5), 5, id="other_side"),
        pytest.param(
            "t = Transpose(w) y = MatMul(x, t)", "float[N, 3] x", (5, 3), 5, id="transposed"
        ),
        pytest.param(
            "t = Transpose(w) y = Gemm<transB = 1>(x, t)",
            "float[N, 3] x",
            (3, 5),
            5,
            id="transposed_twice",
        ),
        pytest.param(
            "t = Transpose(w) y = MatMul(t, x)", "float[3, N] x", (3, 5), 5, id="left_transposed"
        ),
    ],
)
def test_output_columns(nodes: str, inputs: str, shape: tuple[int, ...], columns: int) -> None:
    use, tensor = _use_of(nodes, inputs, {"w": shape})
    assert output_columns(use, tensor) == columns


BLOCKED_MATMUL = {
    "matmul": ("y = MatMul(x, w)", "float[N, 128] x", {"w": (128, 64)}, None),
    "transposed_weight": ("y = Gemm<transB = 1>(x, w)", "float[N, 128] x", {"w": (64, 128)}, None),
    "stack": (
        "y = MatMul(x, w)",
        "float[4, N, 128] x",
        {"w": (4, 128, 64)},
        "4-bit kernels take matrices only",
    ),
    "vector": (
        "y = MatMul(x, w)",
        "float[N, 128] x",
        {"w": (128,)},
        "4-bit kernels take matrices only",
    ),
    "transposed_activation": (
        "y = Gemm<transA = 1>(x, w)",
        "float[128, N] x",
        {"w": (128, 64)},
        "4-bit kernels cannot transpose the activation",
    ),
    "small": (
        "y = MatMul(x, w)",
        "float[N, 64] x",
        {"w": (64, 64)},
        "no gain: only 4096 elements in the matrix",
    ),
}


@pytest.mark.parametrize("name", sorted(BLOCKED_MATMUL))
def test_blocked_matmul(name: str) -> None:
    nodes, inputs, weights, reason = BLOCKED_MATMUL[name]
    use, tensor = _use_of(nodes, inputs, weights)
    assert refuse_blocked_matmul(use, tensor, ORT) == reason


@pytest.mark.parametrize(
    ("nodes", "fuses"),
    [
        pytest.param("y = MatMul(x, w)", True, id="matmul"),
        pytest.param("z = MatMul(x, w) y = Add(z, b)", True, id="matmul_and_vector"),
        pytest.param("z = MatMul(x, w) y = Add(z, r)", False, id="matmul_and_matrix"),
        pytest.param("z = MatMul(x, w) y = Add(z, a)", False, id="matmul_and_activation"),
        pytest.param("z = MatMul(x, w) k = Add(z, b) y = Relu(k)", False, id="matmul_then_relu"),
        pytest.param("y = Gemm(x, w)", True, id="gemm"),
        pytest.param("y = Gemm(x, w, b)", True, id="gemm_and_vector"),
        pytest.param("y = Gemm(x, w, r)", True, id="gemm_and_matrix"),
        pytest.param("k = Gemm(x, w, b) y = Relu(k)", True, id="gemm_then_relu"),
        pytest.param("y = Gemm(x, w, a)", False, id="gemm_and_activation"),
    ],
)
def test_blocked_matmul_of_the_standard_takes_biases_that_fuse_only(
    nodes: str, fuses: bool
) -> None:
    weights = {"w": (128, 64), "b": (64,), "r": (1, 64)}
    use, tensor = _use_of(nodes, "float[N, 128] x, float[N, 64] a", weights)
    reason = "onnxruntime would widen a 4-bit weight with such a bias at every run"
    assert refuse_blocked_matmul(use, tensor, ONNX) == (None if fuses else reason)
    assert refuse_blocked_matmul(use, tensor, ORT) is None


def _lstm(attributes: str = "", hidden: int = 128, *, weights: str = "w, r") -> str:
    return f"y, y_h, y_c = LSTM<hidden_size = {hidden}{attributes}>(x, {weights})"


def _lstm_use(nodes: str, hidden: int = 128, **kwargs: type) -> tuple[Use, ir.TensorProtocol]:
    shapes = {"w": (1, 4 * hidden, 16), "r": (1, 4 * hidden, hidden)}
    return _use_of(nodes, f"float[S, N, 16] x, float[1, {4 * hidden}, 16] fed", shapes, **kwargs)


def test_integer_lstm_is_taken() -> None:
    use, tensor = _lstm_use(_lstm())
    assert refuse_integer_lstm(use, tensor, ORT) is None


def test_integer_lstm_needs_contrib_operators() -> None:
    use, tensor = _lstm_use(_lstm())
    assert refuse_integer_lstm(use, tensor, ONNX) == "target 'onnx' has no integer LSTM"


def test_integer_lstm_needs_float32() -> None:
    use, tensor = _lstm_use(_lstm(), dtype=np.float64)
    reason = "the integer kernel takes float32 weights in their own layout only"
    assert refuse_integer_lstm(use, tensor, ORT) == reason
    use, tensor = _lstm_use(_lstm())
    assert refuse_integer_lstm(replace(use, transposed=True), tensor, ORT) == reason


def test_integer_lstm_needs_both_weights() -> None:
    shapes = {"r": (1, 512, 128)}
    inputs = "float[S, N, 16] x, float[1, 512, 16] fed"
    use, tensor = _use_of(_lstm(weights="fed, r"), inputs, shapes, name="r")
    assert refuse_integer_lstm(use, tensor, ORT) == "not all weights of the LSTM are constant"


def test_integer_lstm_has_no_batch_first_layout() -> None:
    use, tensor = _lstm_use(_lstm(", layout = 1"))
    assert refuse_integer_lstm(use, tensor, ORT) == "the integer kernel has no batch-first layout"


@pytest.mark.parametrize("hidden", [127, 128])
def test_integer_lstm_gains_nothing_when_small(hidden: int) -> None:
    use, tensor = _lstm_use(_lstm(hidden=hidden), hidden)
    expected = None if hidden == 128 else "no gain: hidden size 127 is under 128"
    assert refuse_integer_lstm(use, tensor, ORT) == expected


@pytest.mark.parametrize(
    "attributes",
    [
        pytest.param(", input_forget = 1", id="coupled_gates"),
        pytest.param(", clip = 1.0", id="clip"),
        pytest.param(', direction = "reverse"', id="reverse"),
        pytest.param(", layout = 0", id="time_first"),
    ],
)
def test_integer_lstm_keeps_the_other_attributes(attributes: str) -> None:
    use, tensor = _lstm_use(_lstm(attributes))
    assert refuse_integer_lstm(use, tensor, ORT) is None


def _attention(inputs: str = "x, w, b", attributes: str = "num_heads = 4") -> str:
    return f"y = com.microsoft.Attention<{attributes}>({inputs})"


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        pytest.param(_attention(), None, id="plain"),
        pytest.param(_attention("x, w, b, m"), None, id="mask"),
        pytest.param(_attention("x, w, b, m, p"), None, id="past"),
        pytest.param(
            _attention(attributes="num_heads = 4, unidirectional = 1"), None, id="unidirectional"
        ),
        pytest.param(
            _attention(attributes="num_heads = 4, mask_filter_value = -1.0"), None, id="filter"
        ),
        pytest.param(
            _attention(attributes="num_heads = 4, scale = 0.5"),
            "the integer kernel has no attribute 'scale'",
            id="scale",
        ),
        pytest.param(
            _attention(attributes="num_heads = 4, qkv_hidden_sizes = [8, 8, 8]"),
            "the integer kernel has no attribute 'qkv_hidden_sizes'",
            id="hidden_sizes",
        ),
        pytest.param(
            _attention("x, w, b, , , bias"),
            "the integer kernel takes no attention bias",
            id="attention_bias",
        ),
    ],
)
def test_integer_attention(nodes: str, reason: str | None) -> None:
    inputs = "float[B, S, 64] x, int32[B] m, float[2, B, 4, P, 16] p, float[B, 4, S, S] bias"
    use, tensor = _use_of(nodes, inputs, {"w": (64, 192), "b": (192,)})
    assert refuse_integer_attention(use, tensor, ORT) == reason


def test_integer_attention_needs_contrib_operators_and_float32() -> None:
    shapes = {"w": (64, 192), "b": (192,)}
    use, tensor = _use_of(_attention(), "float[B, S, 64] x", shapes)
    expected = "target 'onnx' has no integer attention"
    assert refuse_integer_attention(use, tensor, ONNX) == expected
    use, tensor = _use_of(_attention(), "float16[B, S, 64] x", shapes, dtype=np.float16)
    expected = "the integer kernel takes a float32 matrix only"
    assert refuse_integer_attention(use, tensor, ORT) == expected


@pytest.mark.parametrize(
    ("nodes", "refused"),
    [
        pytest.param("y = Gather(w, i)", False, id="default_axis"),
        pytest.param("y = Gather<axis = 0>(w, i)", False, id="first_axis"),
        pytest.param("y = Gather<axis = -2>(w, i)", False, id="first_axis_from_the_end"),
        pytest.param("y = Gather<axis = 1>(w, i)", True, id="second_axis"),
        pytest.param("y = Gather<axis = -1>(w, i)", True, id="last_axis"),
        pytest.param("t = Transpose(w) y = Gather(t, i)", True, id="transposed"),
    ],
)
def test_lookup(nodes: str, refused: bool) -> None:
    use, tensor = _use_of(nodes, "int64[N] i", {"w": (100, 8)})
    reason = "looked up along another axis than the first" if refused else None
    assert refuse_lookup(use, tensor, ORT) == reason
