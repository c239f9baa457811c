"""What a quantized tensor is: its type, its granularity, and the integers it may use."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class WeightType(enum.Enum):
    """The types a weight can be stored in."""

    INT8 = "int8"
    UINT8 = "uint8"
    INT4 = "int4"
    UINT4 = "uint4"
    INT16 = "int16"
    FP16 = "fp16"
    BF16 = "bf16"

    @property
    def bits(self) -> int:
        """Bits of one stored element.

        >>> WeightType.INT4.bits, WeightType.BF16.bits
        (4, 16)
        """
        return {"8": 8, "4": 4, "6": 16}[self.value[-1]]

    @property
    def is_half(self) -> bool:
        """Whether elements are 16-bit floats, which have no scale."""
        return self in (WeightType.FP16, WeightType.BF16)

    @property
    def is_signed(self) -> bool:
        """Whether the integers start below zero."""
        return self in (WeightType.INT8, WeightType.INT4, WeightType.INT16)


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """How one tensor becomes integers: ``real = scale * (quantized - zero_point)``.

    Attributes:
        type: integer type of an element.
        axes: axes along which each index has a scale of its own; empty means one scale in all.
        block_size: elements along the reduction that share a scale; None means all of them.
        symmetric: whether real 0 sits in the middle of the integers.
        reduce_range: give up one bit, so that u8 x s8 sums fit 16 bits (x86 without VNNI).
        limits_pairs: have scales in which such sums of two neighbours fit, instead.
    """

    type: WeightType
    axes: tuple[int, ...] = ()
    block_size: int | None = None
    symmetric: bool = True
    reduce_range: bool = False
    limits_pairs: bool = False

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest integer in use.

        Symmetric 8-bit schemes leave out -128, as weights do in every runtime: |q| <= 127.

        >>> Scheme(type=WeightType.INT8).range
        (-127, 127)
        >>> Scheme(type=WeightType.INT8, reduce_range=True).range
        (-63, 63)
        >>> Scheme(type=WeightType.UINT8, symmetric=False).range
        (0, 255)
        >>> Scheme(type=WeightType.INT4).range
        (-8, 7)
        """
        bits = self.type.bits - (1 if self.reduce_range else 0)
        low, high = signed_range(bits)
        if self.symmetric and bits > 4:
            low = -high
        if self.type.is_signed:
            return low, high
        offset = 2 ** (bits - 1)
        return low + offset, high + offset

    @property
    def midpoint(self) -> int:
        """The zero point of the symmetric form: 0 if signed, half the range if not.

        >>> Scheme(type=WeightType.UINT8).midpoint
        128
        """
        bits = self.type.bits - (1 if self.reduce_range else 0)
        return 0 if self.type.is_signed else int(2 ** (bits - 1))

    def __str__(self) -> str:
        """A short name, as the tables print it.

        >>> str(Scheme(type=WeightType.INT8, axes=(0,)))
        'int8 per channel'
        """
        if self.type.is_half:
            return self.type.value
        grain = "per channel" if self.axes else "per tensor"
        if self.block_size:
            grain = f"blocks of {self.block_size}"
        return " ".join(
            filter(
                None,
                (
                    self.type.value,
                    grain,
                    "" if self.symmetric else "asymmetric",
                    "7-bit" if self.reduce_range else "",
                    "in pairs" if self.limits_pairs else "",
                ),
            )
        )


class CalibratedFormat(enum.Enum):
    """How calibrated integers are written down."""

    PAIRS = "qdq"
    """QuantizeLinear and DequantizeLinear around float nodes: for runtimes that fuse them."""
    OPERATORS = "qoperator"
    """Operators that compute on integers by themselves: for runtimes that optimise less."""


class ActivationType(enum.Enum):
    """The types a calibrated activation can have."""

    UINT8 = "uint8"
    INT8 = "int8"
    UINT16 = "uint16"
    INT16 = "int16"
    UINT4 = "uint4"

    @property
    def bits(self) -> int:
        """Bits of one element.

        >>> ActivationType.UINT16.bits, ActivationType.UINT4.bits
        (16, 4)
        """
        return {"8": 8, "6": 16, "4": 4}[self.value[-1]]

    @property
    def is_signed(self) -> bool:
        """Whether the integers start below zero."""
        return self.value.startswith("int")


@dataclass(frozen=True, kw_only=True)
class ActivationScheme:
    """How activations become integers: one scale and one zero point for each tensor.

    Attributes:
        type: integer type of an element.
        symmetric: whether real 0 sits in the middle of the integers.
    """

    type: ActivationType = ActivationType.UINT8
    symmetric: bool = False

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest integer.

        >>> ActivationScheme().range
        (0, 255)
        >>> ActivationScheme(type=ActivationType.INT8, symmetric=True).range
        (-128, 127)
        """
        low, high = signed_range(self.type.bits)
        offset = 0 if self.type.is_signed else -low
        return low + offset, high + offset

    @property
    def midpoint(self) -> int:
        """The zero point of the symmetric form.

        >>> ActivationScheme().midpoint
        128
        """
        return 0 if self.type.is_signed else int(2 ** (self.type.bits - 1))

    def __str__(self) -> str:
        """A short name.

        >>> str(ActivationScheme())
        'uint8'
        """
        return self.type.value + (" symmetric" if self.symmetric else "")


def signed_range(bits: int) -> tuple[int, int]:
    """All integers of two's complement with so many bits.

    >>> signed_range(8)
    (-128, 127)
    """
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
