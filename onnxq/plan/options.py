"""What a user can ask of the planner."""

from __future__ import annotations

from dataclasses import dataclass

from onnxq.errors import UsageError
from onnxq.schemes import WeightType


def parse_weight_type(name: str) -> WeightType:
    """The weight type called ``name``.

    Raises:
        UsageError: there is none.

    >>> parse_weight_type("int8")
    <WeightType.INT8: 'int8'>
    """
    try:
        return WeightType(name)
    except ValueError:
        known = ", ".join(one.value for one in WeightType)
        raise UsageError(f"no weight type is called '{name}'; known types: {known}") from None


@dataclass(frozen=True, kw_only=True)
class DynamicOptions:
    """Options of ``onnxq dynamic`` that change the result.

    Attributes:
        weights: type that weights are stored in.
        per_channel: one scale for each output channel; False for one a tensor.
        block_size: elements that share a scale in 4-bit weights; None for the target's default.
        symmetric: None for the default of the type (asymmetric for the unsigned ones).
        reduce_range: 7-bit weights.
        storage: also store weights small that no integer kernel reads.
        include: globs on node names; empty for all nodes.
        exclude: globs on node names to leave alone.
        op_types: operator types to quantize; empty for all.

    Raises:
        UsageError: options that contradict each other.
    """

    weights: WeightType = WeightType.INT8
    per_channel: bool = True
    block_size: int | None = None
    symmetric: bool | None = None
    reduce_range: bool = False
    storage: bool = True
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    op_types: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        four_bit = self.weights.bits == 4
        if self.block_size is not None and not four_bit:
            raise UsageError(
                f"--block-size is for 4-bit weights; {self.weights.value} has none: leave it out"
            )
        if self.block_size is not None and not (
            16 <= self.block_size <= 256 and self.block_size & (self.block_size - 1) == 0
        ):
            raise UsageError(
                f"--block-size {self.block_size}: the kernels take 16, 32, 64, 128 and 256"
            )
        if self.weights.is_half:
            self._refuse_for_half()
        if self.weights is WeightType.INT4 and self.symmetric is False:
            raise UsageError("int4 blocks are symmetric; use --weights uint4 for asymmetric ones")

    @property
    def is_symmetric(self) -> bool:
        """Whether integers are symmetric around real 0."""
        return self.weights.is_signed if self.symmetric is None else self.symmetric

    def _refuse_for_half(self) -> None:
        for value, option in (
            (not self.per_channel, "--per-tensor"),
            (self.symmetric is not None, "--symmetric/--asymmetric"),
            (self.reduce_range, "--reduce-range"),
            (not self.storage, "--no-storage"),
        ):
            if value:
                raise UsageError(
                    f"{option} has no meaning for {self.weights.value} weights: leave it out"
                )
