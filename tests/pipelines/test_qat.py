"""The pipeline of ``onnxq qat`` through the public interface."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")

import onnxq
from onnxq.errors import DataError, InvalidModelError, UnsupportedModelError, UsageError
from onnxq.pipelines.qat_judging import Judge, Likeness
from onnxq.pipelines.qat_options import StartOptions
from onnxq.pipelines.qat_result import TrainingResult
from onnxq.targets import find_target
from onnxq.training import fine_tuning
from onnxq.training.checkpoints import save_checkpoint
from tests.apply.calibrated_models import save_samples
from tests.models import make_model, save
from tests.training.quantized_models import network, quantize, samples

SHORT: dict[str, Any] = {"epochs": 5, "batch_size": 4, "learning_rate": 1.0, "threads": 1}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The float network, a quantized form of it, and samples; few variants, which take time."""
    monkeypatch.setattr("onnxq.pipelines.qat_judging.VARIANTS", 8)
    source, start = quantize()
    (tmp_path / "net.onnx").write_bytes(source)
    (tmp_path / "start.onnx").write_bytes(start)
    save_samples(samples(15), tmp_path / "samples")
    return tmp_path


def train(folder: Path, **options: Any) -> TrainingResult:
    values = {**SHORT, "init": folder / "start.onnx", **options}
    return onnxq.quantize_qat(
        folder / "net.onnx", folder / "samples", folder / "out.onnx", **values
    )


def test_the_result_is_better_than_the_start_and_as_fast(folder: Path) -> None:
    result = train(folder)
    assert result.kept
    start, reached = result.baseline, result.reached
    assert start.held_back_db is not None
    assert reached.held_back_db is not None
    assert reached.held_back_db > start.held_back_db + 1.0
    assert start.variants_db is not None
    assert reached.variants_db is not None
    assert reached.variants_db > start.variants_db + 1.0
    optimized = result.verification.optimized
    assert optimized is not None
    assert optimized.integer_nodes["QLinearConv"] == 2
    assert optimized.constant_dequantize_nodes == ()
    assert result.verification.samples == 3


def test_nothing_gained_gives_the_start(folder: Path) -> None:
    result = train(folder, learning_rate=1e4)
    assert not result.kept
    assert result.reached == result.begun == result.baseline
    assert any("training gained nothing" in note for note in result.notes)
    start, out = (onnx.load(folder / name) for name in ("start.onnx", "out.onnx"))
    assert {one.name: one.raw_data for one in out.graph.initializer} == {
        one.name: one.raw_data for one in start.graph.initializer
    }


def test_without_init_it_starts_from_static(folder: Path) -> None:
    result = train(folder, init=None, bits_weights=4, accuracy="fast")
    assert result.start == "static"
    assert result.start_result is not None
    assert result.start_result.plan.mode == "static"


@pytest.mark.parametrize("bits", [3, 2])
def test_fewer_bits_than_a_type_has(folder: Path, bits: int) -> None:
    train(folder, init=None, bits_weights=bits, accuracy="fast")
    levels = [
        onnx.numpy_helper.to_array(one).astype(np.int32)
        for one in onnx.load(folder / "out.onnx").graph.initializer
        if one.data_type == onnx.TensorProto.INT4
    ]
    assert len(levels) == 2
    for one in levels:
        assert one.min() >= -(2 ** (bits - 1))
        assert one.max() < 2 ** (bits - 1)


def test_few_bits_start_from_what_synthetic_samples_make_better(folder: Path) -> None:
    plain = train(folder, init=None, bits_weights=4, accuracy="balanced", synthetic=0)
    tuned = train(folder, init=None, bits_weights=4, accuracy="balanced", force=True)
    assert plain.synthetic == 0
    assert plain.begun == plain.baseline == tuned.baseline
    assert tuned.synthetic == 256
    assert tuned.begun == tuned.baseline or tuned.begun.is_better_than(tuned.baseline)
    assert tuned.tuned.samples == (12 + 256, 3)
    assert tuned.to_json()["synthetic_samples"] == 256


def test_synthetic_samples_that_mislead_leave_the_start_as_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The case that is built to overfit: layers tuned on numbers that no sample has."""

    def mislead(*_: object, **__: object) -> Iterator[dict[str, Any]]:
        generator = np.random.default_rng(0)
        for _at in range(64):
            yield {"x": generator.standard_cauchy((1, 24, 8, 8)).astype(np.float32) * 1e3}

    monkeypatch.setattr("onnxq.training.synthesis.Synthesizer.make", mislead)
    options = {"init": None, "bits_weights": 4, "accuracy": "balanced", "learning_rate": 1e4}
    result = train(folder, **options)
    assert result.synthetic == 64
    assert result.baseline == result.begun == result.reached


def judge_by(monkeypatch: pytest.MonkeyPatch, *found: tuple[float, float]) -> None:
    """What each model that is measured has on samples held back and on variants of them."""
    waiting = [Likeness(held_back_db=one, variants_db=other) for one, other in found]
    monkeypatch.setattr(Judge, "measure", lambda *_: waiting.pop(0))


def test_variants_tell_what_few_samples_held_back_do_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, synthetic, trained = (14.0, 9.0), (13.5, 10.0), (13.0, 11.0)
    judge_by(monkeypatch, plain, synthetic, trained)
    result = train(folder, init=None, bits_weights=4, accuracy="fast")
    assert result.baseline == Likeness(held_back_db=14.0, variants_db=9.0)
    assert result.begun == Likeness(held_back_db=13.5, variants_db=10.0)
    # Better by the mean, but training may lose nothing on the samples themselves.
    assert result.history.gained
    assert not result.kept
    assert result.reached == result.begun


@pytest.mark.parametrize(
    ("trained", "is_kept"),
    [
        pytest.param((14.2, 9.0), True, id="better"),
        pytest.param((14.05, 9.9), False, id="better by chance"),
        pytest.param((14.2, 8.5), False, id="better on no others"),
    ],
)
def test_a_trained_model_has_to_be_better_by_more_than_chance(
    trained: tuple[float, float], is_kept: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge_by(monkeypatch, (14.0, 9.0), trained)
    result = train(folder, synthetic=0)
    assert result.history.gained
    assert result.kept is is_kept
    start, reached = (Likeness(held_back_db=a, variants_db=b) for a, b in ((14.0, 9.0), trained))
    assert result.reached == (reached if is_kept else start)


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        pytest.param(None, 3000, id="8 bits by default"),
        pytest.param(8, 3000, id="8 bits"),
        pytest.param(4, 6000, id="4 bits"),
    ],
)
def test_activations_of_few_levels_are_trained_longer(bits: int | None, expected: int) -> None:
    start = StartOptions(target=find_target("ort-cpu"), bits_weights=4, bits_activations=bits)
    assert start.steps == expected


def test_eight_bits_do_without_synthetic_samples(folder: Path) -> None:
    assert train(folder, init=None, accuracy="fast").synthetic == 0
    assert train(folder, synthetic=3, force=True).synthetic == 3


def test_samples_of_their_own_to_choose_by(folder: Path) -> None:
    save_samples(samples(4), folder / "val")
    result = train(folder, val=folder / "val")
    assert result.tuned.samples == (15, 4)
    assert result.verification.samples == 4


def test_blockwise(folder: Path) -> None:
    result = train(folder, blockwise=True)
    assert result.kept
    assert len(result.history.points) == 4


def test_integers_can_stay(folder: Path) -> None:
    result = train(folder, keep_integers=True)
    assert result.kept
    assert result.tuned.trained["weight"] == 0
    start, trained = (
        {
            one.name: onnx.numpy_helper.to_array(one)
            for one in onnx.load(folder / name).graph.initializer
        }
        for name in ("start.onnx", "out.onnx")
    )
    small = {name for name, one in start.items() if name.endswith(("_int4", "_int8"))}
    assert len(small) == 3
    assert all(np.array_equal(start[name], trained[name]) for name in small)
    scales = {name for name in start if name.endswith("_scale")}
    assert any(not np.array_equal(start[name], trained[name]) for name in scales)


def test_that_integers_can_stay_is_said_where_nothing_was_gained(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for keep in (False, True):
        judge_by(monkeypatch, (14.0, 9.0), (13.0, 9.0))
        result = train(folder, synthetic=0, keep_integers=keep, force=True)
        assert not result.kept
        (note,) = (one for one in result.notes if "training gained nothing" in one)
        assert ("--keep-integers" in note) is not keep


def test_a_loss_of_the_user(folder: Path) -> None:
    (folder / "own.py").write_text(
        "def loss(outputs, inputs, name):\n    return (outputs['y'] - 1.0).square().mean()\n"
    )
    result = train(folder, loss=f"{folder}/own.py:loss", epochs=10)
    losses = [point.validation_loss for point in result.history.points]
    assert result.kept
    assert losses[result.history.best] < losses[0]


def test_labels(folder: Path) -> None:
    lines = [f"sample_{at:03d},{at % 12}" for at in range(15)]
    (folder / "labels.csv").write_text("\n".join(lines))
    result = train(folder, labels=folder / "labels.csv")
    losses = [point.validation_loss for point in result.history.points]
    # Half of the cross entropy of twelve classes is 1.2; distillation alone would be below 0.2.
    assert losses[0] > 0.5
    assert losses[result.history.best] < losses[0]


def test_a_model_that_refuses_mixtures_is_trained_and_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise DataError("a mixture of samples: index out of range")

    monkeypatch.setattr("onnxq.training.teacher.Teacher.answer", refuse)
    result = train(folder)
    assert result.kept
    assert any("refused a mixture of samples: index" in note for note in result.notes)


def test_layers_inside_are_learned_from(folder: Path) -> None:
    result = train(folder, distill_layers=["a", "g"])
    assert result.history.gained


def test_it_goes_on_from_a_checkpoint(folder: Path) -> None:
    whole = train(folder, checkpoint=folder / "checkpoint")
    first = (folder / "out.onnx").read_bytes()
    again = train(folder, checkpoint=folder / "checkpoint", resume=True, force=True)
    assert (folder / "out.onnx").read_bytes() == first
    assert len(again.history.points) == len(whole.history.points)
    with pytest.raises(DataError, match="other options"):
        train(folder, checkpoint=folder / "checkpoint", resume=True, force=True, seed=5)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        pytest.param({"bits_weights": 4}, "has its own bits", id="bits of a given start"),
        pytest.param({"resume": True}, "name it with --checkpoint", id="resume from nothing"),
        pytest.param({"loss": "a:b", "distill_layers": ["a"]}, "whole loss", id="two losses"),
        pytest.param({"distill_layers": ["nix"]}, "no such tensor", id="no such layer"),
        pytest.param({"device": "tpu"}, "choose from auto, cpu, cuda", id="no such device"),
        pytest.param({"synthetic": -1}, "give 0, for none", id="fewer than no samples"),
        pytest.param({"epochs": 0}, "give 1 or more", id="no epochs"),
        pytest.param({"learning_rate": 0.0}, "above 0", id="no rate"),
        pytest.param({"batch_size": 0}, "give 1 or more", id="no batch"),
    ],
)
def test_usage_is_refused(folder: Path, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        train(folder, **options)
    assert not (folder / "out.onnx").exists()


def test_a_missing_operator_is_named_before_training(folder: Path) -> None:
    ends = ("float[2, 2] x", "float y")
    save(make_model("a = Det(x) y = Neg(a)", *ends), folder / "net.onnx")
    quantized = """a = Det(x) b = Neg(a)
                   q = QuantizeLinear(b, scale, zero) y = DequantizeLinear(q, scale, zero)"""
    constants = {"scale": np.float32(0.1), "zero": np.int8(0)}
    save(make_model(quantized, *ends, constants), folder / "start.onnx")
    shutil.rmtree(folder / "samples")
    save_samples([{"x": np.eye(2, dtype=np.float32)}], folder / "samples")
    with pytest.raises(UnsupportedModelError, match="no operator Det"):
        train(folder)


@pytest.mark.parametrize(
    ("nodes", "ends", "reason"),
    [
        pytest.param(
            "y = Conv(image, w)",
            ("float[N, 24, 8, 8] image", "float[N, 4, 8, 8] y"),
            "its inputs are image, and there they are x",
            id="input",
        ),
        pytest.param(
            "z = Conv(x, w)",
            ("float[N, 24, 8, 8] x", "float[N, 4, 8, 8] z"),
            "its outputs are z, and there they are y",
            id="output",
        ),
        pytest.param(
            "y = Conv(x, w)",
            ("float[N, 24, 16, 16] x", "float[N, 4, 16, 16] y"),
            r"input 'x' is float\[N,24,16,16\], and there it is float\[N,24,8,8\]",
            id="shape",
        ),
        pytest.param(
            "z = Conv(x, w) g = GlobalAveragePool(z) y = Flatten(g)",
            ("float[N, 24, 8, 8] x", "float[N, 48] y"),
            r"output 'y' is float\[N,48\], and there it is float\[N,12\]",
            id="shape of output",
        ),
    ],
)
def test_a_start_that_is_of_another_model(
    folder: Path, nodes: str, ends: tuple[str, str], reason: str
) -> None:
    weight = np.ones((48, 24, 1, 1), np.float32)
    save(make_model(nodes, *ends, {"w": weight}), folder / "other.onnx")
    onnxq.quantize_dynamic(folder / "other.onnx", folder / "start.onnx", force=True)
    with pytest.raises(UnsupportedModelError, match=f"no quantized form of .*net.onnx: {reason};"):
        train(folder)
    assert not (folder / "out.onnx").exists()


def test_a_start_with_weights_of_other_shapes(folder: Path) -> None:
    model = onnx.load(folder / "start.onnx")
    for one in model.graph.initializer:
        if one.name.startswith("w2_"):
            one.CopyFrom(onnx.helper.make_tensor(one.name, one.data_type, (8, 8), [1] * 64))
    save(model, folder / "start.onnx")
    with pytest.raises(UnsupportedModelError, match=r"weight 'w2_\w+' is 8x8, and .* 32x32x1x1"):
        train(folder)


def test_a_start_that_is_not_quantized(folder: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"net\.onnx: is not quantized"):
        train(folder, init=folder / "net.onnx")


def test_a_model_that_changes_while_it_is_trained(folder: Path) -> None:
    def touch(_status: object) -> None:
        os.utime(folder / "net.onnx", (1, 1))

    with pytest.raises(InvalidModelError, match=r"net\.onnx: has changed while it was worked on"):
        train(folder, report=touch)
    assert not (folder / "out.onnx").exists()


def test_a_checkpoint_of_other_tensors(folder: Path) -> None:
    train(folder, checkpoint=folder / "checkpoint")
    fingerprint = "of the same training"
    for state in ({}, {"points": [], "best": 0}, {"points": 3}):
        save_checkpoint(folder / "checkpoint", state, fingerprint)
        with (
            pytest.MonkeyPatch.context() as patch,
            pytest.raises(DataError, match="the checkpoint lacks something or does not fit"),
        ):
            patch.setattr(fine_tuning, "load_checkpoint", lambda _p, _f, state=state: state)
            train(folder, checkpoint=folder / "checkpoint", resume=True, force=True)


def test_torch_is_imported_only_to_train() -> None:
    code = "import sys, onnxq.pipelines.qat, onnxq.api.qat; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


def test_the_network_of_these_tests_is_the_one_that_was_quantized() -> None:
    assert onnx.load_from_string(quantize()[0]).graph.node == network().graph.node
