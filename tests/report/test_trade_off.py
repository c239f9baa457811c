"""The trade-off curve as text."""

from __future__ import annotations

from dataclasses import replace

from onnxq.pipelines import CalibrationReport
from onnxq.pipelines.budget import TradeOff
from onnxq.report.calibration_text import print_trade_off
from tests.report.test_text import render

PLAIN = TradeOff((), 37.0, 1.0, 0.0, 1.0, False)
FLOAT = TradeOff(("stem [x]", "head"), 40.5, 0.998, 0.2, 0.62, True)
WIDE = replace(FLOAT, kept_float=("stem [x]",), wide=("head", "body"))
REPORT = CalibrationReport("samples", 8, 2, (), (), "minmax", (), (), "fast")


def _render(*curve: TradeOff) -> list[list[str]]:
    """The cells of each row."""
    lines = render(print_trade_off, replace(REPORT, curve=curve)).splitlines()
    rows = [line.split("  ") for line in lines if line.strip() and "─" not in line]
    return [[cell.strip() for cell in row if cell.strip()] for row in rows]


def test_without_16_bits_there_is_no_column_for_them() -> None:
    assert _render(PLAIN, FLOAT) == [
        ["blocks in float", "SQNR", "same argmax", "gain kept"],
        ["0", "37.00 dB", "100.00 %", "100 %"],
        ["2", "40.50 dB", "99.80 %", "62 %", "meets the budget: stem [x], head"],
    ]


def test_with_16_bits_each_row_says_which_blocks_have_them() -> None:
    both = "float stem [x]; 16 bits head, body"
    only = replace(WIDE, kept_float=(), is_met=False)
    assert _render(PLAIN, WIDE, only, FLOAT) == [
        ["blocks in float", "in 16 bits", "SQNR", "same argmax", "gain kept"],
        ["0", "0", "37.00 dB", "100.00 %", "100 %"],
        ["1", "2", "40.50 dB", "99.80 %", "62 %", f"meets the budget: {both}"],
        ["0", "2", "40.50 dB", "99.80 %", "62 %", "16 bits head, body"],
        ["2", "0", "40.50 dB", "99.80 %", "62 %", "meets the budget: stem [x], head"],
    ]


def test_plain_data() -> None:
    assert WIDE.to_json()["kept_float"] == ["stem [x]"]
    assert WIDE.to_json()["wide"] == ["head", "body"]
    assert FLOAT.to_json()["wide"] == []
