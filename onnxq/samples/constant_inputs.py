"""Inputs that are the same number everywhere, which is seldom what a user means to calibrate on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onnxq.runtime.session import Feeds


class ConstantInputs:
    """Finds them, over all samples that are added."""

    def __init__(self) -> None:
        self._numbers: dict[str, float] = {}
        self._varied: set[str] = set()

    def add(self, feeds: Feeds) -> None:
        """Look at one sample; an input that has varied once is not looked at any more."""
        for name, array in feeds.items():
            if name in self._varied or not array.size:
                continue
            if array.dtype.kind not in "fc":  # integers are often one number: a mask, a length
                self._varied.add(name)
                continue
            number = self._numbers.setdefault(name, float(array.flat[0].real))
            if array.size == 1 or not np.all(array == number):
                self._varied.add(name)

    def describe(self) -> Iterator[str]:
        """A line for each; a warning where the model is fed nothing else."""
        constant = {name: one for name, one in self._numbers.items() if name not in self._varied}
        prefix = "" if self._varied else "WARNING: "
        for name, number in constant.items():
            yield (
                f"{prefix}input '{name}' is {number:g} everywhere in every sample, so nothing is "
                "known of its other values; give samples as the model will see them"
            )
