"""Pixels of image files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from onnxq.errors import DataError
from onnxq.runtime.session import InputSignature
from onnxq.samples import ImageOptions
from onnxq.samples.image_plan import plan_images
from onnxq.samples.images import load_image, require_pillow

Image = pytest.importorskip("PIL.Image", reason="images need Pillow: pip install 'onnxq[images]'")

RED_TOP = np.array([[[255, 0, 0]] * 4, [[0, 0, 255]] * 4], np.uint8)


def _load(path: Path, *shape: int | str, **options: Any) -> npt.NDArray[Any]:
    """Pixels as [height, width, channels]."""
    signature = InputSignature("x", np.uint8, (1, *(shape or ("h", "w", 3))))
    plan = plan_images([signature], ImageOptions(**options))
    array = load_image(path, plan)["x"][0]
    return array.transpose(1, 2, 0) if plan.layout == "nchw" else array


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".jpg"])
def test_formats(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"0{suffix}"
    content = np.full((6, 4, 3), (200, 100, 50), np.uint8)
    Image.fromarray(content).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    loaded = _load(path)
    assert loaded.shape == (6, 4, 3)
    np.testing.assert_allclose(loaded.astype(int), content, atol=3 if suffix == ".jpg" else 0)


def test_own_size_or_that_of_the_model(tmp_path: Path) -> None:
    Image.fromarray(RED_TOP).save(tmp_path / "0.png")
    np.testing.assert_array_equal(_load(tmp_path / "0.png"), RED_TOP)
    assert _load(tmp_path / "0.png", 3, 8, 6).shape == (8, 6, 3)
    assert _load(tmp_path / "0.png", size=(5, 7)).shape == (5, 7, 3)


def test_orientation_of_the_camera(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn right by a quarter
    Image.fromarray(RED_TOP).save(tmp_path / "0.png", exif=exif)
    turned = _load(tmp_path / "0.png")
    np.testing.assert_array_equal(turned, np.rot90(RED_TOP, -1))


def _palette() -> Any:
    image = Image.fromarray(RED_TOP).convert("P", palette=Image.Palette.ADAPTIVE)
    image.info["transparency"] = bytes([0, 128])
    return image


def _alpha() -> Any:
    image = Image.fromarray(RED_TOP).convert("RGBA")
    image.putalpha(0)
    return image


def _gray_16_bit() -> Any:
    return Image.fromarray(np.array([[0, 256, 65535, 128 << 8]], np.uint16))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (_alpha(), RED_TOP),
        (_palette(), RED_TOP),
        (_gray_16_bit(), np.repeat([[[0], [1], [255], [128]]], 3, axis=2)),
        (Image.new("1", (2, 1), 1), np.full((1, 2, 3), 255)),
        (Image.new("LA", (2, 1), (7, 9)), np.full((1, 2, 3), 7)),
        (Image.new("L", (2, 1), 7), np.full((1, 2, 3), 7)),
    ],
    ids=["alpha", "palette", "gray-16-bit", "1-bit", "gray-alpha", "gray"],
)
def test_modes(image: Any, expected: npt.NDArray[Any], tmp_path: Path) -> None:
    options = {"transparency": image.info["transparency"]} if image.mode == "P" else {}
    image.save(tmp_path / "0.png", **options)
    np.testing.assert_array_equal(_load(tmp_path / "0.png"), expected)


def test_cmyk(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 0, 0, 255)).save(tmp_path / "0.jpg")
    assert _load(tmp_path / "0.jpg").max() < 5


def test_gray_input(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2, 3), 90, np.uint8)).save(tmp_path / "0.png")
    np.testing.assert_array_equal(_load(tmp_path / "0.png", 1, 2, 2), np.full((2, 2, 1), 90))


def _text(path: Path) -> None:
    path.write_text("no image")


def _empty(path: Path) -> None:
    path.touch()


def _cut(path: Path) -> None:
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:1000])


def _other_format(path: Path) -> None:
    Image.fromarray(RED_TOP).save(path, "GIF")


@pytest.mark.parametrize(
    "write", [_text, _empty, _cut, _other_format], ids=lambda one: one.__name__
)
def test_file_that_is_no_image(write: object, tmp_path: Path) -> None:
    assert callable(write)
    write(tmp_path / "0.png")
    with pytest.raises(DataError, match=r"0\.png: cannot be read as an image: "):
        _load(tmp_path / "0.png")


@pytest.mark.parametrize("limit", [30, 10], ids=["warning", "error"])
def test_decompression_bomb(limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (7, 6)).save(tmp_path / "0.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(DataError, match=r"0\.png: too large an image: .*42 pixels.*; make it"):
        _load(tmp_path / "0.png")


def test_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "PIL.Image")
    with pytest.raises(DataError) as caught:
        require_pillow(Path("a.jpg"))
    assert str(caught.value) == "a.jpg: images need Pillow; pip install 'onnxq[images]'"
