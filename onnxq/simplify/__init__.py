"""Float graph -> equal float graph, so that weights lie open: one change a file, in this order."""

from __future__ import annotations

from collections.abc import Callable, Collection

import onnx_ir as ir

from onnxq.simplify.affine import fold_affine
from onnxq.simplify.constants import fold_constants
from onnxq.simplify.hard_swish import recognize_hard_swish
from onnxq.simplify.identities import remove_identities
from onnxq.simplify.initializers import close_initializers, lift_constants, share_small_constants
from onnxq.simplify.pads import fold_pads
from onnxq.simplify.scalars import fold_scalars
from onnxq.simplify.unused import remove_unused

Simplification = Callable[[ir.Model, Collection[ir.Node]], None]

SIMPLIFICATIONS: tuple[Simplification, ...] = (
    close_initializers,
    lift_constants,
    remove_identities,
    fold_constants,
    fold_pads,
    recognize_hard_swish,
    fold_affine,
    fold_scalars,
    share_small_constants,
    remove_unused,
)
"""Each takes a model that computes a function and leaves one that computes the same function, up
to the rounding of float32 where a fold multiplies weights."""


def simplify(model: ir.Model, kept: Collection[ir.Node] = ()) -> None:
    """Apply every simplification to ``model``, in place; the arithmetic of ``kept`` stays."""
    for simplification in SIMPLIFICATIONS:
        simplification(model, kept)
