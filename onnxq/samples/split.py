"""Two parts of the samples: those to calibrate with, and those held back to verify with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from onnxq.runtime.session import Feeds, InputSignature
from onnxq.samples.choice import HELD_BACK_EVERY, held_back
from onnxq.samples.reading import Sample, Samples

MOST_TRIED = 5 * HELD_BACK_EVERY
"""With more samples than this some of those that are held back will be good."""


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
    def is_held_back(self) -> bool:
        """Whether calibration does not see these."""
        return self.keep is held_back

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


def verification_part(samples: Samples, inputs: Sequence[InputSignature]) -> Part:
    """The samples that are held back; all of them where no good one is among those.

    Args:
        samples: all.
        inputs: of the model.

    Raises:
        DataError: a sample that is held back is bad.
    """
    part = Part(samples, held_back, f"{samples.label}, samples held back from calibration")
    total = samples.count_entries(inputs)
    if total > MOST_TRIED or next(part.read(inputs), None) is not None:
        return part
    return Part(samples, None, f"{samples.label}, also used to calibrate: too few to hold any back")
