"""Two parts of the samples: those to calibrate with, and those held back to verify with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from onnxq.runtime.session import Feeds, InputSignature
from onnxq.samples.choice import held_back
from onnxq.samples.reading import Sample, Samples


@dataclass(frozen=True)
class Part:
    """Some of the samples.

    Attributes:
        samples: all of them.
        keep: by position, which belong to this part; None for all.
        label: how reports call the part.
    """

    samples: Samples
    keep: Callable[[int], bool] | None
    label: str

    @property
    def count(self) -> int | None:
        """How many there are, bad ones included; None where that is not known."""
        total = self.samples.count
        if total is None or self.keep is None:
            return total
        return sum(map(self.keep, range(total)))

    def read_samples(self, inputs: Sequence[InputSignature]) -> Iterator[Sample]:
        """The samples with their names."""
        return self.samples.read(inputs, keep=self.keep)

    def read(self, inputs: Sequence[InputSignature]) -> Iterator[Feeds]:
        """Their feeds."""
        for sample in self.read_samples(inputs):
            yield sample.feeds


def calibration_part(samples: Samples) -> Part:
    """The samples that are not held back."""
    return Part(samples, lambda index: not held_back(index), samples.label)


def verification_part(samples: Samples, total: int) -> Part:
    """The samples that are held back; all of them where there are too few for that.

    Args:
        samples: all.
        total: how many there are.
    """
    if any(map(held_back, range(total))):
        return Part(samples, held_back, f"{samples.label}, samples held back from calibration")
    return Part(samples, None, f"{samples.label}, also used to calibrate: too few to hold any back")
