"""What samples come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from onnxq.runtime.session import InputSignature
from onnxq.samples.fitting import Arrays


@dataclass(frozen=True)
class Entry:
    """A sample that is not loaded yet.

    Attributes:
        name: within its source.
        where: how messages call it.
        load: its arrays; a DataError means that this sample is bad, not the source.
    """

    name: str
    where: str
    load: Callable[[], Arrays]


class Source(Protocol):
    """A folder, or a function of the user."""

    @property
    def label(self) -> str:
        """How reports call it."""

    @property
    def count(self) -> int | None:
        """How many samples it has; None where that is not known."""

    def describe(self, inputs: Sequence[InputSignature]) -> tuple[str, ...]:
        """What a user should know of how the samples become ``inputs``."""

    def entries(self, inputs: Sequence[InputSignature]) -> Iterator[Entry]:
        """The samples; every call starts again."""

    def fingerprint(self) -> str:
        """Changes when the samples do."""
