"""Rounding with gradients: the straight-through estimator and learned step sizes.

    real -> clamp(real / scale, low, high) -> round -> times scale

The gradient of the rounding is taken as 1 (Bengio et al. 2013, arXiv:1308.3432), which gives the
scale the gradient of LSQ (Esser et al. 2020, arXiv:1902.08153, eq. 3): ``round(v) - v`` inside the
range and its limit outside, ``v = real / scale``. Whether a value is inside is asked of ``v``
before it is rounded. Asked of the integer, every value that saturates would count as inside.
"""

from __future__ import annotations

from typing import Any

import torch


class _Round(torch.autograd.Function):
    """Half to even, with gradient 1."""

    @staticmethod
    def forward(_context: Any, value: torch.Tensor) -> torch.Tensor:
        return torch.round(value)

    @staticmethod
    def backward(_context: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0]


class _FakeQuantize(torch.autograd.Function):
    """One scale for the tensor: divide, clamp, round and scale with one tensor in memory.

    With r the integer and m the mask, the gradient of the scale is the sum of g (r - m v) over all
    elements, as in LSQ. It is taken as the sum of g r s less that of g m x, over s.
    """

    @staticmethod
    def forward(
        context: Any, value: torch.Tensor, scale: torch.Tensor, low: float, high: float
    ) -> torch.Tensor:
        value = _lay_out_as(value, value)
        result = (value / scale).clamp_(low, high).round_().mul_(scale)
        context.save_for_backward(value, scale, result)
        context.limits = low, high
        return result

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        value, scale, result = context.saved_tensors
        low, high = context.limits
        step = float(scale)
        gradient = _lay_out_as(gradients[0], value)
        for_value = torch.ops.aten.hardtanh_backward(gradient, value, low * step, high * step)
        for_scale = None
        if context.needs_input_grad[1]:
            outer = torch.dot(_flatten(gradient), _flatten(result))
            inner = torch.dot(_flatten(for_value), _flatten(value))
            for_scale = ((outer - inner) / scale).reshape(scale.shape)
        return for_value, for_scale, None, None


def _has_channels_last(value: torch.Tensor) -> bool:
    is_image = value.dim() == 4 and not value.is_contiguous()
    return is_image and value.is_contiguous(memory_format=torch.channels_last)


def _lay_out_as(value: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """In memory in the order of another tensor of the same shape, if that is one of the usual."""
    if _has_channels_last(other):
        return value.contiguous(memory_format=torch.channels_last)
    return value.contiguous()


def _flatten(value: torch.Tensor) -> torch.Tensor:
    """All elements in the order in which they are in memory."""
    return (value.permute(0, 2, 3, 1) if _has_channels_last(value) else value).reshape(-1)


def round_through(value: torch.Tensor) -> torch.Tensor:
    """Nearest integers, ties to even; the gradient passes as if nothing was rounded.

    >>> round_through(torch.tensor([0.5, 1.5, -0.2])).tolist()
    [0.0, 2.0, -0.0]
    """
    result: torch.Tensor = _Round.apply(value)
    return result


def fake_quantize(
    value: torch.Tensor, scale: torch.Tensor, low: float, high: float
) -> torch.Tensor:
    """The real values that integers of one scale can stand for.

    Args:
        value: any shape.
        scale: one element.
        low: smallest integer less the zero point.
        high: largest integer less the zero point.

    >>> fake_quantize(torch.tensor([0.3, 9.0]), torch.tensor(0.25), 0, 15).tolist()
    [0.25, 3.75]
    """
    result: torch.Tensor = _FakeQuantize.apply(value, scale, low, high)
    return result
