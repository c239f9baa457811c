"""On which line each table and key of a TOML file stands, which no parser of Python says.

The text has been parsed already when this runs, so what it meets is valid: it only has to know
where strings, comments and brackets end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

Place = tuple[str | int, ...]
"""Keys, and positions in arrays of tables: ('model', 0, 'gates', 'min_sqnr')."""

_KEY = r"""(?:"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[A-Za-z0-9_-]+)"""
_DOTTED = rf"{_KEY}(?:[ \t]*\.[ \t]*{_KEY})*"
_ONE_KEY = re.compile(_KEY)
_HEADER = re.compile(rf"(\[\[?)[ \t]*({_DOTTED})[ \t]*\]\]?")
_ASSIGNMENT = re.compile(rf"({_DOTTED})[ \t]*=")
_GAP = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)+")
_IN_VALUE = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'  # up to two quotes may stand before the three that end it
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*"
    r"|[\[\]{}\n]"
    r"|[^\"'#\[\]{}\n]+",
    re.DOTALL,
)


class LineIndex:
    """Lines of tables and keys."""

    def __init__(self, text: str) -> None:
        """Find them all in ``text``, which is valid TOML."""
        self._lines: dict[Place, int] = {}
        self._counts: dict[Place, int] = {}
        self._scan(text)

    def find(self, *place: str | int) -> int:
        """The line of a key or table; where that has none of its own, of what it is in."""
        for end in range(len(place), 0, -1):
            if place[:end] in self._lines:
                return self._lines[place[:end]]
        return 1

    @property
    def lines(self) -> Mapping[Place, int]:
        """All of them."""
        return self._lines

    def _scan(self, text: str) -> None:
        table: Place = ()
        position = 0
        while position < len(text):
            gap = _GAP.match(text, position)
            if gap is not None:
                position = gap.end()
                continue
            line = text.count("\n", 0, position) + 1
            header = _HEADER.match(text, position)
            if header is not None:
                table = self._open_table(_split(header[2]), is_array=header[1] == "[[")
                self._lines.setdefault(table, line)
                position = header.end()
                continue
            assignment = _ASSIGNMENT.match(text, position)
            if assignment is None:
                return
            place = table
            for key in _split(assignment[1]):
                place = (*place, key)
                self._lines.setdefault(place, line)
            position = _skip_value(text, assignment.end())

    def _open_table(self, keys: tuple[str, ...], *, is_array: bool) -> Place:
        place: Place = ()
        for key in keys[:-1]:
            place = self._enter((*place, key))
        place = (*place, keys[-1])
        if not is_array:
            return place
        self._counts[place] = self._counts.get(place, 0) + 1
        return self._enter(place)

    def _enter(self, place: Place) -> Place:
        """The table itself, or the last one of an array of tables."""
        count = self._counts.get(place, 0)
        return (*place, count - 1) if count else place


def _split(dotted: str) -> tuple[str, ...]:
    """The keys in a dotted key; escapes in quoted ones stay as they are written.

    >>> _split('a . "b.c"')
    ('a', 'b.c')
    """
    return tuple(key[1:-1] if key[0] in "\"'" else key for key in _ONE_KEY.findall(dotted))


def _skip_value(text: str, position: int) -> int:
    """Where the value ends: at the first end of a line that is in no bracket and no string."""
    depth = 0
    while position < len(text):
        part = _IN_VALUE.match(text, position)
        if part is None:
            return len(text)
        token = part[0]
        if token == "\n" and depth == 0:
            return position
        depth += (token in ("[", "{")) - (token in ("]", "}"))
        position = part.end()
    return position
