"""Comparisons as JUnit XML."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from onnxq.comparison.results import ComparisonReport
from onnxq.report.junit import RUNS, write_junit
from tests.report.test_comparison_text import MET, MISSED, make_report


def parse(*reports: ComparisonReport) -> ElementTree.Element:
    return ElementTree.fromstring(write_junit(reports).encode())


def test_a_gate_is_a_test() -> None:
    root = parse(make_report())
    assert root.tag == "testsuites"
    assert {key: root.get(key) for key in ("tests", "failures", "errors")} == {
        "tests": "2",
        "failures": "1",
        "errors": "0",
    }
    (suite,) = root
    assert (suite.get("name"), suite.get("tests"), suite.get("failures")) == (
        *("cnn.int8.onnx", "2", "1"),
    )
    met, missed = suite.findall("testcase")
    assert (met.get("name"), met.get("classname"), list(met)) == ("min-sqnr", "cnn_int8", [])
    (failure,) = missed
    line = "FAIL min-speedup 1.5x: 1.25x (1 thread)"
    assert (failure.tag, failure.get("message"), failure.text) == ("failure", line, line)
    assert suite.findtext("system-out") == (
        "1.25x faster here\n4.0x smaller\nin float with full optimisation: /classifier/Gemm\n"
        "note: 2 bad samples skipped"
    )


def test_a_model_without_gates_has_one_test() -> None:
    root = parse(replace(make_report(), gates=()))
    assert (root.get("tests"), root.get("failures")) == ("1", "0")
    assert [case.get("name") for case in root.iter("testcase")] == [RUNS]


def test_several_models_are_several_suites() -> None:
    root = parse(make_report(), replace(make_report(), quantized_path=Path("b.onnx"), gates=(MET,)))
    assert [suite.get("name") for suite in root] == ["cnn.int8.onnx", "b.onnx"]
    assert (root.get("tests"), root.get("failures")) == ("3", "1")


def test_no_models_are_no_suites() -> None:
    assert (parse().get("tests"), len(parse())) == ("0", 0)


def test_what_xml_cannot_hold_is_removed() -> None:
    name = 'a<b>&"\x00\x08\x1b\ud800\uffff\U0001f600'
    gate = replace(MISSED, detail=name)
    report = replace(
        make_report(), quantized_path=Path(f"{name[:-2]}.onnx".replace("\x00", "")), gates=(gate,)
    )
    root = parse(replace(report, verdict=(name,)))
    assert root[0].get("name") == 'a<b>&".onnx'
    (failure,) = root.iter("failure")
    assert (failure.get("message") or "").endswith('(a<b>&"\U0001f600)')
    assert (root[0].findtext("system-out") or "").startswith('a<b>&"\U0001f600\n')
