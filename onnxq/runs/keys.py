"""The keys of a pipeline file. Each is named as its option on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from onnxq.errors import UsageError


class Kind(Enum):
    """What a value may be; the text says it to a person."""

    TEXT = "a text in quotes"
    FLAG = "true or false"
    INTEGER = "a whole number"
    COUNT = "a whole number of 1 or more"
    NUMBER = "a number"
    TEXTS = "a text, or a list of texts"
    NUMBERS = "a number, or a list of numbers"
    SIZE = 'a size: 224, "224x320" or [224, 320] (height, width)'
    TABLE = "a table"


class Use(Enum):
    """What has to be there for a key to mean anything; the text says it to a person."""

    ALWAYS = ""
    SAMPLES = "calib, reader or eval"
    EVALUATION = "eval or eval_reader"


DYNAMIC = "dynamic"
STATIC = "static"
MODES = (DYNAMIC, STATIC)

ROUNDING_KEYS = ("calib", "reader", "samples")
"""Dynamic models use them for 4-bit weights only."""


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        name: with underscores; dashes mean the same.
        kind: of its value.
        modes: in which it means something.
        use: what else has to be there.
        is_own: whether it stands in [[model]] only, not in [defaults].
    """

    name: str
    kind: Kind
    modes: tuple[str, ...] = MODES
    use: Use = Use.ALWAYS
    is_own: bool = False


_KEYS = (
    Key("name", Kind.TEXT, is_own=True),
    Key("source", Kind.TEXT, is_own=True),
    Key("output", Kind.TEXT, is_own=True),
    Key("mode", Kind.TEXT),
    Key("target", Kind.TEXT),
    Key("weights", Kind.TEXT),
    Key("per_channel", Kind.FLAG),
    Key("symmetric", Kind.FLAG),
    Key("reduce_range", Kind.FLAG),
    Key("storage", Kind.FLAG),
    Key("include", Kind.TEXTS),
    Key("exclude", Kind.TEXTS),
    Key("op_types", Kind.TEXTS),
    Key("keep_metadata", Kind.FLAG),
    Key("block_size", Kind.INTEGER, (DYNAMIC,)),
    Key("calib", Kind.TEXT),
    Key("reader", Kind.TEXT),
    Key("samples", Kind.COUNT, use=Use.SAMPLES),
    Key("seed", Kind.INTEGER, use=Use.SAMPLES),
    Key("skip_bad", Kind.FLAG, use=Use.SAMPLES),
    Key("size", Kind.SIZE, use=Use.SAMPLES),
    Key("mean", Kind.NUMBERS, use=Use.SAMPLES),
    Key("std", Kind.NUMBERS, use=Use.SAMPLES),
    Key("scale", Kind.NUMBER, use=Use.SAMPLES),
    Key("layout", Kind.TEXT, use=Use.SAMPLES),
    Key("channels", Kind.TEXT, use=Use.SAMPLES),
    Key("accuracy", Kind.TEXT, (STATIC,)),
    Key("budget", Kind.TABLE, (STATIC,)),
    Key("method", Kind.TEXT, (STATIC,)),
    Key("percentile", Kind.NUMBER, (STATIC,)),
    Key("ranges", Kind.TEXT, (STATIC,)),
    Key("save_ranges", Kind.TEXT, (STATIC,), is_own=True),
    Key("activations", Kind.TEXT, (STATIC,)),
    Key("symmetric_activations", Kind.FLAG, (STATIC,)),
    Key("dynamic_matmul", Kind.FLAG, (STATIC,)),
    Key("format", Kind.TEXT, (STATIC,)),
    Key("eval", Kind.TEXT),
    Key("eval_reader", Kind.TEXT),
    Key("eval_samples", Kind.COUNT, use=Use.EVALUATION),
    Key("labels", Kind.TEXT, use=Use.EVALUATION),
    Key("metric", Kind.TEXT, use=Use.EVALUATION),
    Key("layers", Kind.FLAG, use=Use.EVALUATION),
    Key("latency", Kind.FLAG, use=Use.EVALUATION),
    Key("threads", Kind.COUNT, use=Use.EVALUATION),
    Key("rounds", Kind.COUNT, use=Use.EVALUATION),
    Key("report", Kind.TEXTS, use=Use.EVALUATION, is_own=True),
    Key("gates", Kind.TABLE, use=Use.EVALUATION),
)

BUDGET_KEYS: Mapping[str, Kind] = {
    "min_sqnr": Kind.NUMBER,
    "min_agreement": Kind.NUMBER,
    "max_accuracy_drop": Kind.NUMBER,
    "labels": Kind.TEXT,
    "time_limit": Kind.NUMBER,
}
"""Of the table ``budget``, as the options of ``onnxq static``; gates have a table of their own."""

KEYS: Mapping[str, Key] = {key.name: key for key in _KEYS}
"""Every key by its name."""


def read_value(kind: Kind, value: Any) -> Any:
    """A value as the program takes it.

    Raises:
        UsageError: it is of another kind.

    >>> read_value(Kind.TEXTS, "Conv, Gemm"), read_value(Kind.SIZE, "224x320")
    (('Conv, Gemm',), (224, 320))
    """
    if kind is Kind.SIZE:
        return _read_size(value)
    if kind in (Kind.TEXTS, Kind.NUMBERS):
        of = Kind.TEXT if kind is Kind.TEXTS else Kind.NUMBER
        values = value if isinstance(value, list) else [value]
        if all(_is(of, one) for one in values):
            return tuple(float(one) if of is Kind.NUMBER else one for one in values)
    elif _is(kind, value):
        return float(value) if kind is Kind.NUMBER else value
    raise _refuse(kind, value)


def _is(kind: Kind, value: Any) -> bool:
    if kind is Kind.NUMBER:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind in (Kind.INTEGER, Kind.COUNT):
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and (kind is Kind.INTEGER or value >= 1)
    if kind is Kind.TEXT:
        # An empty one would name the folder itself, and no file has a zero byte in its name.
        return isinstance(value, str) and value != "" and "\0" not in value
    return isinstance(value, bool if kind is Kind.FLAG else dict)


def _read_size(value: Any) -> tuple[int, int]:
    parts = value.lower().split("x") if isinstance(value, str) else value
    parts = parts if isinstance(parts, list) else [parts]
    try:
        numbers = [int(part) if isinstance(part, str) else part for part in parts]
    except ValueError:
        raise _refuse(Kind.SIZE, value) from None
    if len(numbers) not in (1, 2) or not all(_is(Kind.INTEGER, one) for one in numbers):
        raise _refuse(Kind.SIZE, value)
    return numbers[0], numbers[-1]


def _refuse(kind: Kind, value: Any) -> UsageError:
    shown = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return UsageError(f"{shown}: give {kind.value}")
