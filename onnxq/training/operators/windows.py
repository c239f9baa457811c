"""Where the windows of convolutions and poolings lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxq.training.operators.call import Call


@dataclass(frozen=True)
class Windows:
    """Of each spatial axis: stride, dilation, and what is padded before and after."""

    strides: list[int]
    dilations: list[int]
    before: list[int]
    after: list[int]

    @property
    def is_symmetric(self) -> bool:
        """Whether as much is padded before as after, which torch pads itself."""
        return self.before == self.after

    @property
    def flat(self) -> list[int]:
        """The padding as ``torch.nn.functional.pad`` takes it: last axis first."""
        pairs = zip(reversed(self.before), reversed(self.after), strict=True)
        return [size for pair in pairs for size in pair]


def read_windows(call: Call, sizes: Sequence[int], kernel: Sequence[int]) -> Windows:
    """The windows of a node.

    Args:
        call: with strides, dilations, pads and auto_pad.
        sizes: of the spatial axes of the input.
        kernel: sizes of the kernel.
    """
    rank = len(kernel)
    strides = call.integers("strides") or [1] * rank
    dilations = call.integers("dilations") or [1] * rank
    pads = call.integers("pads") or [0] * (2 * rank)
    before, after = pads[:rank], pads[rank:]
    automatic = call.text("auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        before, after = [], []
        for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
            outputs = -(-size // stride)
            total = max(0, (outputs - 1) * stride + dilation * (width - 1) + 1 - size)
            smaller = total // 2
            upper = automatic == "SAME_UPPER"
            before.append(smaller if upper else total - smaller)
            after.append(total - smaller if upper else smaller)
    elif automatic == "VALID":
        before, after = [0] * rank, [0] * rank
    return Windows(strides, dilations, before, after)
