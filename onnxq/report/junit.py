"""A comparison as JUnit XML, which GitHub, GitLab and Jenkins show as tests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from onnxq.comparison.results import ComparisonReport
from onnxq.report.comparison_text import describe_gate, describe_remarks

# What XML 1.0 cannot hold, not even as an entity.
_INVALID = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

RUNS = "loads and runs"
"""The only test of a model without gates."""


def write_junit(reports: Sequence[ComparisonReport]) -> str:
    """One test suite a model, one test a gate."""
    root = ElementTree.Element("testsuites", {"name": "onnxq compare"})
    for report in reports:
        root.append(_make_suite(report))
    root.set("tests", str(sum(len(suite.findall("testcase")) for suite in root)))
    root.set("failures", str(len(root.findall(".//failure"))))
    root.set("errors", "0")
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + (
        ElementTree.tostring(root, encoding="unicode") + "\n"
    )


def _make_suite(report: ComparisonReport) -> ElementTree.Element:
    tests = max(1, len(report.gates))
    failures = sum(not gate.is_met for gate in report.gates)
    counts = {"tests": tests, "failures": failures, "errors": 0, "skipped": 0, "time": 0}
    suite = ElementTree.Element(
        "testsuite",
        {"name": _clean(str(report.quantized_path)), **{k: str(v) for k, v in counts.items()}},
    )
    for gate in report.gates:
        case = _add_case(suite, report, gate.name)
        if not gate.is_met:
            line = _clean(describe_gate(gate))
            failure = ElementTree.SubElement(case, "failure", {"message": line, "type": gate.name})
            failure.text = line
    if not report.gates:
        _add_case(suite, report, RUNS)
    output = ElementTree.SubElement(suite, "system-out")
    output.text = _clean("\n".join((*report.verdict, *describe_remarks(report))))
    return suite


def _add_case(
    suite: ElementTree.Element, report: ComparisonReport, name: str
) -> ElementTree.Element:
    # Jenkins takes what is before the last dot for a package.
    group = str(report.quantized_path.with_suffix("")).replace(".", "_")
    attributes = {"classname": _clean(group), "name": _clean(name), "time": "0"}
    return ElementTree.SubElement(suite, "testcase", attributes)


def _clean(text: str) -> str:
    return _INVALID.sub("", text)
