"""The values of one model, from its own table and from [defaults], each with its line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from onnxq.comparison.gates import GATE_RULES
from onnxq.errors import OnnxqError, UsageError
from onnxq.runs.keys import BUDGET_KEYS, KEYS, Kind, Use, read_value
from onnxq.runs.problems import Problems
from onnxq.runs.toml_lines import LineIndex, Place
from onnxq.schemes import WeightType

T = TypeVar("T")

_OPTION = re.compile(r"--([a-z][a-z-]*)")
_NEGATIVES = {"per_tensor": "per_channel", "asymmetric": "symmetric", "no_storage": "storage"}


@dataclass(frozen=True)
class Setting:
    """One value.

    Attributes:
        value: of the kind of its key.
        line: where it stands.
    """

    value: Any
    line: int


def read_settings(
    table: Mapping[str, Any], place: Place, lines: LineIndex, problems: Problems
) -> dict[str, Setting]:
    """The values in a table by the names of their keys; what is wrong is noted and left out."""
    found: dict[str, Setting] = {}
    for written, value in table.items():
        name, line = written.replace("-", "_"), lines.find(*place, written)
        key = KEYS.get(name)
        if key is None:
            problems.add(line, _explain_unknown(written))
        elif name in found:
            problems.add(line, f"{written}: stands here twice, with a dash and an underscore")
        elif key.is_own and place[0] == "defaults":
            problems.add(line, f"{written}: belongs to one model; move it into [[model]]")
        else:
            try:
                read = read_value(key.kind, value)
            except UsageError as error:
                problems.add(line, f"{written} = {error}")
                continue
            if key.kind is Kind.TABLE:
                read = _read_table(name, read, (*place, written), lines, problems)
            found[name] = Setting(read, line)
    return found


_TABLES: Mapping[str, tuple[str, Mapping[str, Kind]]] = {
    "gates": ("gate", {name.replace("-", "_"): Kind.NUMBER for name in GATE_RULES}),
    "budget": ("key of a budget", BUDGET_KEYS),
}
"""What is in each table, by its key: what one entry is called, and the kinds of their values."""


def _read_table(
    key: str, table: Mapping[str, Any], place: Place, lines: LineIndex, problems: Problems
) -> dict[str, Setting]:
    """The values in a table by their names; what is wrong is noted and left out."""
    kind_of_entry, kinds = _TABLES[key]
    found: dict[str, Setting] = {}
    for written, value in table.items():
        name, line = written.replace("-", "_"), lines.find(*place, written)
        if name not in kinds:
            problems.add(line, f"{written}: no such {kind_of_entry}; there are {', '.join(kinds)}")
        elif name in found:
            problems.add(line, f"{written}: stands here twice, with a dash and an underscore")
        else:
            try:
                found[name] = Setting(read_value(kinds[name], value), line)
            except UsageError as error:
                problems.add(line, f"{written} = {error}")
    return found


def takes_samples(own: Mapping[str, Setting], common: Mapping[str, Setting]) -> bool:
    """Whether a dynamic model has weights that are rounded with samples."""
    weights = own.get("weights") or common.get("weights")
    known = {one.value: one for one in WeightType}
    return weights is not None and weights.value in known and known[weights.value].bits == 4


def _explain_unknown(written: str) -> str:
    close = difflib.get_close_matches(written.replace("-", "_"), KEYS, n=1)
    return f"{written}: no such key" + (f"; did you mean {close[0]}?" if close else "")


@dataclass(frozen=True)
class Settings:
    """All that is said about one model.

    Attributes:
        line: of its table.
        own: from its table.
        defaults: from [defaults]: those that mean something for this model.
        problems: collects mistakes.
    """

    line: int
    own: Mapping[str, Setting]
    defaults: Mapping[str, Setting]
    problems: Problems

    def get(self, name: str, default: T) -> T:
        """The value of a key."""
        setting = self.own.get(name) or self.defaults.get(name)
        return default if setting is None else cast(T, setting.value)

    def merge_table(self, name: str) -> dict[str, Setting]:
        """The values of a table; those of the model come before those of the defaults."""
        merged: dict[str, Setting] = {}
        for level in (self.defaults, self.own):
            if name in level:
                merged.update(level[name].value)
        return merged

    def has(self, *names: str) -> bool:
        """Whether one of the keys is there."""
        return any(name in self.own or name in self.defaults for name in names)

    def find_line(self, *names: str) -> int:
        """The line of the first of the keys that is there; of the table if none is."""
        for name in names:
            setting = self.own.get(name) or self.defaults.get(name)
            if setting is not None:
                return setting.line
        return self.line

    def note(self, message: str, *names: str) -> None:
        """Note a mistake at the line of the first of the keys that is there."""
        self.problems.add(self.find_line(*names), message)

    @contextmanager
    def blame(self, *names: str) -> Iterator[None]:
        """Note what is refused inside, at the line of the option that the message names.

        Args:
            names: keys to blame where it names none.
        """
        try:
            yield
        except OnnxqError as error:
            options = [one.replace("-", "_") for one in _OPTION.findall(str(error))]
            self.note(str(error), *(_NEGATIVES.get(one, one) for one in options), *names)

    @contextmanager
    def blame_line(self, line: int) -> Iterator[None]:
        """Note what is refused inside, at a line that is known."""
        try:
            yield
        except UsageError as error:
            self.problems.add(line, str(error))

    def check_use(self, mode: str) -> None:
        """Note keys of the model itself that mean nothing for it."""
        for name, setting in self.own.items():
            key = KEYS[name]
            if mode not in key.modes:
                self.problems.add(setting.line, f"{name}: is for {key.modes[0]}; leave it out")
            elif not self._is_used(key.use):
                self.problems.add(setting.line, f"{name}: needs {key.use.value}")

    def _is_used(self, use: Use) -> bool:
        if use is Use.EVALUATION:
            return self.has("eval", "eval_reader")
        if use is Use.SAMPLES:
            return self.has("calib", "reader", "eval", "eval_reader")
        return True
