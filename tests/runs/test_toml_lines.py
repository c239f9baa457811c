from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.runs.toml_lines import LineIndex

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TEXT = '''# a comment with [brackets] and "quotes
title = "x" # [[model]]
[defaults]
weights = "int8"
'quoted.key' = 1
a.b . "c" = 2

[[model]]
source = """
[not.a.table]
also = "not a key"
"""
include = [
  "one # no comment", # a comment ]
  'two',
  [ { deep = "]" } ],
]
after = 1
[model.gates]
min_sqnr = 3

  [[model]]
  mode = "static"
  text = \'\'\'
[[model]]\'\'\'
  gates = { min_sqnr = 4 }
  quotes = """a ""\\" b"""""
  last = 1979-05-27
'''


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("title",), 2),
        (("defaults",), 3),
        (("defaults", "weights"), 4),
        (("defaults", "quoted.key"), 5),
        (("defaults", "a"), 6),
        (("defaults", "a", "b", "c"), 6),
        (("model", 0), 8),
        (("model", 0, "source"), 9),
        (("model", 0, "include"), 13),
        (("model", 0, "after"), 18),
        (("model", 0, "gates"), 19),
        (("model", 0, "gates", "min_sqnr"), 20),
        (("model", 1), 22),
        (("model", 1, "mode"), 23),
        (("model", 1, "gates", "min_sqnr"), 26),
        (("model", 1, "quotes"), 27),
        (("model", 1, "last"), 28),
        (("model", 0, "missing"), 8),
        (("nowhere",), 1),
    ],
    ids=str,
)
def test_line_of(place: tuple[str | int, ...], line: int) -> None:
    tomllib.loads(TEXT)
    assert LineIndex(TEXT).find(*place) == line


def test_array_of_tables_written_in_one_line() -> None:
    index = LineIndex('x = 1\nmodel = [{ source = "a" }, { source = "b" }]\n')
    assert index.find("model", 1, "source") == 2


def test_sub_array_of_tables() -> None:
    text = "[[a]]\n[[a.b]]\nx = 1\n[[a.b]]\nx = 2\n[[a]]\n[[a.b]]\nx = 3\n"
    index = LineIndex(text)
    found = [index.find("a", *place, "x") for place in ((0, "b", 0), (0, "b", 1), (1, "b", 0))]
    assert found == [3, 5, 8]


def places(data: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    for key, value in data.items():
        yield (*place, key)
        if isinstance(value, dict):
            yield from places(value, (*place, key))


VALUES = st.one_of(
    st.integers(-5, 5).map(str),
    st.text("ab#[]={}'\n.", max_size=6).map(lambda one: f'"""{one}"""'),
    st.text('ab#[]={}".', max_size=6).map(lambda one: f"'{one}'"),
    st.lists(st.text("a#[]={}'\n", max_size=4).map(lambda one: f'"""{one}"""'), max_size=3).map(
        lambda many: "[\n" + ",\n # ] comment\n".join(many) + "\n]"
    ),
)


@given(st.lists(st.tuples(st.booleans(), VALUES, st.sampled_from(["", " # = [x", "\n\n"]))))
def test_every_key_is_found_where_it_was_written(parts: list[tuple[bool, str, str]]) -> None:
    text, table = "", ""
    expected: dict[tuple[str | int, ...], int] = {}
    for number, (opens, value, gap) in enumerate(parts):
        if opens:
            table = f"t{number}"
            expected[(table,)] = text.count("\n") + 1
            text += f"[{table}]{gap}\n"
        key = f"k{number}"
        expected[(table, key) if table else (key,)] = text.count("\n") + 1
        text += f"{key} = {value}{gap}\n"
    index = LineIndex(text)
    assert {place: index.find(*place) for place in places(tomllib.loads(text))} == expected
