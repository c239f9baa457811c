from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxq.plan import plan_dynamic
from onnxq.plan.options import DynamicOptions
from onnxq.rules.roles import Form
from onnxq.schemes import Scheme, WeightType
from tests.models import FloatArray, constant_node, float_weight, make_model, matmul_model, to_ir
from tests.plan.planning import INEXACT, ONNX, ORT, conv_model, forms, plan, plan_tensor

INT8_COLUMNS = Scheme(type=WeightType.INT8, axes=(1,))


def _spoil(weight: FloatArray) -> FloatArray:
    """One outlier in each column of n rows: what is left is at most 10 log10(12 * 127^2 / n) dB,
    under the limit of 30 dB from 194 rows on."""
    assert weight.shape[-2] >= 194
    spoiled = weight.copy()
    spoiled[..., 0, :] = 1000.0 * np.abs(weight).max()
    return spoiled


def _lstm_model(w: FloatArray, r: FloatArray) -> onnx.ModelProto:
    hidden = r.shape[2]
    return make_model(
        f"[lstm] y = LSTM<hidden_size = {hidden}>(x, w, r)",
        f"float[S, N, {w.shape[2]}] x",
        "float[S, 1, N, H] y",
        {"w": w, "r": r},
    )


class TestMatrices:
    def test_a_matmul_computes_in_integers(self, rng: np.random.Generator) -> None:
        found = plan_tensor(matmul_model(float_weight(rng, (128, 64))))
        assert found.scheme == INT8_COLUMNS
        assert found.best_form is Form.INTEGER_MATMUL
        assert forms(found) == {"mm": "integer matmul"}
        assert found.explanation == ""
        assert (found.dtype, found.shape, found.size_bytes) == ("float", (128, 64), 128 * 64 * 4)
        assert found.expected_sqnr_db is not None
        # 127 steps for at most 5 standard deviations: 10 log10(12 * (127 / 5)^2) at least.
        assert found.expected_sqnr_db > 10 * math.log10(12 * (127 / 5) ** 2)

    @pytest.mark.parametrize("dtype", [np.float16, np.float64], ids=["float16", "float64"])
    def test_other_float_types_do_too(self, dtype: type, rng: np.random.Generator) -> None:
        found = plan_tensor(matmul_model(float_weight(rng, (128, 64)).astype(dtype)))
        assert forms(found) == {"mm": "integer matmul"}

    @pytest.mark.parametrize(
        ("options", "scheme"),
        [
            pytest.param({}, INT8_COLUMNS, id="int8"),
            pytest.param({"per_channel": False}, Scheme(type=WeightType.INT8), id="per_tensor"),
            pytest.param(
                {"reduce_range": True}, replace(INT8_COLUMNS, reduce_range=True), id="reduce_range"
            ),
            pytest.param(
                {"symmetric": False}, replace(INT8_COLUMNS, symmetric=False), id="asymmetric"
            ),
            pytest.param(
                {"weights": "uint8"},
                Scheme(type=WeightType.UINT8, axes=(1,), symmetric=False),
                id="uint8",
            ),
            pytest.param(
                {"weights": "uint8", "symmetric": True},
                Scheme(type=WeightType.UINT8, axes=(1,)),
                id="symmetric_uint8",
            ),
            pytest.param(
                {"weights": "int4"},
                Scheme(type=WeightType.INT4, axes=(1,), block_size=128, symmetric=False),
                id="int4",
            ),
            pytest.param(
                {"weights": "int4", "symmetric": True},
                Scheme(type=WeightType.INT4, axes=(1,), block_size=128),
                id="symmetric_int4",
            ),
            pytest.param(
                {"weights": "uint4", "block_size": 32},
                Scheme(type=WeightType.UINT4, axes=(1,), block_size=32, symmetric=False),
                id="uint4_blocks_of_32",
            ),
            pytest.param({"weights": "fp16"}, Scheme(type=WeightType.FP16), id="fp16"),
            pytest.param({"weights": "bf16"}, Scheme(type=WeightType.BF16), id="bf16"),
        ],
    )
    @pytest.mark.parametrize("target", [ORT, ONNX], ids=lambda target: target.name)
    def test_options_become_the_scheme(
        self, options: dict[str, object], scheme: Scheme, target: object, rng: np.random.Generator
    ) -> None:
        model = matmul_model(float_weight(rng, (128, 64)))
        assert plan_tensor(model, target=target, **options).scheme == scheme

    @pytest.mark.parametrize(
        ("options", "scheme"),
        [
            ({}, "int8 per channel in pairs"),
            ({"reduce_range": False}, "int8 per channel"),
            ({"per_channel": False}, "int8 per tensor in pairs"),
            ({"weights": "uint8"}, "uint8 per channel asymmetric"),
            ({"weights": "uint8", "reduce_range": True}, "uint8 per channel asymmetric 7-bit"),
            ({"weights": "int4"}, "int4 blocks of 128 asymmetric"),
            ({"weights": "fp16"}, "fp16"),
        ],
    )
    def test_limited_pairs_where_products_are_added_inexactly(
        self, options: dict[str, object], scheme: str, rng: np.random.Generator
    ) -> None:
        model = matmul_model(float_weight(rng, (128, 64)))
        assert str(plan_tensor(model, target=INEXACT, **options).scheme) == scheme

    def test_seven_bits_of_other_integer_kernels_and_not_of_what_is_stored(
        self, rng: np.random.Generator
    ) -> None:
        lstm = _lstm_model(float_weight(rng, (1, 512, 32)), float_weight(rng, (1, 512, 128)))
        kernel = conv_model(float_weight(rng, (32, 32, 3, 3)))
        small = matmul_model(float_weight(rng, (64, 64)))
        for weights in ("int8", "int4"):
            options = {"target": INEXACT, "weights": weights}
            assert str(plan_tensor(lstm, "r", **options).scheme) == "int8 per channel 7-bit"
            assert str(plan_tensor(kernel, "k", **options).scheme) == "int8 per channel"
        for options in ({"target": INEXACT}, {"reduce_range": True}):
            assert str(plan_tensor(small, **options).scheme) == "int8 per channel"

    def test_a_small_matrix_is_only_stored_and_says_why(self, rng: np.random.Generator) -> None:
        found = plan_tensor(matmul_model(float_weight(rng, (64, 64))))
        assert found.best_form is Form.STORAGE
        assert found.explanation == "no gain: only 4096 elements in the matrix"
        assert found.scheme == INT8_COLUMNS

    def test_a_stack_keeps_one_zero_point(self, rng: np.random.Generator) -> None:
        model = make_model(
            "[mm] y = MatMul(x, w)",
            "float[3, N, 128] x",
            "float[3, N, 64] y",
            {"w": float_weight(rng, (3, 128, 64))},
        )
        found = plan_tensor(model, weights="uint8")
        assert found.scheme == Scheme(type=WeightType.UINT8, axes=(0, 2))
        assert found.reason == "symmetric: the kernel takes one zero point only"

    @pytest.mark.parametrize("transposed", [False, True], ids=["plain", "transposed"])
    def test_a_shared_matrix_is_one_tensor_with_two_readers(
        self, transposed: bool, rng: np.random.Generator
    ) -> None:
        second = "t = Transpose(w) [b] z = MatMul(y, t)" if transposed else "[b] z = MatMul(y, w)"
        model = make_model(
            f"[a] y = MatMul(x, w) {second}",
            "float[N, 128] x",
            "float[N, 128] z",
            {"w": float_weight(rng, (128, 128))},
        )
        (found,) = plan(model).tensors
        if transposed:
            assert forms(found) == {"a": "integer matmul", "b": "storage"}
            assert found.uses[1].reason == "shares its weight with a, on other axes"
        else:
            assert forms(found) == {"a": "integer matmul", "b": "integer matmul"}

    def test_one_scale_serves_readers_on_all_axes(self, rng: np.random.Generator) -> None:
        model = make_model(
            "[a] y = MatMul(x, w) t = Transpose(w) [b] z = MatMul(y, t)",
            "float[N, 128] x",
            "float[N, 128] z",
            {"w": float_weight(rng, (128, 128))},
        )
        (found,) = plan(model, per_channel=False).tensors
        assert forms(found) == {"a": "integer matmul", "b": "integer matmul"}

    def test_a_tied_embedding_is_looked_up_and_multiplied_with(
        self, rng: np.random.Generator
    ) -> None:
        model = make_model(
            "[look] e = Gather(w, ids) t = Transpose(w) [head] y = MatMul(e, t)",
            "int64[N] ids",
            "float[N, 256] y",
            {"w": float_weight(rng, (256, 64))},
        )
        found = plan(model)
        (tensor,) = found.tensors
        assert forms(tensor) == {"look": "lookup", "head": "integer matmul"}
        assert tensor.scheme == Scheme(type=WeightType.INT8, axes=(0,))
        assert found.skipped == ()

    def test_nodes_without_a_weight_are_listed(self, rng: np.random.Generator) -> None:
        model = make_model(
            "[a] y = MatMul(x, w) [b] z = MatMul(y, s)",
            "float[N, 128] x, float[64, 8] s",
            "float[N, 8] z",
            {"w": float_weight(rng, (128, 64))},
        )
        (skipped,) = plan(model).skipped
        assert (skipped.node, skipped.operator, skipped.reason) == (
            "b",
            "MatMul",
            "no constant operand",
        )


class TestFourBits:
    def test_what_has_no_blocks_falls_back_to_eight_bits(self, rng: np.random.Generator) -> None:
        model = make_model(
            """[conv] c = Conv(image, k)
               [mm] y = MatMul(x, w)""",
            "float[1, 16, 9, 9] image, float[N, 128] x",
            "float[1, 32, 7, 7] c, float[N, 64] y",
            {"k": float_weight(rng, (32, 16, 3, 3)), "w": float_weight(rng, (128, 64))},
        )
        assert plan_tensor(model, "k", weights="uint4").scheme == Scheme(
            type=WeightType.INT8, axes=(0,)
        )
        assert plan_tensor(model, "w", weights="uint4").best_form is Form.BLOCKED_MATMUL

    def test_a_matrix_that_is_also_looked_up_takes_eight_bits(
        self, rng: np.random.Generator
    ) -> None:
        model = make_model(
            "[look] e = Gather(w, ids) t = Transpose(w) [head] y = MatMul(e, t)",
            "int64[N] ids",
            "float[N, 256] y",
            {"w": float_weight(rng, (256, 64))},
        )
        (found,) = plan(model, weights="int4").tensors
        assert found.scheme == Scheme(type=WeightType.INT8, axes=(0,))
        assert forms(found) == {"look": "lookup", "head": "integer matmul"}
        assert "its readers do not all take 4-bit blocks" in found.reason

    def test_a_transposed_activation_takes_eight_bits(self, rng: np.random.Generator) -> None:
        model = make_model(
            "[g] y = Gemm<transA = 1>(x, w)",
            "float[128, N] x",
            "float[N, 64] y",
            {"w": float_weight(rng, (128, 64))},
        )
        found = plan_tensor(model, weights="int4")
        assert forms(found) == {"g": "integer matmul"}
        assert "4-bit kernels cannot transpose the activation" in found.explanation


class TestLstm:
    def test_both_weights_compute_in_integers(self, rng: np.random.Generator) -> None:
        model = _lstm_model(float_weight(rng, (1, 512, 32)), float_weight(rng, (1, 512, 128)))
        for name in ("w", "r"):
            found = plan_tensor(model, name)
            assert forms(found) == {"lstm": "integer lstm"}
            assert found.scheme == Scheme(type=WeightType.INT8, axes=(0, 1))

    @pytest.mark.parametrize("spoiled", ["w", "r"])
    def test_one_spoiled_weight_takes_the_other_out_of_the_kernel(
        self, spoiled: str, rng: np.random.Generator
    ) -> None:
        weights = {"w": float_weight(rng, (1, 1024, 256)), "r": float_weight(rng, (1, 1024, 256))}
        weights[spoiled] = np.ascontiguousarray(
            _spoil(weights[spoiled].swapaxes(1, 2)).swapaxes(1, 2)
        )
        model = _lstm_model(weights["w"], weights["r"])
        other = {"w": "r", "r": "w"}[spoiled]
        assert plan_tensor(model, spoiled).scheme == Scheme(type=WeightType.FP16)
        assert "int8 would leave only" in plan_tensor(model, spoiled).explanation
        healthy = plan_tensor(model, other)
        assert forms(healthy) == {"lstm": "storage"}
        assert healthy.scheme == Scheme(type=WeightType.INT8, axes=(0, 1))
        assert healthy.explanation == "another weight of the same node is not int8"

    def test_an_excluded_or_overridable_weight_does_the_same(
        self, rng: np.random.Generator
    ) -> None:
        model = _lstm_model(float_weight(rng, (1, 512, 32)), float_weight(rng, (1, 512, 128)))
        model.graph.input.append(
            onnx.helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, (1, 512, 128))
        )
        assert plan_tensor(model, "r").scheme is None
        assert forms(plan_tensor(model, "w")) == {"lstm": "storage"}

    def test_per_tensor_keeps_a_scale_for_each_direction(self, rng: np.random.Generator) -> None:
        model = _lstm_model(float_weight(rng, (1, 512, 32)), float_weight(rng, (1, 512, 128)))
        found = plan_tensor(model, "r", per_channel=False)
        assert found.scheme == Scheme(type=WeightType.INT8, axes=(0,))
        assert found.channel_axes == (0, 1)

    def test_the_kernel_is_symmetric(self, rng: np.random.Generator) -> None:
        model = _lstm_model(float_weight(rng, (1, 512, 32)), float_weight(rng, (1, 512, 128)))
        found = plan_tensor(model, "r", symmetric=False)
        assert found.scheme == Scheme(type=WeightType.INT8, axes=(0, 1))
        assert found.reason == "symmetric: the kernel takes one zero point only"

    def test_the_standard_has_no_integer_lstm(self, rng: np.random.Generator) -> None:
        model = _lstm_model(float_weight(rng, (1, 512, 32)), float_weight(rng, (1, 512, 128)))
        found = plan_tensor(model, "r", target=ONNX)
        assert forms(found) == {"lstm": "storage"}
        assert found.explanation == "target 'onnx' has no integer LSTM"


class TestSpoiledWeights:
    def test_a_spoiled_matrix_becomes_fp16(self, rng: np.random.Generator) -> None:
        found = plan_tensor(matmul_model(_spoil(float_weight(rng, (256, 64)))))
        assert found.scheme == Scheme(type=WeightType.FP16)
        assert forms(found) == {"mm": "storage"}
        assert found.explanation.startswith("fp16: int8 would leave only")

    @pytest.mark.parametrize(
        ("shape", "limit"),
        [
            pytest.param((128, 64), "lowest_integer_sqnr_db", id="integer"),
            pytest.param((64, 64), "lowest_storage_sqnr_db", id="storage"),
        ],
    )
    def test_the_limit_of_the_target_decides(
        self, shape: tuple[int, int], limit: str, rng: np.random.Generator
    ) -> None:
        model = matmul_model(float_weight(rng, shape))
        expected = plan_tensor(model).expected_sqnr_db
        assert expected is not None
        # The plan rounds what it shows to a tenth.
        below = replace(ORT, **{limit: expected - 0.1})
        above = replace(ORT, **{limit: expected + 0.1})
        assert plan_tensor(model, target=below).scheme == INT8_COLUMNS
        assert plan_tensor(model, target=above).scheme == Scheme(type=WeightType.FP16)

    def test_an_outlier_in_each_channel_does_not_hide_what_it_drowns(
        self, rng: np.random.Generator
    ) -> None:
        weight = float_weight(rng, (128, 64))
        # 1000 times the rest: every other element rounds to 0, and is 1e-6 of the power.
        weight[0] = 1000 * np.abs(weight).max()
        found = plan_tensor(matmul_model(weight))
        assert found.scheme == Scheme(type=WeightType.FP16)
        assert found.explanation.startswith("fp16: beside its outliers int8 would leave only")

    def test_what_fp16_cannot_hold_either_stays(self, rng: np.random.Generator) -> None:
        weight = _spoil(float_weight(rng, (256, 64))) * np.float32(1e6)
        found = plan_tensor(matmul_model(weight))
        assert found.scheme is None
        assert "int8 would leave only" in found.reason
        assert "beyond fp16" in found.reason

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
    @pytest.mark.parametrize("weights", ["int8", "uint8", "int4", "uint4"])
    def test_numbers_that_are_none_stay(
        self, value: float, weights: str, rng: np.random.Generator
    ) -> None:
        weight = float_weight(rng, (128, 64))
        weight[3, 4] = value
        found = plan_tensor(matmul_model(weight), weights=weights)
        assert found.scheme is None
        assert found.explanation == "holds NaN or infinity"

    def test_a_tensor_of_zeros_is_no_problem(self) -> None:
        found = plan_tensor(matmul_model(np.zeros((128, 64), np.float32)))
        assert found.scheme == INT8_COLUMNS
        assert found.expected_sqnr_db is None


class TestConvolutions:
    def test_a_kernel_is_stored(self, rng: np.random.Generator) -> None:
        found = plan_tensor(conv_model(float_weight(rng, (32, 16, 3, 3))), "k")
        assert found.scheme == Scheme(type=WeightType.INT8, axes=(0,))
        assert forms(found) == {"conv": "storage"}
        assert found.explanation == "no integer kernel for Conv without calibration"

    def test_no_storage_leaves_it(self, rng: np.random.Generator) -> None:
        model = conv_model(float_weight(rng, (32, 16, 3, 3)), extra=8192)
        found = plan_tensor(model, "k", storage=False)
        assert found.scheme is None
        assert found.explanation.endswith("; --no-storage")
        assert plan_tensor(model, "w", storage=False).best_form is Form.INTEGER_MATMUL

    @pytest.mark.parametrize(
        ("shape", "group", "is_filter_bank"),
        [
            pytest.param((64, 1, 64), 1, True, id="64_taps"),
            pytest.param((64, 1, 63), 1, False, id="63_taps"),
            pytest.param((258, 1, 256), 1, True, id="short_time_fourier_transform"),
            pytest.param((64, 1, 8, 8), 1, True, id="8_by_8_taps"),
            pytest.param((64, 2, 64), 1, False, id="two_channels"),
            pytest.param((64, 1, 64), 64, False, id="depthwise"),
        ],
    )
    def test_filter_banks_are_kept_in_fp16(
        self, shape: tuple[int, ...], group: int, is_filter_bank: bool, rng: np.random.Generator
    ) -> None:
        found = plan_tensor(conv_model(float_weight(rng, shape), group=group), "k")
        if is_filter_bank:
            assert found.scheme == Scheme(type=WeightType.FP16)
            assert f"a filter bank of {math.prod(shape[2:])} taps" in found.reason
        else:
            assert found.scheme == Scheme(type=WeightType.INT8, axes=(0,))

    def test_a_weight_that_would_grow_stays(self, rng: np.random.Generator) -> None:
        # 64 elements in one scale save 3 * 64 - 4 bytes, two nodes and their names take 160.
        found = plan_tensor(conv_model(float_weight(rng, (1, 64, 1, 1))), "k")
        assert found.scheme is not None
        found = plan_tensor(conv_model(float_weight(rng, (64, 1, 1, 1))), "k")
        assert found.scheme is None
        assert found.explanation == "too small to shrink"

    def test_what_the_runtime_would_not_fold_stays(self, rng: np.random.Generator) -> None:
        model = conv_model(float_weight(rng, (32, 16, 3, 3)))
        limit = 32 * 16 * 9 * 4
        fits = replace(ORT, fold_limit_bytes=limit)
        too_large = replace(ORT, fold_limit_bytes=limit - 1)
        assert plan_tensor(model, "k", target=fits).scheme is not None
        for weights in ("int8", "fp16"):
            found = plan_tensor(model, "k", target=too_large, weights=weights)
            assert found.scheme is None
            assert "too large for the runtime" in found.explanation


class TestTables:
    def test_a_table_is_looked_up_in_integers(self, rng: np.random.Generator) -> None:
        model = make_model(
            "[look] y = Gather(w, ids)", "int64[N] ids", "float[N, 64] y",
            {"w": float_weight(rng, (256, 64))},
        )  # fmt: skip
        found = plan_tensor(model)
        assert forms(found) == {"look": "lookup"}
        assert found.scheme == Scheme(type=WeightType.INT8, axes=(0,))
        assert forms(plan_tensor(model, weights="fp16")) == {"look": "lookup"}

    def test_the_size_of_a_table_does_not_matter(self, rng: np.random.Generator) -> None:
        model = make_model(
            "[look] y = Gather(w, ids)", "int64[N] ids", "float[N, 64] y",
            {"w": float_weight(rng, (256, 64))},
        )  # fmt: skip
        target = replace(ORT, fold_limit_bytes=1)
        for weights in ("int8", "fp16"):
            found = plan_tensor(model, target=target, weights=weights)
            assert forms(found) == {"look": "lookup"}


class TestOperands:
    @staticmethod
    def _add(elements: int, rng: np.random.Generator) -> onnx.ModelProto:
        return make_model(
            "y = Add(x, w)", f"float[N, {elements}] x", "float[] y",
            {"w": float_weight(rng, (elements,))},
        )  # fmt: skip

    def test_a_large_one_becomes_fp16(self, rng: np.random.Generator) -> None:
        found = plan_tensor(self._add(4096, rng))
        assert found.scheme == Scheme(type=WeightType.FP16)
        assert found.explanation == "no weight of a layer: int8 is not safe for it"

    def test_a_small_one_stays(self, rng: np.random.Generator) -> None:
        found = plan_tensor(self._add(4095, rng))
        assert found.scheme is None
        assert found.explanation == "no weight of a layer (bias, table or factor)"

    def test_no_storage_leaves_it(self, rng: np.random.Generator) -> None:
        found = plan_tensor(self._add(4096, rng), storage=False)
        assert found.scheme is None
        assert found.explanation == "no weight of a layer; --no-storage"

    def test_half_precision_has_nothing_to_gain(self, rng: np.random.Generator) -> None:
        model = make_model(
            "y = Add(x, w)", "float16[N, 4096] x", "float16[] y",
            {"w": float_weight(rng, (4096,)).astype(np.float16)},
        )  # fmt: skip
        found = plan_tensor(model)
        assert found.scheme is None
        assert "has 16 bits already (float16)" in found.explanation

    def test_a_mask_keeps_its_precision(self) -> None:
        lowest = np.finfo(np.float32).min
        weight = np.triu(np.full((64, 64), lowest, np.float32), 1)
        model = make_model("y = Add(x, w)", "float[N, 64, 64] x", "float[] y", {"w": weight})
        found = plan_tensor(model)
        assert found.scheme is None
        assert "beyond fp16" in found.explanation


class TestLeftAlone:
    def test_what_a_caller_may_override(self, rng: np.random.Generator) -> None:
        model = matmul_model(float_weight(rng, (128, 64)))
        model.graph.input.append(
            onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, (128, 64))
        )
        for weights in ("int8", "int4", "fp16"):
            found = plan_tensor(model, weights=weights)
            assert found.scheme is None
            assert found.best_form is Form.FLOAT
            assert found.explanation == "is a graph input too: a caller may feed another value"

    def test_what_is_an_output(self, rng: np.random.Generator) -> None:
        model = matmul_model(float_weight(rng, (128, 64)))
        model.graph.output.append(
            onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, (128, 64))
        )
        found = plan_tensor(model)
        assert found.scheme is None
        assert found.explanation == "is an output of the model"

    def test_what_an_excluded_node_reads_too(self, rng: np.random.Generator) -> None:
        model = make_model(
            "[a] y = MatMul(x, w) [b] z = MatMul(y, w) [c] out = MatMul(z, v)",
            "float[N, 128] x",
            "float[N, 128] out",
            {"w": float_weight(rng, (128, 128)), "v": float_weight(rng, (128, 128))},
        )
        found = plan_tensor(model, "w", exclude=("b",))
        assert found.scheme is None
        assert found.explanation == "left out by --exclude b (read by b)"
        assert plan_tensor(model, "v", exclude=("b",)).scheme == INT8_COLUMNS
        alone = plan_tensor(model, "v", exclude=("c",))
        assert alone.explanation == "left out by --exclude c"

    @pytest.mark.parametrize(
        ("selectors", "reason"),
        [
            pytest.param({"include": ("other",)}, "left out by --include", id="include"),
            pytest.param({"op_types": ("Relu",)}, "left out by --op-types", id="op_types"),
        ],
    )
    def test_what_the_selectors_leave_out(
        self, selectors: dict[str, tuple[str, ...]], reason: str, rng: np.random.Generator
    ) -> None:
        model = make_model(
            "[mm] z = MatMul(x, w) [other] y = Relu(z)",
            "float[N, 128] x",
            "float[N, 64] y",
            {"w": float_weight(rng, (128, 64))},
        )
        assert plan_tensor(model, **selectors).explanation == reason

    def test_tensors_of_few_elements_are_counted_only(self, rng: np.random.Generator) -> None:
        model = make_model(
            "a = Add(x, small) b = Add(a, large) y = Add(b, small)",
            "float[N, 64] x",
            "float[] y",
            {"small": float_weight(rng, (63, 1)), "large": float_weight(rng, (64,))},
        )
        found = plan(model)
        assert [tensor.name for tensor in found.tensors] == ["large"]
        assert (found.ignored_tensors, found.ignored_bytes) == (1, 63 * 4)

    def test_what_nothing_reads_and_what_is_not_float(self, rng: np.random.Generator) -> None:
        model = make_model(
            "y = Add(x, integers)",
            "int64[N, 128] x",
            "int64[] y",
            {"unread": float_weight(rng, (128,)), "integers": np.ones(128, np.int64)},
        )
        found = plan(model)
        assert found.tensors == ()
        assert found.ignored_tensors == 0


class TestEverywhere:
    def test_constants_of_bodies_and_functions_are_planned(self, rng: np.random.Generator) -> None:
        model = make_model(
            """[choose] i = If (c) <
                 then_branch = t () => (a) { [inner] a = MatMul(x, w) },
                 else_branch = e () => (b) { b = Identity(x) }
               >
               y = local.f(i)""",
            "bool c, float[N, 128] x",
            "float[N, 128] y",
            {"w": float_weight(rng, (128, 128))},
            functions="""<domain: "local", opset_import: ["" : 17]>
                f (p) => (q) { [in_function] q = MatMul(p, v) }""",
        )
        model.functions[0].node.insert(0, constant_node(float_weight(rng, (128, 128)), "v"))
        found = plan(model)
        assert {one.name: forms(one) for one in found.tensors} == {
            "w": {"choose/then_branch/inner": "integer matmul"},
            "f()/v": {"f()/in_function": "integer matmul"},
        }

    @pytest.mark.parametrize("weights", ["int8", "int4", "fp16"])
    def test_planning_leaves_the_model_alone_and_is_repeatable(
        self, weights: str, rng: np.random.Generator
    ) -> None:
        proto = _lstm_model(float_weight(rng, (1, 512, 32)), float_weight(rng, (1, 512, 128)))
        model = to_ir(proto)
        before = ir.to_proto(model).SerializeToString()
        options = DynamicOptions(weights=WeightType(weights))
        assert plan_dynamic(model, ORT, options) == plan_dynamic(model, ORT, options)
        assert ir.to_proto(model).SerializeToString() == before

    def test_a_plan_is_plain_data(self, rng: np.random.Generator) -> None:
        model = matmul_model(float_weight(rng, (128, 64)))
        data = plan(model).to_json()
        assert json.loads(json.dumps(data, allow_nan=False)) == data
        assert data["tensors"][0]["uses"] == [
            {"node": "mm", "operator": "MatMul", "form": "integer matmul", "reason": ""}
        ]

    def test_changes_are_the_tensors_with_a_scheme(self, rng: np.random.Generator) -> None:
        model = make_model(
            "z = MatMul(x, w) y = Add(z, b)",
            "float[N, 128] x",
            "float[] y",
            {"w": float_weight(rng, (128, 64)), "b": float_weight(rng, (64,))},
        )
        found = plan(model)
        assert [tensor.name for tensor in found.tensors] == ["w", "b"]
        assert [tensor.name for tensor in found.changes] == ["w"]


class TestFunctions:
    @staticmethod
    def _model(attributes: str, rng: np.random.Generator, *, opset: int = 17) -> onnx.ModelProto:
        model = make_model(
            "y = local.f<t = 1>(x)",
            "float[N, 128] x",
            "float[N, 64] y",
            opset=opset,
            functions=f"""<domain: "local", opset_import: ["" : {opset}]>
                f <t>(p) => (q) {{ [g] q = Gemm{attributes}(p, v) }}""",
        )
        model.functions[0].node.insert(0, constant_node(float_weight(rng, (64, 128)), "v"))
        return model

    def test_a_node_whose_attributes_are_known_computes_in_integers(
        self, rng: np.random.Generator
    ) -> None:
        found = plan_tensor(self._model("<transB = 1>", rng), "f()/v")
        assert forms(found) == {"f()/g": "integer matmul"}

    def test_a_node_that_the_caller_sets_is_left_to_read_floats(
        self, rng: np.random.Generator
    ) -> None:
        found = plan_tensor(self._model("<transB: int = @t>", rng), "f()/v")
        assert forms(found) == {"f()/g": "storage"}
        assert "an attribute is set by the caller of its function" in found.explanation

    def test_newer_operators_are_out_of_reach(self, rng: np.random.Generator) -> None:
        found = plan_tensor(self._model("<transB = 1>", rng, opset=10), "f()/v")
        assert forms(found) == {"f()/g": "storage"}
        assert "needs opset 11, to which onnx cannot raise" in found.explanation
