"""Samples in which the float model sees more, and the views of pictures that they begin as."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch")

from onnxq.samples import Part, SampleOptions, open_samples  # noqa: E402
from onnxq.training import synthesis  # noqa: E402
from onnxq.training.examples import Arrays  # noqa: E402
from onnxq.training.interpreter import run  # noqa: E402
from onnxq.training.options import TrainingOptions  # noqa: E402
from onnxq.training.program import Program, compile_model  # noqa: E402
from onnxq.training.synthesis import Synthesizer  # noqa: E402
from onnxq.training.synthetic_samples import write_synthetic_samples  # noqa: E402
from onnxq.training.tensors import Array  # noqa: E402
from onnxq.training.views import draw_view, is_picture  # noqa: E402
from tests.apply.calibrated_models import save_samples  # noqa: E402
from tests.models import make_model, save  # noqa: E402
from tests.training.quantized_models import network, samples  # noqa: E402


def make(
    program: Program, pool: list[dict[str, Array]], count: int = 12, *, seed: int = 4
) -> list[dict[str, Array]]:
    synthesizer = Synthesizer(program=program, outputs=("y",), stacks=count > 1, seed=seed)
    return list(synthesizer.make(pool, count))


@pytest.fixture(scope="module")
def program() -> Program:
    return compile_model(ir.from_proto(network()))


def scores(program: Program, feeds: Arrays) -> Array:
    with torch.no_grad():
        found: Array = run(program, feeds)["y"].numpy()
    return found


@pytest.mark.parametrize("count", [1, 6], ids=["alone", "stacked"])
@pytest.mark.parametrize("seed", range(4))
def test_an_output_grows_more_than_by_a_random_change(
    program: Program, monkeypatch: pytest.MonkeyPatch, seed: int, count: int
) -> None:
    monkeypatch.setattr(synthesis, "UNCHANGED", 0.0)
    pool = samples(6)
    changed = make(program, pool, count, seed=seed)
    monkeypatch.setattr(synthesis, "STEPS", 0)
    begun = make(program, pool, count, seed=seed)
    generator = np.random.default_rng(seed)
    for before, after in zip(begun, changed, strict=True):
        change = after["x"] - before["x"]
        noise = generator.standard_normal(change.shape).astype(np.float32)
        noise *= np.linalg.norm(change) / np.linalg.norm(noise)
        start = scores(program, before)
        grown = (scores(program, after) - start).max()
        by_chance = (scores(program, {"x": before["x"] + noise}) - start).max()
        assert grown > max(0.0, by_chance)


def test_samples_keep_shape_type_and_the_range_of_the_given_ones(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = samples(6)
    low = min(float(one["x"].min()) for one in pool)
    high = max(float(one["x"].max()) for one in pool)
    monkeypatch.setattr(synthesis, "UNCHANGED", 0.0)
    for one in make(program, pool):
        assert one["x"].shape == pool[0]["x"].shape
        assert one["x"].dtype == np.float32
        assert low <= float(one["x"].min())
        assert float(one["x"].max()) <= high


def test_the_same_seed_gives_the_same_samples(program: Program) -> None:
    first, second = (make(program, samples(6), 5) for _ in range(2))
    assert len(first) == 5
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one["x"], other["x"])


def test_integers_and_masks_are_those_of_a_sample() -> None:
    model = make_model(
        "z = Mul(x, mask)  w = Cast<to = 1>(ids)  y = Add(z, w)",
        "float[N, 32] x, float[N, 32] mask, int64[N, 32] ids",
        "float[N, 32] y",
    )
    rng = np.random.default_rng(0)
    pool = [
        {
            "x": rng.standard_normal((1, 32)).astype(np.float32),
            "mask": (rng.random((1, 32)) < 0.5).astype(np.float32),
            "ids": rng.integers(0, 9, (1, 32)),
        }
        for _ in range(4)
    ]
    for one in make(compile_model(ir.from_proto(model)), pool):
        for name in ("mask", "ids"):
            assert any(np.array_equal(one[name], other[name]) for other in pool)


def test_an_output_that_no_gradient_reaches_leaves_variations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(synthesis, "UNCHANGED", 0.0)
    model = make_model(
        "a = ArgMax<axis = 1>(x)  y = Cast<to = 1>(a)", "float[N, 32] x", "float[N, 1] y"
    )
    rng = np.random.default_rng(0)
    pool = [{"x": rng.standard_normal((1, 32)).astype(np.float32)} for _ in range(3)]
    made = make(compile_model(ir.from_proto(model)), pool, 4)
    assert len(made) == 4
    assert all(np.isfinite(one["x"]).all() for one in made)


def test_nothing_is_made_of_integers_alone() -> None:
    model = make_model("y = Cast<to = 1>(ids)", "int64[N, 32] ids", "float[N, 32] y")
    pool = [{"ids": np.arange(32)[None]}]
    assert make(compile_model(ir.from_proto(model)), pool) == []


def test_a_view_shows_parts_of_the_pictures_only() -> None:
    ones, twos = (np.full((1, 3, 64, 96), number, np.float32) for number in (1, 2))
    assert is_picture(ones)
    for seed in range(20):
        view = draw_view([ones, twos], np.random.default_rng(seed))
        assert view.shape == ones.shape
        np.testing.assert_allclose(view, np.rint(view), atol=1e-5)
        assert set(np.unique(np.rint(view))) <= {1.0, 2.0}


def test_views_differ() -> None:
    picture = np.random.default_rng(0).standard_normal((1, 1, 64, 64)).astype(np.float32)
    views = [draw_view([picture], np.random.default_rng(seed)) for seed in range(4)]
    assert all(not np.array_equal(views[0], other) for other in views[1:])


def write(
    tmp_path: Path, model: onnx.ModelProto, pool: list[dict[str, Array]], *, wanted: int | None
) -> tuple[int, Path]:
    source = save(model, tmp_path / "net.onnx")
    save_samples(pool, tmp_path / "samples")
    part = Part(open_samples(tmp_path / "samples", options=SampleOptions()), None, "samples")
    folder = tmp_path / "made"
    folder.mkdir()
    count = write_synthetic_samples(
        ir.from_proto(model),
        source,
        part,
        folder,
        options=TrainingOptions(),
        wanted=wanted,
        track=lambda one, _: one,
    )
    return count, folder


def test_samples_are_written_as_files_that_can_be_read_again(tmp_path: Path) -> None:
    count, folder = write(tmp_path, network(), samples(6), wanted=5)
    assert count == 5
    assert len(sorted(folder.glob("*.npz"))) == 5
    with np.load(folder / "synthetic-0000.npz") as arrays:
        assert arrays["x"].shape == samples(1)[0]["x"].shape


def test_none_are_written_for_a_model_that_the_engine_cannot_run(tmp_path: Path) -> None:
    model = make_model("y = Hardmax(x)", "float[N, 8] x", "float[N, 8] y")
    count, folder = write(tmp_path, model, [{"x": np.ones((1, 8), np.float32)}], wanted=None)
    assert count == 0
    assert list(folder.iterdir()) == []
