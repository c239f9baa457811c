"""Damage for files: at bytes, and at the fields of a model, which then still parses."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

import onnx
from google.protobuf.message import DecodeError

INTEGERS = (
    *(0, 1, 2, 3, -1, -2, 7, 10, 11, 16, 255, 1000, 100_000),
    *(2**31 - 1, 2**31, 2**62, 2**63 - 1, -(2**63)),
)
REALS = (0.0, -1.0, math.nan, math.inf, 1e30, -1e-30)
OPERATORS = (
    *("Add", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "Conv", "ConvTranspose"),
    *("Div", "Einsum", "Flatten", "GRU", "Gather", "Gemm", "HardSigmoid", "Identity", "If"),
    *("LSTM", "Loop", "MatMul", "MaxPool", "Mul", "Pad", "QuantizeLinear", "Relu", "Reshape"),
    *("Resize", "Scan", "Shape", "Slice", "Split", "Squeeze", "Sub", "Transpose", "Unsqueeze"),
)
ATTEMPTS = 50
"""To find damage at bytes that protobuf does not notice."""


def damage_bytes(rng: random.Random, content: bytes) -> bytes:
    """Some bytes flipped, replaced, inserted, removed, repeated, or the end cut off."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not data:
            break
        at = rng.randrange(len(data))
        kind = rng.randrange(7)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.choice((1, 1, 2, 8)))
        elif kind == 4:
            del data[at : at + rng.choice((1, 1, 2, 8))]
        elif kind == 5:
            source = rng.randrange(len(data))
            data[at:at] = data[source : source + rng.choice((1, 4, 16))]
        else:
            data[at : at + 8] = b"\xff" * rng.choice((1, 4, 8))
    return bytes(data)


def damage_parsable(rng: random.Random, content: bytes) -> bytes:
    """Damage at bytes that protobuf still parses, where such is found."""
    damaged = content
    for _ in range(ATTEMPTS):
        damaged = damage_bytes(rng, content)
        try:
            onnx.ModelProto.FromString(damaged)
        except DecodeError:
            continue
        break
    return damaged


def damage_fields(rng: random.Random, content: bytes) -> bytes:
    """Some fields of the message removed, repeated, exchanged, or given another value."""
    model = onnx.ModelProto.FromString(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        message, field, index = rng.choice(list(_iterate_fields(model)))
        try:
            if index is None and (field.is_repeated or field.type == field.TYPE_MESSAGE):
                _damage_structure(rng, message, field)
            else:
                _damage_value(rng, model, message, field, index)
        except (TypeError, ValueError):
            continue  # a value that the field cannot hold
    return model.SerializeToString()


def _iterate_fields(message: Any) -> Iterator[tuple[Any, Any, int | None]]:
    """Every field that is set, as (message, field, index into it)."""
    for field, value in message.ListFields():
        yield message, field, None
        if field.type == field.TYPE_MESSAGE:
            for part in value if field.is_repeated else [value]:
                yield from _iterate_fields(part)
        elif field.is_repeated:
            yield from ((message, field, index) for index in range(len(value)))


def _damage_structure(rng: random.Random, message: Any, field: Any) -> None:
    value = getattr(message, field.name)
    kind = rng.randrange(4)
    if kind == 0 or not field.is_repeated:
        message.ClearField(field.name)
        return
    parts = list(value)
    index, other = rng.randrange(len(parts)), rng.randrange(len(parts))
    if kind == 1:
        del parts[index]
    elif kind == 2:
        parts.append(parts[index])
    else:
        parts[index], parts[other] = parts[other], parts[index]
    if field.type == field.TYPE_MESSAGE:
        copies = [type(part).FromString(part.SerializeToString()) for part in parts]
        message.ClearField(field.name)
        value.extend(copies)
    else:
        value[:] = parts


def _damage_value(
    rng: random.Random, model: onnx.ModelProto, message: Any, field: Any, index: int | None
) -> None:
    value = getattr(message, field.name)
    old = value if index is None else value[index]
    new = _choose_value(rng, model, field, old)
    if index is None:
        setattr(message, field.name, new)
    else:
        value[index] = new


def _choose_value(rng: random.Random, model: onnx.ModelProto, field: Any, old: Any) -> Any:
    if field.type == field.TYPE_STRING:
        return rng.choice(
            [*OPERATORS] if field.name == "op_type" else [*_find_texts(model), "", "z"]
        )
    if field.type == field.TYPE_BYTES:
        return rng.choice((b"", old[:-1], old + b"x", old * 2, damage_bytes(rng, old)))
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return rng.choice(REALS)
    if field.type == field.TYPE_ENUM:
        return rng.choice(sorted(field.enum_type.values_by_number))
    return rng.choice(INTEGERS)


def _find_texts(model: onnx.ModelProto) -> Iterator[str]:
    for message, field, index in _iterate_fields(model):
        if field.type == field.TYPE_STRING and (index is not None or not field.is_repeated):
            value = getattr(message, field.name)
            yield value if index is None else value[index]
