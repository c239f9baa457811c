"""The integers that a range is chosen for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The integers that a tensor will be stored in.

    Attributes:
        quantized_min: smallest integer in use.
        quantized_max: largest integer in use.
        symmetric: whether real 0 sits in the middle of the integers.
    """

    quantized_min: int
    quantized_max: int
    symmetric: bool

    @property
    def levels(self) -> int:
        """How many integers there are.

        >>> Grid(quantized_min=-127, quantized_max=127, symmetric=True).levels
        255
        """
        return self.quantized_max - self.quantized_min + 1

    @property
    def midpoint(self) -> int | None:
        """The zero point of a symmetric grid; None where the range decides.

        >>> Grid(quantized_min=-128, quantized_max=127, symmetric=True).midpoint
        0
        >>> Grid(quantized_min=1, quantized_max=255, symmetric=True).midpoint
        128
        """
        return (self.quantized_min + self.quantized_max + 1) // 2 if self.symmetric else None
