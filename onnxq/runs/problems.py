"""What is wrong with a pipeline file, all of it at once, each thing with its line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from onnxq.errors import UsageError


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake.

    Attributes:
        line: where it is, from 1.
        message: what is wrong and what to do about it.
    """

    line: int
    message: str


class PipelineFileError(UsageError):
    """A pipeline file with mistakes.

    Attributes:
        lines: one for each mistake, as 'onnxq.toml:12: ...', in the order of the file.
    """

    def __init__(self, path: Path, problems: Iterable[Problem]) -> None:
        self.lines = tuple(
            f"{path}:{one.line}: {' '.join(one.message.split())}" for one in sorted(set(problems))
        )
        super().__init__("; ".join(self.lines))


@dataclass
class Problems:
    """Collects mistakes while a file is read.

    Attributes:
        found: so far.
    """

    found: list[Problem] = field(default_factory=list)

    def add(self, line: int, message: str) -> None:
        """Note a mistake and go on."""
        self.found.append(Problem(line, message))
