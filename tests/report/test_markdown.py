"""Comparisons as Markdown."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from onnxq.report.markdown import escape_name, escape_text, write_markdown
from tests.report.test_comparison_text import MET, make_layers, make_report

NASTY = ["a|b", "a`b", "a\\|b", "<script>", "a\nb", "|", "``|``", "*x*", "", " ", "a\\"]


def read_tables(text: str) -> list[list[list[str]]]:
    """The cells of each table, split as GitHub does: at pipes that have no backslash."""
    tables: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            tables[-1].append([cell.strip() for cell in cells])
        elif tables[-1]:
            tables.append([])
    return [table for table in tables if table]


def test_tables_are_rectangular_and_hold_the_figures() -> None:
    text = write_markdown([make_report()])
    tables = read_tables(text)
    assert [table[0] for table in tables] == [
        ["", "gate", "limit", "reached", "from"],
        ["output", "SQNR", "cosine", "largest error", "same argmax", "equal"],
        ["metric", "float", "quantized", "drop", "samples"],
        ["", "float", "quantized", "change"],
        ["optimisation", "integer nodes", "float nodes", "weights expanded", "SQNR"],
        ["layer", "operator", "by itself", "accumulated"],
    ]
    for table in tables:
        assert {len(row) for row in table} == {len(table[0])}
    assert tables[0][2:] == [
        ["✅ PASS", "`min-sqnr`", "35 dB", "37.12 dB", "output 'logits'"],
        ["❌ FAIL", "`min-speedup`", "1.5x", "1.25x", "1 thread"],
    ]
    assert tables[-1][2] == ["`/block0/Conv`", "`Conv`", "20.00 dB", "15.00 dB"]
    assert text.startswith("## ❌ FAIL: `cnn.int8.onnx`\n")


@pytest.mark.parametrize("name", NASTY)
def test_a_name_is_one_cell_and_no_markup(name: str) -> None:
    layers = (replace(make_layers(1)[0], node=name),)
    text = write_markdown([replace(make_report(), layers=layers)])
    row = read_tables(text)[-1][2]
    assert len(row) == 4
    assert row[0] == escape_name(name)
    assert "<script>" not in re.sub("`[^`]*`", "", text)


@pytest.mark.parametrize("name", NASTY)
def test_a_name_can_be_read_back(name: str) -> None:
    escaped = escape_name(name)
    if escaped.startswith("`"):
        assert escaped.count("`") == 2
        shown = escaped[1:-1]
    else:
        inner = escaped.removeprefix("<code>").removesuffix("</code>")
        assert re.fullmatch(r"([A-Za-z0-9 ]|&#\d+;)*", inner)
        shown = unescape(inner)
    assert shown == " ".join(name.split())


def test_text_is_no_markup() -> None:
    gate = replace(MET, detail="output '<img src=x> | [a](b) `c` *d*'\n# e")
    text = write_markdown([replace(make_report(), gates=(gate,), verdict=("<b>",))])
    row = read_tables(text)[0][2]
    assert len(row) == 5
    assert not re.search(r"[<`*\[\]]", row[-1])
    assert unescape(row[-1]) == "output '<img src=x> | [a](b) `c` *d*' # e"
    assert "- &#60;b&#62;\n" in text
    assert escape_text("a\n\n- b") == "a - b"


def test_only_the_worst_layers_are_written() -> None:
    text = write_markdown([replace(make_report(), layers=make_layers(30))])
    assert "worst 20 of 30" in text
    assert "`/block19/Conv`" in text
    assert "`/block20/Conv`" not in text


def test_several_models_begin_with_a_table_of_all() -> None:
    passed = replace(make_report(quantized_path=Path("other.onnx")), gates=(MET,), latency=None)
    none = replace(passed, gates=())
    text = write_markdown([make_report(), passed, none])
    assert read_tables(text)[0][2:] == [
        ["`cnn.int8.onnx`", "❌ FAIL", "4.00x smaller", "1.25x faster"],
        ["`other.onnx`", "✅ PASS", "4.00x smaller", ""],
        ["`other.onnx`", "no gates", "4.00x smaller", ""],
    ]
    assert text.count("\n## ") == 3
