"""Pixels of image files, with Pillow, which is an extra."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from onnxq.errors import DataError
from onnxq.samples.fitting import Arrays
from onnxq.samples.image_plan import ImagePlan

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
"""Pillow goes by content, and would take formats that nobody means by these suffixes."""


def require_pillow(path: Path) -> None:
    """Refuse the image ``path`` where Pillow is not installed.

    Raises:
        DataError: with the command that installs it.
    """
    try:
        import PIL.Image  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise DataError(f"{path}: images need Pillow; pip install 'onnxq[images]'") from error


def load_image(path: Path, plan: ImagePlan) -> Arrays:
    """The input that ``plan`` makes of an image file.

    Raises:
        DataError: it cannot be read as an image, or is unreasonably large.
    """
    return {plan.signature.name: plan.arrange(_read_pixels(path, plan))}


def _read_pixels(path: Path, plan: ImagePlan) -> npt.NDArray[np.uint8]:
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            # Pillow warns of damaged metadata, which is no reason to leave out good pixels.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as file:
                image = _convert(ImageOps.exif_transpose(file), plan.channels)
            if plan.size is not None:
                height, width = plan.size
                image = image.resize((width, height), Image.Resampling.BILINEAR)
            pixels = np.asarray(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: too large an image: {error}; make it smaller") from error
    except Exception as error:  # each format of Pillow raises its own types
        raise DataError(f"{path}: cannot be read as an image: {error}") from error
    return pixels.reshape(*pixels.shape[:2], plan.channels)


def _convert(image: Image.Image, channels: int) -> Image.Image:
    """8 bits a channel; transparency is dropped, as torchvision and OpenCV do when they load."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16-bit gray, of which Pillow would clip all above 255
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8))
    if image.mode == "P":  # straight to RGB, it would warn of transparent colours
        image = image.convert("RGBA")
    return image.convert("L" if channels == 1 else "RGB")
