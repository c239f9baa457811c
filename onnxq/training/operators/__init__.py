"""Every operator of the engine: one file a family, each a table, all of them in one registry."""

from __future__ import annotations

from collections.abc import Mapping

from onnxq.training.operators import (
    activations,
    arithmetic,
    conversion,
    convolution,
    logic,
    matrix,
    microsoft,
    movement,
    normalization,
    padding,
    pooling,
    quantization,
    recurrent,
    reduction,
    resize,
    shapes,
)
from onnxq.training.operators.call import Call, Operator, UnsupportedFormError

MICROSOFT = "com.microsoft"

OPERATORS: Mapping[tuple[str, str], Operator] = {
    **{
        ("", name): operator
        for family in (
            activations,
            arithmetic,
            conversion,
            convolution,
            logic,
            matrix,
            movement,
            normalization,
            padding,
            pooling,
            quantization,
            recurrent,
            reduction,
            resize,
            shapes,
        )
        for name, operator in family.OPERATORS.items()
    },
    **{
        (MICROSOFT, name): operator
        for family in (activations, normalization, microsoft)
        for name, operator in family.MICROSOFT_OPERATORS.items()
    },
}
"""Domain and type to function."""

__all__ = ["MICROSOFT", "OPERATORS", "Call", "Operator", "UnsupportedFormError"]
