"""Whether a model that training is to start from is a quantized form of the float model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from onnxq.errors import UnsupportedModelError
from onnxq.graph.constants import constant_tensor, dimensions, iterate_constants
from onnxq.rules.quantized import find_quantization
from onnxq.training.weights import iterate_weights

_ADVICE = "name one that was made of it with --init, or leave that out"


def refuse_stranger(start: ir.Model, path: Path, float_model: ir.Model, source: Path) -> None:
    """Refuse a start that is a form of another model, as far as names and shapes tell.

    Args:
        start: model of ``--init``.
        path: of its file.
        float_model: simplified, so that its weights lie open.
        source: of its file.

    Raises:
        UnsupportedModelError: it is not quantized, or inputs, outputs or weights differ.
    """
    if find_quantization(start) is None:
        raise UnsupportedModelError(
            f"{path}: is not quantized, and training starts there; {_ADVICE}"
        )
    for reason in _find_differences(start, float_model):
        raise UnsupportedModelError(
            f"{path}: is no quantized form of {source}: {reason}; {_ADVICE}"
        )


def _find_differences(start: ir.Model, float_model: ir.Model) -> Iterator[str]:
    for what, own, expected in (
        ("input", _list_inputs(start), _list_inputs(float_model)),
        ("output", start.graph.outputs, float_model.graph.outputs),
    ):
        yield from _compare_values(what, own, expected)
    yield from _compare_weights(start, float_model)


def _list_inputs(model: ir.Model) -> list[ir.Value]:
    return [one for one in model.graph.inputs if one.name not in model.graph.initializers]


def _compare_values(
    what: str, own: Sequence[ir.Value], expected: Sequence[ir.Value]
) -> Iterator[str]:
    names, wanted = ([one.name or "" for one in values] for values in (own, expected))
    if set(names) != set(wanted):
        yield f"its {what}s are {', '.join(names)}, and there they are {', '.join(wanted)}"
        return
    by_name = {one.name: one for one in own}
    for other in expected:
        one = by_name[other.name]
        if one.dtype != other.dtype or not _may_be_same(one.shape, other.shape):
            yield f"{what} '{one.name}' is {_describe(one)}, and there it is {_describe(other)}"


def _may_be_same(one: ir.Shape | None, other: ir.Shape | None) -> bool:
    """Sizes that are free on one side may be anything."""
    if one is None or other is None:
        return True
    return len(one) == len(other) and all(
        a == b or not (isinstance(a, int) and isinstance(b, int))
        for a, b in zip(one, other, strict=True)
    )


def _compare_weights(start: ir.Model, float_model: ir.Model) -> Iterator[str]:
    floats = {
        constant.value.name or "": dimensions(constant.tensor)
        for constant in iterate_constants(float_model)
    }
    layouts = {_forget_layout(one) for one in floats.values()}
    own = _read_shapes(start)
    for name, shape in own.items():
        # As onnxq names integers. Others may have another layout of the same elements.
        expected = floats.get(name.rpartition("_")[0])
        if expected is not None and _forget_layout(expected) != _forget_layout(shape):
            yield (
                f"its weight '{name}' is {_multiply(shape)}, and the one there is "
                f"{_multiply(expected)}"
            )
    if own and not any(_forget_layout(shape) in layouts for shape in own.values()):
        yield f"none of its {len(own)} weights has the shape of one there"


def _read_shapes(start: ir.Model) -> Mapping[str, tuple[int, ...]]:
    tensors = {
        use.elements.name or "": constant_tensor(use.elements) for use in iterate_weights(start)
    }
    return {name: dimensions(tensor) for name, tensor in tensors.items() if tensor is not None}


def _forget_layout(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(size for size in shape if size != 1))


def _describe(value: ir.Value) -> str:
    kind = "of an unknown type" if value.dtype is None else value.dtype.name.lower()
    return f"{kind}{'' if value.shape is None else value.shape}"


def _multiply(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
