"""Variants of samples, drawn and written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from onnxq.numerics.affine import Array
from onnxq.samples import Part, SampleOptions, open_samples
from onnxq.training.synthetic_samples import write_variants
from onnxq.training.variants import draw_variants
from tests.apply.calibrated_models import save_samples
from tests.models import make_model, save

Feeds = dict[str, Array]


def vectors(count: int, size: int = 32) -> list[Feeds]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((1, size)).astype(np.float32)} for _ in range(count)]


def test_variants_are_no_samples_and_follow_from_the_seed() -> None:
    pool = vectors(4)
    drawn = [draw_variants(pool, 3, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    for one, same, other in zip(*drawn, strict=True):
        np.testing.assert_array_equal(one["x"], same["x"])
        assert not np.array_equal(one["x"], other["x"])
        assert not any(np.array_equal(one["x"], sample["x"]) for sample in pool)
        assert (one["x"].shape, one["x"].dtype) == ((1, 32), np.float32)


def test_samples_of_other_shapes_are_left_out_of_a_variant() -> None:
    pool = [*vectors(3), *vectors(3, size=48)]
    for seed in range(8):
        sizes = {one["x"].shape for one in draw_variants(pool, 4, np.random.default_rng(seed))}
        assert sizes in ({(1, 32)}, {(1, 48)})


def test_variants_of_large_pictures_are_views_within_their_limits() -> None:
    pictures = [{"x": np.full((1, 3, 64, 64), at, np.float32)} for at in (0.0, 1.0)]
    pictures[0]["x"][0, 0] = np.linspace(0, 1, 64, dtype=np.float32)
    for one in draw_variants(pictures, 8, np.random.default_rng(0)):
        assert one["x"].shape == (1, 3, 64, 64)
        assert -1 < one["x"].min() <= one["x"].max() < 2.5


def write(
    tmp_path: Path, nodes: str, ends: tuple[str, str], pool: list[Feeds], *, count: int = 5
) -> int:
    source = save(make_model(nodes, *ends), tmp_path / "net.onnx")
    save_samples(pool, tmp_path / "samples")
    part = Part(open_samples(tmp_path / "samples", options=SampleOptions()), None, "samples")
    folder = tmp_path / "variants"
    folder.mkdir()
    written = write_variants(source, part, folder, count=count, seed=0)
    assert len(list(folder.glob("*.npz"))) == written
    return written


def test_variants_are_written_as_files(tmp_path: Path) -> None:
    ends = ("float[N, 32] x", "float[N, 32] y")
    assert write(tmp_path, "y = Neg(x)", ends, vectors(2)) == 5
    with np.load(tmp_path / "variants" / "variant-0000.npz") as arrays:
        assert arrays["x"].shape == (1, 32)


def test_variants_are_written_in_all_shapes_of_the_samples(tmp_path: Path) -> None:
    ends = ("float[N, M] x", "float[N, M] y")
    pool = [*vectors(3), *vectors(3, size=48)]
    assert write(tmp_path, "y = Neg(x)", ends, pool, count=12) == 12
    sizes = set()
    for file in (tmp_path / "variants").iterdir():
        with np.load(file) as arrays:
            sizes.add(arrays["x"].shape)
    assert sizes == {(1, 32), (1, 48)}


def test_integers_have_no_variants(tmp_path: Path) -> None:
    ends = ("int64[N, 32] x", "int64[N, 32] y")
    assert write(tmp_path, "y = Neg(x)", ends, [{"x": np.arange(32)[None]}]) == 0


def test_what_the_float_model_refuses_is_no_variant(tmp_path: Path) -> None:
    nodes = """i = Cast<to = 7>(x) size = Constant<value_ints = [32]>()
               zeros = ConstantOfShape(size) y = Gather(zeros, i)"""
    pool = [{"x": np.linspace(0, 31, 32, dtype=np.float32)[None]} for _ in range(2)]
    for one in pool:
        one["x"] = np.rint(one["x"])
    count = write(tmp_path, nodes, ("float[N, 32] x", "float[N, 32] y"), pool)
    # Brighter, an index leaves the table of 32.
    assert 0 < count < 5
