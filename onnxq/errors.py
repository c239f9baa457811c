"""Every error that onnxq raises on purpose, and the exit code of each.

    OnnxqError                     3
     +-- UsageError                2   the call itself is wrong
     |    +-- SelectorError        2   a glob or an operator name that matches nothing
     +-- ModelError                3   the model cannot be quantized
     |    +-- InvalidModelError    3   missing, unreadable, or not an ONNX model
     |    +-- ExternalDataError    3   weights outside the file are missing or out of bounds
     |    +-- AlreadyQuantizedError 3  a second layer of quantization is refused
     |    +-- UnsupportedModelError 3  a valid model that onnxq cannot take
     |    +-- NothingToQuantizeError 1  onnxq ran, and the answer is no
     +-- BudgetError               1   nothing faster than float is as accurate as was asked for
     +-- DataError                 3   samples that do not fit the model
     +-- OutputError               3   the result cannot be written
     +-- VerificationError         3   the result does not load or run where the original does
     +-- ExecutionError            3   onnxruntime could not load or run a model

Exceptions of other libraries never leave onnxq: each is mapped to one of these where it arises.
A message says what is wrong, where (file, node or tensor), and what to do about it, in one line.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_DONE = 0
EXIT_NO = 1
EXIT_USAGE = 2
EXIT_ERROR = 3
EXIT_INTERRUPTED = 130


def make_printable(text: str) -> str:
    r"""``text`` in one line, with escapes for what a terminal would obey: names are of others.

    >>> make_printable("a\nname\x1b[2J")
    'a name\\x1b[2J'
    """
    line = " ".join(text.split())
    if line.isprintable():
        return line
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in line
    )


class OnnxqError(Exception):
    """Base of every deliberate error; its text is one line meant for a person."""

    exit_code: ClassVar[int] = EXIT_ERROR

    def __init__(self, message: str) -> None:
        super().__init__(make_printable(message))


class UsageError(OnnxqError):
    """Options that contradict each other or do not exist."""

    exit_code = EXIT_USAGE


class SelectorError(UsageError):
    """A glob on node names, or an operator type, that matches nothing in the model."""


class ModelError(OnnxqError):
    """The model is the reason."""


class InvalidModelError(ModelError):
    """The file is missing, unreadable, truncated, or not an ONNX model."""


class ExternalDataError(ModelError):
    """External weights are missing, too short, or outside the folder of the model."""


class AlreadyQuantizedError(ModelError):
    """The model holds quantized weights or quantized arithmetic already."""


class UnsupportedModelError(ModelError):
    """A valid model with something in it that onnxq cannot handle."""


class NothingToQuantizeError(ModelError):
    """No tensor of the model can be stored smaller; the reasons are in the message."""

    exit_code = EXIT_NO


class BudgetError(OnnxqError):
    """No mix of integers and floats is as accurate as was asked for; the best is in the message."""

    exit_code = EXIT_NO


class DataError(OnnxqError):
    """Samples are missing, unreadable, or do not fit the inputs of the model."""


class OutputError(OnnxqError):
    """The output exists already, is the input, or cannot be written."""


class VerificationError(OnnxqError):
    """The quantized model fails where the float model works."""


class ExecutionError(OnnxqError):
    """onnxruntime could not load or run a model.

    Attributes:
        reason: what onnxruntime says, without the path of the model.
    """

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason
