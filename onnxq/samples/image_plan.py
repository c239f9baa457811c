"""How images become the input of a model: decided once, from its shape and the options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxq.errors import DataError, UsageError
from onnxq.runtime.session import InputSignature
from onnxq.samples.options import ImageOptions

CHANNEL_COUNTS = (1, 3)


@dataclass(frozen=True)
class ImagePlan:
    """What is done to every image.

    Attributes:
        signature: of the input.
        layout: 'nchw' or 'nhwc'.
        channels: 1 for gray, or 3.
        size: (height, width); None to keep each image's own.
        options: what was asked for.
    """

    signature: InputSignature
    layout: str
    channels: int
    size: tuple[int, int] | None
    options: ImageOptions

    def describe(self) -> str:
        """The decisions in one line."""
        size = "each image's own" if self.size is None else f"{self.size[0]}x{self.size[1]}"
        source = f" from the shape of input '{self.signature.name}'" * (self.options.layout is None)
        colour = "gray" if self.channels == 1 else self.options.channels
        mean, std = (
            "no" if values is None else ",".join(f"{value:g}" for value in values)
            for values in (self.options.mean, self.options.std)
        )
        scale = "1/255" if self._scale == 1 / 255 else f"{self._scale:g}"
        return (
            f"images: size {size}, layout {self.layout}{source}, {colour}; scale {scale}, "
            f"{mean} mean, {std} std"
        )

    def arrange(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """The input of ``pixels``, which are [height, width, channels] of red, green and blue."""
        if self.options.channels == "bgr":
            pixels = pixels[..., ::-1]
        values = self._to_input_type(self._normalize(pixels))
        if self.layout == "nchw":
            values = values.transpose(2, 0, 1)
        if len(self.signature.shape) == 4:
            values = values[np.newaxis]
        return np.ascontiguousarray(values)

    def refuse_range(self) -> None:
        """Refuse options that take black or white out of the range of the input's type.

        Raises:
            DataError: they do.
        """
        dtype = np.dtype(self.signature.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            extremes = self._normalize(np.array([[[0]], [[255]]], np.uint8))
            if dtype.kind in "iu":
                limits = np.iinfo(dtype)
                rounded = np.rint(extremes)
                fits = bool(limits.min <= rounded.min() and rounded.max() <= limits.max)
            else:
                fits = bool(np.isfinite(extremes.astype(dtype)).all())
        if not fits:
            raise DataError(
                f"images become {extremes.min():g} to {extremes.max():g}, which does not fit "
                f"{self.signature}; change --scale, --mean or --std (int8: --mean 128)"
            )

    @property
    def _scale(self) -> float:
        if self.options.scale is not None:
            return self.options.scale
        return 1.0 if np.dtype(self.signature.dtype).kind in "iu" else 1 / 255

    def _normalize(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        wide = np.dtype(self.signature.dtype) == np.float64
        values: npt.NDArray[Any] = pixels.astype(np.float64 if wide else np.float32)
        values *= self._scale
        if self.options.mean is not None:
            values = values - np.array(self.options.mean, values.dtype)
        if self.options.std is not None:
            values = values / np.array(self.options.std, values.dtype)
        return values

    def _to_input_type(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        dtype = np.dtype(self.signature.dtype)
        return (np.rint(values) if dtype.kind in "iu" else values).astype(dtype)


def plan_images(inputs: Sequence[InputSignature], options: ImageOptions) -> ImagePlan:
    """Decide how images become the input of a model.

    Raises:
        DataError: the model takes no image, or its shape leaves the layout open.
        UsageError: the options contradict the shape of the input.
    """
    if len(inputs) != 1:
        raise DataError(
            f"images feed one input, the model takes {len(inputs)}: "
            f"{'; '.join(map(str, inputs))}; use .npz files or --reader"
        )
    signature = inputs[0]
    dtype = np.dtype(signature.dtype)
    if dtype.kind not in "fiu" and dtype.name != "bfloat16":
        raise DataError(f"images are numbers, the model takes {signature}; use .npz files")
    if len(signature.shape) not in (3, 4):
        raise DataError(
            f"images need an input of 3 or 4 axes, the model takes {signature}; use .npz files"
        )
    if len(signature.shape) == 4 and _fixed(signature.shape[0]) not in (None, 1):
        raise DataError(
            f"images are fed one by one, the model takes {signature}; use .npz files with whole "
            "batches, or export it with a free batch axis"
        )
    layout = options.layout or _guess_layout(signature)
    sizes = signature.shape[-3:]
    count, height, width = sizes if layout == "nchw" else (sizes[2], sizes[0], sizes[1])
    channels = _choose_channels(signature, layout, _fixed(count), options)
    size = _choose_size(signature, (_fixed(height), _fixed(width)), options)
    plan = ImagePlan(signature, layout, channels, size, options)
    plan.refuse_range()
    return plan


def _fixed(size: int | str | None) -> int | None:
    return size if isinstance(size, int) and size >= 0 else None


def _guess_layout(signature: InputSignature) -> str:
    """Only where one end of the shape can be channels, and the other cannot."""
    first, last = (_fixed(size) in CHANNEL_COUNTS for size in signature.shape[-3::2])
    if first == last:
        reason = "both ends could be" if first else "neither end is 1 or 3"
        raise DataError(
            f"images: which axis of {signature} is the channels cannot be seen ({reason}); "
            "give --layout nchw or --layout nhwc"
        )
    return "nchw" if first else "nhwc"


def _choose_channels(
    signature: InputSignature, layout: str, count: int | None, options: ImageOptions
) -> int:
    channels = 3 if count is None else count
    if channels not in CHANNEL_COUNTS:
        raise DataError(
            f"images have 1 or 3 channels, as {layout} the model takes {channels} ({signature}); "
            "give the other --layout, or use .npz files"
        )
    for option, values in (("--mean", options.mean), ("--std", options.std)):
        if values is not None and len(values) not in (1, channels):
            raise UsageError(
                f"{option} has {len(values)} values, the model takes {channels} channel "
                f"({signature}); give one"
            )
    return channels


def _choose_size(
    signature: InputSignature, fixed: tuple[int | None, int | None], options: ImageOptions
) -> tuple[int, int] | None:
    height, width = fixed
    if options.size is not None:
        if height not in (None, options.size[0]) or width not in (None, options.size[1]):
            raise UsageError(
                f"--size {options.size[0]}x{options.size[1]} contradicts the model, which takes "
                f"{signature}; leave it out"
            )
        return options.size
    if height is not None and width is not None:
        return height, width
    if height is None and width is None:
        return None
    raise DataError(f"images: the model takes {signature}, of which one side is free; give --size")
