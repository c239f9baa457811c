"""Samples of every kind, from a folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import onnx.numpy_helper
import pytest

from onnxq.errors import DataError, UsageError
from onnxq.runtime.session import InputSignature
from onnxq.samples import ImageOptions, SampleOptions, open_samples

X = InputSignature("x", np.float32, ("batch", 3))
IMAGE = InputSignature("x", np.float32, (1, 3, "height", "width"))


def _save(folder: Path, *names: str, value: float = 1) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.savez(folder / name, x=np.full((1, 3), value, np.float32))


def _save_test_set(folder: Path) -> None:
    folder.mkdir()
    tensor = onnx.numpy_helper.from_array(np.ones((4, 3), np.float32), "x")
    (folder / "input_0.pb").write_bytes(tensor.SerializeToString())
    (folder / "output_0.pb").write_text("not read")


def test_kinds_and_shapes_in_one_folder(tmp_path: Path) -> None:
    _save(tmp_path, "a.npz", "sub/folder/b.NPZ.npz")
    np.save(tmp_path / "c.npy", np.ones((7, 3), np.float32))
    _save_test_set(tmp_path / "test_data_set_0")
    samples = open_samples(tmp_path)
    assert samples.count == 4
    assert samples.label == str(tmp_path)
    for _ in range(2):
        given = [(sample.name, len(sample.feeds["x"])) for sample in samples.read([X])]
        assert given == [
            ("a.npz", 1),
            ("c.npy", 7),
            ("sub/folder/b.NPZ.npz", 1),
            ("test_data_set_0", 4),
        ]
    assert samples.skipped == ()
    (note,) = samples.notes
    assert note.startswith("WARNING: input 'x' is 1 everywhere in every sample")


def test_only_one_sample_is_loaded_at_a_time(tmp_path: Path) -> None:
    _save(tmp_path, "a.npz")
    (tmp_path / "b.npz").write_text("damaged, but not looked at yet")
    reading = open_samples(tmp_path).read([X])
    assert next(reading).name == "a.npz"
    with pytest.raises(DataError, match=r"b\.npz: cannot be read as numpy data"):
        next(reading)


def test_some_are_chosen_and_that_is_told(tmp_path: Path) -> None:
    _save(tmp_path, *(f"{index}.npz" for index in range(10)))
    options = SampleOptions(limit=4, seed=3)
    samples = open_samples(tmp_path, options=options)
    names = [sample.name for sample in samples.read([X])]
    assert samples.count == len(names) == 4
    assert names == sorted(names)
    assert names == [sample.name for sample in open_samples(tmp_path, options=options).read([X])]
    assert samples.notes[0] == "4 of 10 samples, chosen with seed 3"


def test_bad_sample_is_named_with_a_way_out(tmp_path: Path) -> None:
    _save(tmp_path, "a.npz", value=np.nan)
    with pytest.raises(DataError) as caught:
        list(open_samples(tmp_path).read([X]))
    assert str(caught.value).startswith(f"{tmp_path / 'a.npz'}: array 'x' holds NaN: 3 of 3 values")
    assert str(caught.value).endswith("(--skip-bad goes on without)")


def test_bad_samples_are_skipped_and_counted(tmp_path: Path) -> None:
    _save(tmp_path, "good.npz")
    _save(tmp_path, "nan.npz", value=np.nan)
    np.savez(tmp_path / "shape.npz", x=np.ones((1, 4), np.float32))
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "gone.npz").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.npz")
    samples = open_samples(tmp_path, options=SampleOptions(skip_bad=True))
    for _ in range(2):
        assert [sample.name for sample in samples.read([X])] == ["good.npz"]
        reasons = ("link to nothing", "holds NaN", "link to nothing", "expected x", "cannot be")
        assert len(samples.skipped) == len(reasons)
        for message, reason in zip(samples.skipped, reasons, strict=True):
            assert reason in message


def test_skipped_are_those_of_every_read(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_text("no array")
    _save(tmp_path, "b.npz", "c.npz")
    samples = open_samples(tmp_path, options=SampleOptions(skip_bad=True))
    assert samples.skipped == ()
    list(samples.read([X], keep=lambda index: index == 0))
    list(samples.read([X], keep=lambda index: index == 1))
    list(samples.read([X]))
    assert len(samples.skipped) == 1


def test_all_samples_are_bad(tmp_path: Path) -> None:
    _save(tmp_path, "a.npz", "b.npz", value=np.inf)
    with pytest.raises(
        DataError, match=r"all 2 samples are bad; the first: .*a\.npz: .* holds Inf"
    ):
        list(open_samples(tmp_path, options=SampleOptions(skip_bad=True)).read([X]))


def test_masks_are_taken_and_told(tmp_path: Path) -> None:
    _save(tmp_path, "a.npz", "b.npz", value=-np.inf)
    _save(tmp_path, "c.npz")
    samples = open_samples(tmp_path)
    assert len(list(samples.read([X]))) == 3
    assert samples.notes == ("input 'x' holds -inf in 2 samples; taken as it is, as in a mask",)


def test_files_beside_a_test_set_are_told(tmp_path: Path) -> None:
    _save_test_set(tmp_path / "set")
    _save(tmp_path, "set/a.npz")
    samples = open_samples(tmp_path)
    assert len(list(samples.read([X]))) == 1
    note, _ = samples.notes
    assert note.startswith("1 files beside the input_*.pb of a test set are not read, first ")


def test_model_that_samples_cannot_feed_is_refused_at_once(tmp_path: Path) -> None:
    _save(tmp_path, "a.npz")
    with pytest.raises(DataError, match="input 's' is no tensor"):
        open_samples(tmp_path).read([InputSignature("s", None, ())])


@pytest.mark.parametrize(
    ("names", "part"),
    [
        ((), "holds no samples: no files at all; samples are .npz, .npy, .jpg"),
        (("a.wav", "b.WAV", "labels.json"), "holds no samples, but 2 of .wav; samples are .npz"),
        ((".DS_Store",), "no files at all"),
    ],
    ids=["empty", "others", "hidden"],
)
def test_no_samples_at_all(names: tuple[str, ...], part: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(DataError) as caught:
        open_samples(tmp_path)
    assert part in str(caught.value)


@pytest.mark.parametrize("reader", [None, "json:loads"], ids=["none", "both"])
def test_folder_or_reader(reader: str | None, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"--calib or --data DIR\) or from --reader: give one of both"
    ):
        open_samples(None if reader is None else tmp_path, reader=reader)


def test_fingerprint_follows_names_and_contents(tmp_path: Path) -> None:
    _save(tmp_path, "a.npz", "b.npz")
    _save_test_set(tmp_path / "set")
    seen = [open_samples(tmp_path).fingerprint()]
    assert seen == [open_samples(tmp_path, options=SampleOptions(skip_bad=True)).fingerprint()]
    (tmp_path / "set" / "output_0.pb").write_text("does not count")
    assert seen == [open_samples(tmp_path).fingerprint()]
    _save(tmp_path, "a.npz", value=2)
    seen.append(open_samples(tmp_path).fingerprint())
    (tmp_path / "a.npz").rename(tmp_path / "c.npz")
    seen.append(open_samples(tmp_path).fingerprint())
    (tmp_path / "set" / "input_0.pb").write_text("other")
    seen.append(open_samples(tmp_path).fingerprint())
    seen.append(open_samples(tmp_path, options=SampleOptions(limit=2)).fingerprint())
    assert len(set(seen)) == 5
    assert all(len(one) == 64 for one in seen)


def test_fingerprint_of_a_link_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.npz").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"a\.npz: no regular file, or a link to nothing"):
        open_samples(tmp_path).fingerprint()


class TestImages:
    """Images among the samples; the files are made with Pillow."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        image = pytest.importorskip("PIL.Image", reason="images need Pillow")
        image.new("RGB", (6, 4), (255, 0, 0)).save(tmp_path / "a.PNG")
        image.new("RGB", (5, 9)).save(tmp_path / "b.jpg")
        return tmp_path

    def test_each_of_its_own_size_beside_arrays(self, folder: Path) -> None:
        np.savez(folder / "c.npz", x=np.ones((1, 3, 2, 2), np.float32))
        samples = open_samples(folder)
        reading = samples.read([IMAGE])
        assert samples.notes == (
            "images: size each image's own, layout nchw from the shape of input 'x', rgb; "
            "scale 1/255, no mean, no std",
        )
        shapes = [sample.feeds["x"].shape for sample in reading]
        assert shapes == [(1, 3, 4, 6), (1, 3, 9, 5), (1, 3, 2, 2)]

    def test_options_reach_the_feeds_and_the_fingerprint(self, folder: Path) -> None:
        images = ImageOptions(size=(2, 2), channels="bgr", scale=1.0)
        samples = open_samples(folder, options=SampleOptions(images=images))
        first = next(samples.read([IMAGE]))
        np.testing.assert_array_equal(first.feeds["x"][0, :, 0, 0], [0, 0, 255])
        assert samples.fingerprint() != open_samples(folder).fingerprint()

    def test_model_that_takes_no_images_is_refused_at_once(self, folder: Path) -> None:
        samples = open_samples(folder, options=SampleOptions(skip_bad=True))
        with pytest.raises(DataError, match="images need an input of 3 or 4 axes"):
            samples.read([X])
        with pytest.raises(DataError, match="images feed one input, the model takes 2"):
            samples.read([X, IMAGE])

    def test_damaged_image_is_skipped(self, folder: Path) -> None:
        (folder / "b.jpg").write_text("no image")
        samples = open_samples(folder, options=SampleOptions(skip_bad=True))
        assert len(list(samples.read([IMAGE]))) == 1
        assert "b.jpg: cannot be read as an image" in samples.skipped[0]

    def test_options_of_images_do_not_change_arrays(self, tmp_path: Path) -> None:
        _save(tmp_path, "a.npz")
        options = SampleOptions(images=ImageOptions(scale=1.0))
        same = open_samples(tmp_path, options=options).fingerprint()
        assert same == open_samples(tmp_path).fingerprint()


def test_pillow_is_asked_for_when_the_folder_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").touch()
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(DataError, match=r"a\.jpg: images need Pillow; pip install"):
        open_samples(tmp_path)
