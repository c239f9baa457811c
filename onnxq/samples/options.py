"""What a user can ask of the samples: how many, which, and how images become inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnxq.errors import UsageError

LAYOUTS = ("nchw", "nhwc")
CHANNEL_ORDERS = ("rgb", "bgr")


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How an image becomes an input: resize, pixel * scale, minus mean, by std.

    Attributes:
        size: (height, width) to resize to; None for the one that the input has, and each image's
            own where the input leaves both free.
        mean: taken off after scaling; one value, or one a channel in the order of ``channels``.
        std: divided by at the end, as ``mean``.
        layout: 'nchw' or 'nhwc'; None to guess it from the shape of the input.
        channels: 'rgb' or 'bgr', for inputs of three channels.
        scale: factor on pixels of 0 to 255; None for 1/255 into floats and 1 into integers.

    Raises:
        UsageError: a value that no image can be read with.
    """

    size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    layout: str | None = None
    channels: str = "rgb"
    scale: float | None = None

    def __post_init__(self) -> None:
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            text = "x".join(map(str, self.size))
            raise UsageError(f"--size {text}: give a height and a width of 1 or more")
        for option, values in (("--mean", self.mean), ("--std", self.std)):
            if values is not None:
                _refuse_values(option, values)
        if self.std is not None and 0 in self.std:
            raise UsageError("--std 0: pixels are divided by it; give numbers other than 0")
        if self.layout is not None and self.layout not in LAYOUTS:
            raise UsageError(f"--layout {self.layout}: choose from {', '.join(LAYOUTS)}")
        if self.channels not in CHANNEL_ORDERS:
            raise UsageError(f"--channels {self.channels}: choose from {', '.join(CHANNEL_ORDERS)}")
        if self.scale is not None and (self.scale == 0 or not math.isfinite(self.scale)):
            raise UsageError(f"--scale {self.scale}: give a number other than 0")


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Which samples are read, and what happens to bad ones.

    Attributes:
        limit: at most so many; None for all.
        seed: another one chooses other files, where there are more than ``limit``.
        skip_bad: leave out samples that cannot be read or do not fit, and count them.
        images: how images become inputs; None for the defaults.

    Raises:
        UsageError: no sample could be read so.
    """

    limit: int | None = None
    seed: int = 0
    skip_bad: bool = False
    images: ImageOptions | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--samples {self.limit}: give 1 or more, or leave it out for all")

    def refuse_all(self, source: str) -> None:
        """Refuse every option that was given, for want of samples.

        Args:
            source: options that samples would come from.

        Raises:
            UsageError: one was given.
        """
        images, defaults = self.images or ImageOptions(), ImageOptions()
        given = {"samples": self.limit, "seed": self.seed, "skip-bad": self.skip_bad} | {
            name: None if value == getattr(defaults, name) else value
            for name, value in vars(images).items()
        }
        for name, value in given.items():
            if value:
                raise UsageError(f"--{name} has no meaning without {source}: leave it out")


def _refuse_values(option: str, values: tuple[float, ...]) -> None:
    if len(values) not in (1, 3) or not all(math.isfinite(value) for value in values):
        text = ",".join(map(str, values))
        raise UsageError(f"{option} {text}: give one number, or three, one for each channel")
